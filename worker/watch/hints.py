"""Hints: a queue of SQS that is told of a bucket's changes. They say where to look, sooner than the next listing would.

A hint may come late, twice, out of order or never: what counts is what the bucket lists, at intervals, whatever was told.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from mlforge.errors import MissingExtra, MlforgeError
from mlforge.sources.bucket_notices import objects_of
from worker.supervision import FAULTS, pause_after, tell_fault

_WAIT_S = 5
"""How long a request waits for messages, and how long the thread may take to end."""
_AT_ONCE = 10
"""Messages in a request, the most that SQS gives."""
_REGION = re.compile(r"sqs[.-]([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")


class Hints:
    """The messages of a queue, each deleted once its objects are told.

    unheard: called when the queue cannot be asked any more. are_heard: whether it can.
    """

    def __init__(
        self,
        url: str,
        told: Callable[[Collection[str]], None],
        unheard: Callable[[], None] = lambda: None,
    ) -> None:
        self._url, self._told, self._unheard = url, told, unheard
        self._queue = _client(url, os.environ)
        self.are_heard = False

    def run(self, stop: threading.Event) -> None:
        """Listen until `stop` is set; where the queue cannot be asked, again and again."""
        faults = 0
        while not stop.is_set():
            try:
                self._listen()
                faults, self.are_heard = 0, True
            except FAULTS as error:
                faults, self.are_heard = faults + 1, False
                self._unheard()
                tell_fault("listen to the queue of hints", _in_words(self._url, error))
                stop.wait(pause_after(faults))

    def _listen(self) -> None:
        answer = self._queue.receive_message(
            QueueUrl=self._url, MaxNumberOfMessages=_AT_ONCE, WaitTimeSeconds=_WAIT_S
        )
        messages = answer.get("Messages", ())
        if not messages:
            return
        self._told([one for message in messages for one in objects_of(message["Body"])])
        receipts = [message["ReceiptHandle"] for message in messages]
        self._queue.delete_message_batch(
            QueueUrl=self._url,
            Entries=[{"Id": str(n), "ReceiptHandle": each} for n, each in enumerate(receipts)],
        )


def _client(url: str, environment: Mapping[str, str]) -> Any:
    """boto3's client of SQS for a queue. Raises MissingExtra, and MlforgeError for an address that is none of a queue."""
    host = urlsplit(url)
    if host.scheme not in ("http", "https") or not host.netloc or not host.path.strip("/"):
        raise MlforgeError(
            f"MLFORGE_HINTS={url!r} is no queue; give its URL, such as https://sqs.eu-central-1.amazonaws.com/1234/drops"
        )
    try:
        session = import_module("boto3").session.Session()
        config = import_module("botocore.config").Config
    except ImportError as error:
        raise MissingExtra.of("a queue of hints", "sqs") from error
    match = _REGION.fullmatch(host.hostname or "")
    region = match[1] if match else environment.get("AWS_REGION") or session.region_name
    patient = config(read_timeout=_WAIT_S + 25, retries={"max_attempts": 2})
    return session.client("sqs", region_name=region or "us-east-1", config=patient)


def _in_words(url: str, error: BaseException) -> BaseException:
    """An outage or a refusal as an error of ours; any other mistake as it is."""
    if type(error).__module__.partition(".")[0] in ("botocore", "boto3"):
        return MlforgeError(f"{url}: {error}; sources are listed as without it meanwhile")
    return error
