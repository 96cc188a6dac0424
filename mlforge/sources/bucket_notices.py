"""Notices of a bucket's changes, as clouds write them: which objects they name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import unquote_plus

_MISREAD = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
_OF_BLOBS = "/blobServices/default/containers/"
_VALIDATION = "Microsoft.EventGrid.SubscriptionValidationEvent"


def objects_of(body: str | bytes) -> list[str]:
    """The addresses, such as `s3://shop/drops/a b.parquet`, of the objects that a message names; none for any other message.

    Understands notices of S3, as they are or within a message of SNS, those of EventBridge, those that Pub/Sub of Google
    pushes, and those of Event Grid of Azure.
    """
    addresses: list[str] = []
    for notice in _notices(body):
        with suppress(*_MISREAD):
            addresses += _addresses(notice)
    return addresses


def validation_code(body: str | bytes) -> str | None:
    """The code by whose repetition Event Grid is told that its notices are wanted here; None for any other message."""
    with suppress(*_MISREAD):
        for event in _notices(body):
            if event["eventType"] == _VALIDATION:
                return str(event["data"]["validationCode"])
    return None


def _notices(body: str | bytes) -> list[Any]:
    """The notices in a message: Event Grid sends lists of them, all others one."""
    with suppress(*_MISREAD):
        document = json.loads(body)
        return document if isinstance(document, list) else [document]
    return []


def _addresses(notice: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(notice.get("Message"), str):  # of SNS
        notice = json.loads(notice["Message"])
    if notice.get("source") == "aws.s3":  # of EventBridge, which writes keys as they are
        detail = notice["detail"]
        yield f"s3://{detail['bucket']['name']}/{detail['object']['key']}"
    for record in notice.get("Records", ()):
        if "s3" in record:
            key = unquote_plus(record["s3"]["object"]["key"])
            yield f"s3://{record['s3']['bucket']['name']}/{key}"
    if "message" in notice:  # of Pub/Sub
        about = notice["message"]["attributes"]
        yield f"gs://{about['bucketId']}/{about['objectId']}"
    subject = str(notice.get("subject"))
    if subject.startswith(_OF_BLOBS):  # of Event Grid
        container, _, blob = subject.removeprefix(_OF_BLOBS).partition("/blobs/")
        yield f"az://{container}/{blob}"
