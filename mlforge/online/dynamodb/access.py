"""Reads and writes of the online store in a table: books that change one writer at a time, rows in batches and side by side."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from mlforge.errors import OnlineUnavailable
from mlforge.online.dynamodb.client import NoTable, Table, Unmet
from mlforge.online.dynamodb.items import (
    IN_BATCH,
    IN_TRANSACTION,
    PARTITIONS,
    Item,
    Items,
    Stored,
    in_batch,
    some,
)

TRIES = 12
"""How often books are written again, or read again, that others change at the same time."""
Change: TypeAlias = tuple[Stored, Sequence[Item]]
"""A new state of the books' item, and what else is written with it."""


class Access:
    """The items of a prefix in a table."""

    def __init__(self, table: Table, items: Items) -> None:
        self.table, self.items = table, items

    # Books

    def stored(self, feature: str) -> Stored:
        """The books' item as it is now."""
        return Stored.of(self.item(self.items.books_key(feature)))

    def change(self, feature: str, work: Callable[[Stored], Change | None]) -> Stored:
        """The books' item as work makes it, written with what else it says; done again where another writer came first.

        Work may return None to leave all as it is. Raises what it raises.
        """
        for _ in range(TRIES):
            before = self.stored(feature)
            change = work(before)
            if change is None:
                return before
            after = replace(change[0], mark=secrets.token_hex(8))
            writes = [self.items.put_books(feature, after, before), *change[1]]
            try:
                self.write("transact_write_items", TransactItems=writes)
            except Unmet:
                # Else its answer was lost, not the write.
                if self.stored(feature).mark != after.mark:
                    continue
            return after
        raise OnlineUnavailable(
            f"{feature}: others change its books in {self.table} at the same time, time and again; push again"
        )

    # Rows

    def digests(self, feature: str) -> Iterator[list[bytes]]:
        """The digests of all rows, a page at a time."""
        for page in self._pages(feature, ProjectionExpression="sk"):
            if items := page.get("Items"):
                yield [bytes(item["sk"]["B"]) for item in items]

    def count(self, feature: str) -> int:
        """The number of rows, which are all read for that."""
        return sum(int(page.get("Count", 0)) for page in self._pages(feature, Select="COUNT"))

    def existing(self, keys: Iterable[Item]) -> Iterator[Item]:
        """The keys of rows that there are, each once."""
        for few in some(keys, IN_TRANSACTION):
            requests = {
                self.items.table: {
                    "Keys": list({key["sk"]["B"]: key for key in few}.values()),
                    "ConsistentRead": True,
                    "ProjectionExpression": "pk, sk",
                }
            }
            with suppress(NoTable):  # nobody has pushed yet
                for answer in self.table.all_of("batch_get_item", requests, "UnprocessedKeys"):
                    yield from answer["Responses"][self.items.table]

    def clear(self, feature: str) -> int:
        """Delete all rows; returns their number."""
        keys = (self.items.row_key(feature, d) for some_ in self.digests(feature) for d in some_)
        return self.in_batches(("Delete", key) for key in keys)

    def in_batches(self, writes: Iterable[tuple[str, Item]]) -> int:
        """The number of writes of rows, done whatever the fence."""
        count = 0
        for batch in some(writes, IN_BATCH):
            last = {value["sk"]["B"]: (kind, value) for kind, value in batch}
            requests = {self.items.table: in_batch(last.values())}
            self._made(partial(self.table.all_of, "batch_write_item", requests, "UnprocessedItems"))
            count += len(batch)
        return count

    # Calls

    def item(self, key: Item) -> Item | None:
        """The item under a key as it is now; None for none."""
        answer = self.read("get_item", TableName=self.items.table, Key=key, ConsistentRead=True)
        return answer.get("Item")

    def read(self, operation: str, **arguments: Any) -> Mapping[str, Any]:
        """The answer to a read; empty where nobody has pushed yet."""
        try:
            return self.table.call(operation, **arguments)
        except NoTable:
            return {}

    def write(self, operation: str, **arguments: Any) -> None:
        """A write, for which the table is made where it is missing."""
        self._made(lambda: self.table.call(operation, **arguments))

    def _made(self, write: Callable[[], object]) -> None:
        try:
            write()
        except NoTable:
            self.table.create()
            write()

    def _pages(self, feature: str, **asked: Any) -> Iterator[Mapping[str, Any]]:
        """The answers to queries for all rows of a feature, partition by partition."""
        for number in range(PARTITIONS):
            partition = {":pk": {"S": self.items.partition(feature, number)}}
            start: Item = {}
            while True:
                page = self.read(
                    "query",
                    TableName=self.items.table,
                    ConsistentRead=True,
                    KeyConditionExpression="pk = :pk",
                    ExpressionAttributeValues=partition,
                    **asked,
                    **start,
                )
                yield page
                if not page.get("LastEvaluatedKey"):
                    break
                start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
