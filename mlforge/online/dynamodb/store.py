"""The online store on DynamoDB, for teams that run no servers of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qsl, urlsplit

from mlforge.core import clock
from mlforge.core.arguments import shown
from mlforge.core.signatures import named_methods
from mlforge.core.values import check_name
from mlforge.errors import DefinitionError, OnlineRefused, StalePush
from mlforge.online.arguments import checked_owner, checked_ttl, described_by
from mlforge.online.base import OnlineStore
from mlforge.online.books import Claim, OnlineBooks, Target
from mlforge.online.chunks import Rows
from mlforge.online.codec import from_fields
from mlforge.online.dynamodb.items import ITEM_BYTES, Item, Items, Stored, now
from mlforge.online.fences import (
    begun,
    check_fence,
    check_owned,
    finished,
    incomplete,
    parsed_fields,
    renewed,
)
from mlforge.online.parsed_books import ParsedBooks
from mlforge.online.requests import RowRequest
from mlforge.store import Store

if TYPE_CHECKING:
    from mlforge.online.dynamodb.access import Access, Change

_TABLE = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_LONG = (ITEM_BYTES - 4096) // 4
"""Characters that fit an item beside its key, whatever they are."""
_URL = "dynamodb://table?region=eu-west-1"


@named_methods
class DynamoDBStore(OnlineStore):
    """Rows and books as items of a table, which the first push makes, paid for by request, where there is none.

    table: its name. region, endpoint: by default what AWS's own tools find, as are the credentials.
    ttl: in seconds, None never expires. Its life is told by the books: a renewal writes no rows.
    prefix: of all keys; stores with different prefixes can share a table. owner: as in `RedisStore`.

    A push writes up to 99 rows, and the condition that its fence stands, in one transaction: two write units a KB of each row.
    A read of books and up to 99 rows is one transaction, too; transactions hold fewer of rows that are large, as DynamoDB takes 4 MB, and a
    row may have 400 KB. Reaches the service at first use, and again after a fork; while that
    throttles, calls are repeated for 20 seconds, then OnlineUnavailable.
    """

    counts_cheaply = False

    def __init__(
        self,
        table: str,
        region: str | None = None,
        ttl: int | None = None,
        prefix: str = "mlforge",
        owner: Store | str | None = None,
        endpoint: str | None = None,
    ) -> None:
        from mlforge.online.dynamodb.access import Access
        from mlforge.online.dynamodb.client import Table

        self.owner = checked_owner(owner, "DynamoDBStore")
        self.ttl = checked_ttl(ttl, "DynamoDBStore")
        self.prefix = _fitting(_PREFIX, prefix, "prefix", "up to 100 letters, digits and _ . -")
        name = _fitting(_TABLE, table, "table", "3 to 255 letters, digits and _ . -")
        texts: list[tuple[object, str]] = [(region, "region"), (endpoint, "endpoint")]
        for value, what in texts:
            if value is not None and not (isinstance(value, str) and value):
                raise DefinitionError(
                    f"DynamoDBStore: {what}={shown(value)} is no text; leave it out"
                )
        self._table = Table(name, region, endpoint)
        self._items = Items(name, self.prefix)
        self._access: Access = Access(self._table, self._items)
        self._known = ParsedBooks()

    @classmethod
    def from_url(
        cls,
        url: str,
        ttl: int | None = None,
        prefix: str = "mlforge",
        owner: Store | str | None = None,
    ) -> Self:
        """The store at `dynamodb://table?region=...&endpoint=...`; the query may be left out."""
        parts = urlsplit(str(url))
        options = dict(parse_qsl(parts.query))
        is_other = parts.scheme != "dynamodb" or parts.path.strip("/") or "@" in parts.netloc
        if is_other or options.keys() - {"region", "endpoint"}:
            raise DefinitionError(
                f"DynamoDBStore.from_url: this is no address of a table; write {_URL}, and leave credentials to AWS's own "
                "settings"
            )
        region, endpoint = options.get("region"), options.get("endpoint")
        return cls(parts.netloc, region, ttl, prefix, owner, endpoint)

    def __repr__(self) -> str:
        return f"DynamoDBStore({self._table}, ttl={self.ttl}, prefix={self.prefix!r})"

    def described(self) -> str:
        """The repr, the owner if it was named, and a hash of the address."""
        return described_by(self, self._table.options_hash)

    def ping(self) -> bool:
        """True if the service answers; OnlineUnavailable if not, OnlineRefused if it refuses the credentials."""
        self._access.item(self._items.list_key())
        return True

    def close(self) -> None:
        """Close all connections; the next call opens new ones."""
        self._table.close()

    def books(self, feature: str) -> OnlineBooks | None:
        """The feature's books; None if it was never pushed, or not renewed in time."""
        return self._parsed(feature, self._access.stored(check_name(feature)).told)

    def features(self) -> list[str]:
        """The features that were pushed here and not dropped since, by name."""
        item = self._access.item(self._items.list_key()) or {}
        return sorted(item.get("names", {}).get("SS", ()))

    def begin(self, feature: str, target: Target, claim: Claim | None = None) -> OnlineBooks:
        """Raise the fence to the target and note it as pending, in one transaction; the books from now on."""
        check_name(feature)

        def work(before: Stored) -> Change:
            fields = parsed_fields(before.told)
            after = begun(feature, fields, target, claim, str(self._table))
            is_new = not fields or not fields.keys() <= after.keys()
            until = self._books_until(clock.now()) if is_new else before.books_until
            further = list(self._items.raise_fence(feature, _fence_in(after)))
            # Somebody who dropped the feature may have taken off the list what was pushed again meanwhile.
            if before.fields is None or feature not in self.features():
                further.append(self._items.register(feature))
            return self._living(
                replace(before, fields=json.dumps(after), books_until=until)
            ), further

        stored = self._access.change(feature, work)
        books = from_fields(parsed_fields(stored.fields) or {}, self._books_name(feature))
        assert books is not None
        return books

    def finish(
        self, feature: str, target: Target, books: OnlineBooks, server: str | None = None
    ) -> None:
        """Write the books with the target as done and none pending, atomically."""
        until = self._books_until(books.renewed_at)

        def work(before: Stored, fields: Mapping[str, str]) -> Stored:
            after = finished(fields, target, books, self.ttl)
            return self._living(replace(before, fields=json.dumps(after), books_until=until))

        self._change(feature, target, work)

    def renew(self, feature: str, target: Target) -> int:
        """Give every row and the books their full time to live again; returns the number of rows."""
        renewed_at, rows = clock.now(), self.rows_by_feature([feature])[feature]

        def work(before: Stored, fields: Mapping[str, str]) -> Stored:
            told = json.dumps(renewed(fields, renewed_at, self.ttl))
            until = self._books_until(renewed_at)
            return self._living(replace(before, fields=told, books_until=until))

        self._change(feature, target, work)
        return rows

    def mark_incomplete(self, feature: str, books: OnlineBooks) -> None:
        """Note in the books that rows are missing, unless a push has begun since."""
        assert books.target is not None

        def work(before: Stored, fields: Mapping[str, str]) -> Stored:
            return replace(before, fields=json.dumps(incomplete(fields)))

        with suppress(StalePush):
            self._change(feature, books.target, work)

    def rows_by_feature(self, features: Collection[str]) -> dict[str, int]:
        """The number of rows online of each of these features; all rows are read for that."""
        return {
            feature: self._access.count(feature)
            if self._access.stored(check_name(feature)).has_rows
            else 0
            for feature in features
        }

    def forget(self, feature: str, owner: str | None = None) -> None:
        """Delete the feature's books and fence, unless another store owns them."""
        check_name(feature)

        def work(before: Stored) -> Change:
            check_owned(feature, parsed_fields(before.told), owner, str(self._table))
            without = replace(before, fields=None, books_until=None)
            return without, list(self._items.raise_fence(feature, None))

        self._access.change(feature, work)

    def unregister(self, feature: str) -> None:
        """Take the feature off the list of features; its rows and books stay."""
        self._access.write("update_item", **self._items.unregister(feature))

    def _put(self, feature: str, target: Target | None, chunks: Iterable[Rows]) -> int:
        check_name(feature)
        rows = (row for chunk in chunks for row in zip(chunk.hashes, chunk.texts, strict=True))
        return self._write(feature, target, (self._row(feature, *row) for row in rows))

    def _remove(self, feature: str, target: Target | None, chunks: Iterable[Sequence[str]]) -> int:
        check_name(feature)
        if target is not None:
            self._check(feature, target)
        digests = map(bytes.fromhex, chain.from_iterable(chunks))
        keys = (self._items.row_key(feature, digest) for digest in digests)
        existing = self._access.existing(keys)
        return self._write(feature, target, (("Delete", key) for key in existing))

    def _write(
        self, feature: str, target: Target | None, writes: Iterable[tuple[str, Item]]
    ) -> int:
        """The number of writes of rows, done in transactions behind the target's fence; in batches without one."""
        from mlforge.online.dynamodb.writing import fenced_writes

        if target is None:
            self._enter(feature)
            return self._access.in_batches(writes)
        fence = _fence_of(target)
        return fenced_writes(
            self._access, feature, fence, writes, lambda: self._check(feature, target)
        )

    def _clear(self, feature: str) -> int:
        """Delete all rows; returns how many there were of those that live."""
        live = self._access.stored(check_name(feature)).has_rows
        deleted = self._access.clear(feature)
        return deleted if live else 0

    def _scan(self, feature: str) -> Iterator[list[str]]:
        if self._access.stored(check_name(feature)).has_rows:
            for digests in self._access.digests(feature):
                yield [digest.hex() for digest in digests]

    def _fetch(
        self, requests: Sequence[RowRequest]
    ) -> list[tuple[OnlineBooks | None, list[str | None]]]:
        from mlforge.online.dynamodb.reading import fetched

        answers = fetched(self._access, requests)
        return [
            (
                self._parsed(request.feature, stored.told),
                [texts.get(bytes.fromhex(hash)) for hash in request.hashes]
                if stored.has_rows
                else [None] * len(request.hashes),
            )
            for request, (stored, texts) in zip(requests, answers, strict=True)
        ]

    def _row(self, feature: str, hash: str, text: str) -> tuple[str, Item]:
        key = self._items.row_key(feature, bytes.fromhex(hash))
        if len(text) > _LONG and len(text.encode()) > _LONG * 4:
            raise OnlineRefused(
                f"{feature}: a row of {len(text.encode()):,} bytes, {self._row_name(feature, hash)}, is more than the 400 KB that an "
                "item of DynamoDB holds; leave out columns with long values, or use another online store"
            )
        return "Put", {**key, "json": {"S": text}}

    def _enter(self, feature: str) -> None:
        """See to it that rows which nobody pushes live; those of a pushed feature live as its pushes say."""

        def work(before: Stored) -> Change | None:
            if before.told is not None or (self.ttl is None and before.rows_until is None):
                return None
            if not before.has_rows:
                self._access.clear(feature)
            return self._living(before), ()

        self._access.change(feature, work)

    def _check(self, feature: str, target: Target) -> None:
        """Raise StalePush where the target's push is not the last that began."""
        fields = parsed_fields(self._access.stored(feature).told)
        check_fence(feature, fields, target, str(self._table))

    def _change(
        self,
        feature: str,
        target: Target,
        work: Callable[[Stored, Mapping[str, str]], Stored],
    ) -> None:
        """Write the books as work makes them of their fields, behind the target's fence."""

        def change(before: Stored) -> Change:
            fields = parsed_fields(before.told)
            check_fence(feature, fields, target, str(self._table))
            assert fields is not None
            return work(before, fields), ()

        self._access.change(check_name(feature), change)

    def _living(self, stored: Stored) -> Stored:
        """The state in which rows have their full life, and books go within half of it, as they never outlive rows."""
        if self.ttl is None:
            return replace(stored, rows_until=None)
        half = now() + self.ttl / 2
        until = half if stored.books_until is None else min(stored.books_until, half)
        return replace(stored, rows_until=half + self.ttl / 2, books_until=until)

    def _books_until(self, renewed_at: int) -> float | None:
        """Half a TTL after `renewed_at`, by the time of this host; None for ever."""
        if self.ttl is None:
            return None
        half = self.ttl / 2
        return now() + min(half, max(1e-6, half - (clock.now() - renewed_at) / 1e6))

    def _parsed(self, feature: str, text: str | None) -> OnlineBooks | None:
        return self._known.of(feature, text, self._books_name)

    def _row_name(self, feature: str, hash: str) -> str:
        key = self._items.row_key(feature, bytes.fromhex(hash))
        return f"pk {key['pk']['S']!r}, sk {hash} in {self._table}"

    def _books_name(self, feature: str) -> str:
        return f"{self._items.books_key(feature)['pk']['S']!r} in {self._table}"


def _fence_of(target: Target) -> str:
    return "{} {} ".format(*target.fence) + target.store


def _fence_in(fields: Mapping[str, str]) -> str:
    return f"{fields['fence']} {fields.get('owner', '')}"


def _fitting(pattern: re.Pattern[str], value: object, what: str, works: str) -> str:
    if isinstance(value, str) and pattern.fullmatch(value):
        return value
    raise DefinitionError(f"DynamoDBStore: {what}={shown(value)} is not allowed; use {works}")
