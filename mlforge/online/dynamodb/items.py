"""Items of the online store: what lies in a table, and the requests that read and write it.

An item has the keys `pk` (text) and `sk` (bytes). Rows of a feature lie under `{prefix}:{feature}:{b}`, in 16 partitions by the
first byte of the entity's digest, which is `sk`. The books are one item; the fence of a push stands in some items beside it, so that
several writers need not wait for one another: DynamoDB lets no two transactions at one item at a time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Item: TypeAlias = dict[str, Any]
PARTITIONS = 16
LANES = 8
"""Items that hold the fence: so many transactions of a push are under way at a time."""
IN_BATCH = 25
"""Writes in a batch: more are refused."""
IN_TRANSACTION = 100
"""Items in a transaction, and keys in a batch of reads."""
ITEM_BYTES = 400 << 10
"""The size of an item, with the names of its attributes."""
_BOOKS, _FENCE, _LIST = b"books", b"fence", b"list"


@dataclass(frozen=True, slots=True)
class Stored:
    """The books' item: the fields of the books as JSON, until when books and rows live (UTC seconds, None for ever), and a mark of this state."""

    fields: str | None = None
    books_until: float | None = None
    rows_until: float | None = None
    mark: str | None = None

    @classmethod
    def of(cls, item: Item | None) -> Stored:
        """The state in an item; None is that of a feature nobody has pushed."""
        if item is None:
            return cls()
        return cls(
            item.get("fields", {}).get("S"),
            _seconds(item, "books_until"),
            _seconds(item, "rows_until"),
            item.get("mark", {}).get("S"),
        )

    @property
    def told(self) -> str | None:
        """The fields of books that live."""
        return self.fields if self.books_until is None or now() < self.books_until else None

    @property
    def has_rows(self) -> bool:
        """Whether rows live."""
        return self.rows_until is None or now() < self.rows_until


@dataclass(frozen=True, slots=True)
class Items:
    """The items of a prefix in a table."""

    table: str
    prefix: str

    def row_key(self, feature: str, digest: bytes) -> Item:
        """The key of a row."""
        return {"pk": {"S": self.partition(feature, digest[0] % PARTITIONS)}, "sk": {"B": digest}}

    def partition(self, feature: str, number: int) -> str:
        """The partition of some rows."""
        return f"{self.prefix}:{feature}:{number}"

    def books_key(self, feature: str) -> Item:
        """The key of the books."""
        return {"pk": {"S": f"{self.prefix}:{feature}"}, "sk": {"B": _BOOKS}}

    def list_key(self) -> Item:
        """The key of the list of features."""
        return {"pk": {"S": f"{self.prefix}:_features"}, "sk": {"B": _LIST}}

    def lane_key(self, feature: str, lane: int) -> Item:
        """The key of an item that holds the fence."""
        return {"pk": {"S": f"{self.prefix}:{feature}:fence:{lane}"}, "sk": {"B": _FENCE}}

    def put_books(self, feature: str, stored: Stored, before: Stored) -> Item:
        """The write of books in a transaction, unless they are not those of before any more."""
        item = {**self.books_key(feature), "mark": {"S": stored.mark}}
        if stored.fields is not None:
            item["fields"] = {"S": stored.fields}
        for name in ("books_until", "rows_until"):
            if (until := getattr(stored, name)) is not None:
                item[name] = {"N": f"{until:.6f}"}
        return {"Put": {"TableName": self.table, "Item": item, **_still(before)}}

    def raise_fence(self, feature: str, fence: str | None) -> Iterator[Item]:
        """The writes of all lanes in a transaction; None takes the fence away."""
        for lane in range(LANES):
            key = self.lane_key(feature, lane)
            if fence is None:
                yield {"Delete": {"TableName": self.table, "Key": key}}
            else:
                yield {"Put": {"TableName": self.table, "Item": {**key, "fence": {"S": fence}}}}

    def check_fence(self, feature: str, lane: int, fence: str) -> Item:
        """The condition of a transaction that the fence is still this one."""
        return {
            "ConditionCheck": {
                "TableName": self.table,
                "Key": self.lane_key(feature, lane),
                "ConditionExpression": "fence = :fence",
                "ExpressionAttributeValues": {":fence": {"S": fence}},
            }
        }

    def register(self, feature: str) -> Item:
        """The write of a feature's name onto the list, in a transaction."""
        return {
            "Update": {
                "TableName": self.table,
                "Key": self.list_key(),
                "UpdateExpression": "ADD #names :name",
                "ExpressionAttributeNames": {"#names": "names"},
                "ExpressionAttributeValues": {":name": {"SS": [feature]}},
            }
        }

    def unregister(self, feature: str) -> Item:
        """The arguments of the update that takes a feature's name off the list."""
        taken = self.register(feature)["Update"]
        return {**taken, "UpdateExpression": "DELETE #names :name"}

    def get(self, key: Item) -> Item:
        """A read of an item in a transaction."""
        return {"Get": {"TableName": self.table, "Key": key}}


def in_transaction(writes: Iterable[tuple[str, Item]], table: str) -> list[Item]:
    """Writes of rows, `Put` of an item or `Delete` of a key, as a transaction takes them."""
    part = {"Put": "Item", "Delete": "Key"}
    return [{kind: {"TableName": table, part[kind]: value}} for kind, value in writes]


def in_batch(writes: Iterable[tuple[str, Item]]) -> list[Item]:
    """As `in_transaction`, as a batch takes them."""
    part = {"Put": "Item", "Delete": "Key"}
    return [{f"{kind}Request": {part[kind]: value}} for kind, value in writes]


def some(values: Iterable[T], most: int) -> Iterator[list[T]]:
    """The values, so many at a time."""
    each = iter(values)
    while taken := list(islice(each, most)):
        yield taken


def texts_by_digest(items: Sequence[Mapping[str, Any]]) -> dict[bytes, str]:
    """The rows' texts in items, by their digests."""
    return {bytes(item["sk"]["B"]): str(item["json"]["S"]) for item in items}


def _seconds(item: Item, name: str) -> float | None:
    return float(item[name]["N"]) if name in item else None


def now() -> float:
    """UTC seconds by this host's clock, which books and rows live by: the service tells no time."""
    return time.time()


def _still(before: Stored) -> Item:
    if before.mark is None:
        return {"ConditionExpression": "attribute_not_exists(pk)"}
    return {
        "ConditionExpression": "#mark = :before",
        "ExpressionAttributeNames": {"#mark": "mark"},
        "ExpressionAttributeValues": {":before": {"S": before.mark}},
    }
