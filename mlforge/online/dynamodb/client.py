"""A table of DynamoDB: calls that are repeated while it throttles, and the meaning of its refusals."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from threading import Lock
from typing import Any

from mlforge.errors import MissingExtra, OnlineError, OnlineRefused, OnlineUnavailable

try:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        HTTPClientError,
        NoCredentialsError,
        NoRegionError,
        PartialCredentialsError,
    )
    from botocore.exceptions import ConnectionError as Unconnected
except ImportError:
    raise MissingExtra.of("DynamoDBStore", "dynamodb") from None

CONNECTIONS = 16
PATIENCE_S = 20.0
"""How long a call is repeated that the service turns down for now."""
_TIMEOUT_S, _TRIES = 5, 3
_UNANSWERED = (HTTPClientError, Unconnected)
_MADE_WITHIN_S = 60.0
_LEAST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
_FOR_NOW = {
    "ProvisionedThroughputExceededException",
    "ProvisionedThroughputExceeded",
    "ThrottlingException",
    "ThrottlingError",
    "RequestLimitExceeded",
    "LimitExceededException",
    "InternalServerError",
    "ServiceUnavailable",
    "TransactionInProgressException",
    "TransactionConflictException",
    "TransactionConflict",
}
"""Codes of refusals, and of reasons why a transaction was cancelled, that pass by themselves."""
_INVALID = {"ValidationException", "ValidationError"}
_NOT_ALLOWED = {
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "UnrecognizedClientException",
}


class NoTable(Exception):
    """The table does not exist."""


class TableExists(Exception):
    """The table is there, or is being made."""


class Unmet(Exception):
    """A condition was not met, and so nothing was written."""


class InvalidRequest(OnlineError):
    """The service can do nothing with a request, as with one that is too large, or whose answer would be."""


class Table:
    """A table that raises mlforge's errors; it is reached at first use, and again after a fork."""

    def __init__(self, name: str, region: str | None, endpoint: str | None) -> None:
        self.table, self._region, self._endpoint = name, region, endpoint
        self.name = f"the table {name} of DynamoDB" + (f" in {region}" if region else "")
        self.options_hash = hashlib.sha256(repr((name, region, endpoint)).encode()).hexdigest()
        self._client: Any = None
        self._pid, self._lock = os.getpid(), Lock()

    def __str__(self) -> str:
        return self.name

    def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """The answer to an operation, by boto3's name for it.

        Repeated with growing pauses, drawn at random so that writers do not come back together, while the service turns it down
        for now, and a few times where it does not answer: it must be idempotent. Raises Unmet, NoTable, TableExists, and OnlineError with its kinds,
        InvalidRequest among them.
        """
        deadline, pause, unanswered = time.monotonic() + PATIENCE_S, _LEAST_PAUSE_S, 0
        while True:
            try:
                answer: dict[str, Any] = getattr(self._connected(), operation)(**arguments)
            except (ClientError, BotoCoreError) as error:
                codes = _codes(error)
                if codes & {"ConditionalCheckFailed", "ConditionalCheckFailedException"}:
                    raise Unmet from None
                if "ResourceNotFoundException" in codes:
                    raise NoTable from None
                if "ResourceInUseException" in codes:
                    raise TableExists from None
                unanswered += isinstance(error, _UNANSWERED)
                is_passing = codes & _FOR_NOW or isinstance(error, _UNANSWERED)
                if not is_passing or unanswered >= _TRIES or time.monotonic() >= deadline:
                    raise self._meant(error, codes) from error
                time.sleep(random.uniform(0, pause))
                pause = min(2 * pause, _LONGEST_PAUSE_S)
            else:
                return answer

    def all_of(self, operation: str, requests: Mapping[str, Any], left: str) -> list[Any]:
        """The answers to a batch, asked again for what the service left out. left: the field that tells of that."""
        deadline, pause = time.monotonic() + PATIENCE_S, _LEAST_PAUSE_S
        answers = []
        while requests:
            answer = self.call(operation, RequestItems=requests)
            answers.append(answer)
            requests = answer.get(left) or {}
            if requests:
                if time.monotonic() >= deadline:
                    raise OnlineUnavailable(
                        f"{self} throttles: it has left out a part of each batch for {PATIENCE_S:g} seconds; raise its capacity, "
                        "or its limits for on-demand tables"
                    )
                time.sleep(random.uniform(0, pause))
                pause = min(2 * pause, _LONGEST_PAUSE_S)
        return answers

    def create(self) -> None:
        """Make the table, unless it is there, and wait until it may be used."""
        with suppress(TableExists):
            self.call(
                "create_table",
                TableName=self.table,
                BillingMode="PAY_PER_REQUEST",
                KeySchema=[
                    {"AttributeName": "pk", "KeyType": "HASH"},
                    {"AttributeName": "sk", "KeyType": "RANGE"},
                ],
                AttributeDefinitions=[
                    {"AttributeName": "pk", "AttributeType": "S"},
                    {"AttributeName": "sk", "AttributeType": "B"},
                ],
            )
        deadline = time.monotonic() + _MADE_WITHIN_S
        while not self._is_active():
            if time.monotonic() >= deadline:
                raise OnlineUnavailable(
                    f"{self} cannot be used {_MADE_WITHIN_S:g} seconds after it was made; push again"
                )
            time.sleep(1)

    def _is_active(self) -> bool:
        try:
            told = self.call("describe_table", TableName=self.table)["Table"]["TableStatus"]
        except NoTable:
            return False
        return bool(told == "ACTIVE")

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connected(self) -> Any:
        with self._lock:
            # A parent's connections are the parent's.
            if self._client is None or self._pid != os.getpid():
                self._pid = os.getpid()
                try:
                    self._client = boto3.session.Session().client(
                        "dynamodb",
                        region_name=self._region,
                        endpoint_url=self._endpoint,
                        config=Config(
                            connect_timeout=_TIMEOUT_S,
                            read_timeout=_TIMEOUT_S,
                            max_pool_connections=CONNECTIONS,
                            retries={"total_max_attempts": 1},  # they are this module's
                            user_agent_extra="mlforge",
                        ),
                    )
                except (BotoCoreError, ValueError) as error:
                    raise self._meant(error, set()) from error
            return self._client

    def _meant(self, error: Exception, codes: set[str]) -> OnlineError:
        """The mlforge error for a client error."""
        text = " ".join(str(error).split())
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return OnlineRefused(
                f"{self}: AWS finds no credentials ({text}); set a profile, variables or a role as for its other tools"
            )
        if isinstance(error, NoRegionError):
            return OnlineRefused(
                f'{self}: no region is known; write DynamoDBStore(table, region="eu-west-1"), or set AWS_REGION'
            )
        if codes & _NOT_ALLOWED:
            return OnlineRefused(f"{self} refused the credentials, or what they may do ({text})")
        if codes & _FOR_NOW:
            return OnlineUnavailable(
                f"{self} throttles, or is at work on the same rows, for {PATIENCE_S:g} seconds ({text}); raise its capacity, "
                "or its limits for on-demand tables"
            )
        if isinstance(error, BotoCoreError):
            return OnlineUnavailable(f"{self} does not answer ({text})")
        if "UnknownOperationException" in codes:
            return OnlineRefused(
                f"{self}: the service knows no transactions, without which a push that was overtaken could write over newer rows; use "
                f"one that has them, as AWS's own does ({text})"
            )
        if codes & _INVALID:
            return InvalidRequest(f"{self}: {text}")
        return OnlineError(f"{self}: {text}")


def _codes(error: Exception) -> set[str]:
    """The code of a refusal, of a cancelled transaction those of its reasons."""
    if not isinstance(error, ClientError):
        return set()
    code = str(error.response.get("Error", {}).get("Code", ""))
    reasons = error.response.get("CancellationReasons") or ()
    codes = {str(reason.get("Code")) for reason in reasons} - {"None"}
    return codes or {code}
