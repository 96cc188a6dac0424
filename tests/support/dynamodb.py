"""DynamoDB for tests: moto, with what it lacks of the real service."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

import pytest

from tests.support.object_servers import Server, moto

IN_TRANSACTION = 4 << 20
"""Bytes of the items that a transaction writes, or reads."""


@dataclass
class DynamoDB:
    """A running service, what it was asked, and what it is to turn down."""

    server: Server
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    turns_down: Callable[[str, dict[str, Any]], str | None] = lambda operation, body: None
    """The code of an error in place of an answer; None for the answer."""
    leaves_out: Callable[[], bool] = lambda: False
    """Whether the last half of a batch is left out."""

    @property
    def endpoint(self) -> str:
        return self.server.endpoint

    def count(self, operation: str) -> int:
        return sum(name == operation for name, _ in self.asked)


@contextmanager
def dynamodb() -> Iterator[DynamoDB]:
    """moto, one request at a time, with AWS's own bounds, and credentials in the environment.

    moto takes 26 writes in a batch where AWS takes 25, and only 25 reads in a transaction where AWS takes 100; its transactions copy
    the whole table, two at a time undo one another, and its queries sort all items.
    """
    pytest.importorskip("moto.dynamodb", reason="moto is not installed")
    from moto.core.exceptions import JsonRESTError
    from moto.dynamodb import responses
    from moto.dynamodb.models.table import Table

    lock, handler = RLock(), responses.DynamoHandler
    query = Table.query
    call_action, batch_write = handler.call_action, handler.batch_write_item

    def one_at_a_time(self: Any) -> Any:
        operation, body = self._get_action(), dict(getattr(self, "params", {}))
        with lock:
            made.asked.append((operation, body))
            check_bounds(operation, body)
            code = made.turns_down(operation, body)
            if code is not None:
                error = JsonRESTError(code, "so the test says")
                return error.code, {"x-amzn-errortype": code}, error.description
            answer = call_action(self)
            if operation == "TransactGetItems" and len(answer[2]) > IN_TRANSACTION:
                error = JsonRESTError("ValidationException", "the items are more than 4 MB")
                return error.code, {"x-amzn-errortype": "ValidationException"}, error.description
            return answer

    def leaving_out(self: Any) -> Any:
        [(table, requests)] = self.body["RequestItems"].items()
        if len(requests) < 2 or not made.leaves_out():
            return batch_write(self)
        half = len(requests) // 2
        self.body["RequestItems"] = {table: requests[:half]}
        answer = batch_write(self)
        answer.result["UnprocessedItems"] = {table: requests[half:]}
        return answer

    def of_a_table(self: Table, memo: object) -> Table:
        other = copy.copy(self)
        other.items = defaultdict(dict, {key: dict(rows) for key, rows in self.items.items()})
        return other

    def of_a_partition(self: Table, hash_key: Any, *arguments: Any, **options: Any) -> Any:
        whole = self.items
        self.items = defaultdict(dict, {hash_key: whole.get(hash_key, {})})
        try:
            return query(self, hash_key, *arguments, **options)
        finally:
            self.items = whole

    with moto() as server, pytest.MonkeyPatch.context() as patch:
        made = DynamoDB(server)
        for name, value in server.environment.items():
            if name != "AWS_ENDPOINT_URL":
                patch.setenv(name, value)
        patch.setattr(responses, "TRANSACTION_MAX_ITEMS", 100)
        patch.setattr(handler, "call_action", one_at_a_time)
        patch.setattr(handler, "batch_write_item", leaving_out)
        patch.setattr(Table, "__deepcopy__", of_a_table, raising=False)
        patch.setattr(Table, "query", of_a_partition)
        yield made


def check_bounds(operation: str, body: dict[str, Any]) -> None:
    """Fail where AWS would refuse the size of a request."""
    if operation == "BatchWriteItem":
        assert sum(map(len, body["RequestItems"].values())) <= 25
    elif operation in ("TransactWriteItems", "TransactGetItems"):
        assert len(body["TransactItems"]) <= 100
        assert len(str(body)) <= IN_TRANSACTION
    elif operation == "BatchGetItem":
        assert sum(len(table["Keys"]) for table in body["RequestItems"].values()) <= 100
