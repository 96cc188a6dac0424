"""Notices of a bucket's changes, as S3 writes them: which objects they name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote_plus

_MISREAD = (ValueError, KeyError, TypeError, AttributeError)


def objects_of(body: str) -> list[str]:
    """The addresses, such as `s3://shop/drops/a b.parquet`, of the objects that a message names; none for any other message.

    Understands notices of S3, as they are or within a message of SNS, and those of EventBridge.
    """
    try:
        document = json.loads(body)
        if isinstance(document.get("Message"), str):  # of SNS
            document = json.loads(document["Message"])
        return list(_addresses(document))
    except _MISREAD:
        return []


def _addresses(document: Mapping[str, Any]) -> Iterator[str]:
    if document.get("source") == "aws.s3":  # of EventBridge, which writes keys as they are
        detail = document["detail"]
        yield f"s3://{detail['bucket']['name']}/{detail['object']['key']}"
    for record in document.get("Records", ()):
        if "s3" in record:
            key = unquote_plus(record["s3"]["object"]["key"])
            yield f"s3://{record['s3']['bucket']['name']}/{key}"
