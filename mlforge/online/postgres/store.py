"""The online store on PostgreSQL, for teams whose only database it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

from mlforge.core import clock
from mlforge.core.signatures import named_methods
from mlforge.core.values import check_name
from mlforge.errors import DefinitionError, OnlineError, OnlineUnavailable, StalePush
from mlforge.online.arguments import checked_owner, checked_ttl, described_by
from mlforge.online.base import OnlineStore
from mlforge.online.books import Claim, Evidence, OnlineBooks, Target
from mlforge.online.chunks import Rows
from mlforge.online.codec import from_fields
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
    from mlforge.online.postgres.server import Cursor
    from mlforge.online.postgres.tables import Tables

T = TypeVar("T")
_CHUNKS_AT_ONCE = 16
"""Chunks in one transaction: a newer push waits for one to end before it begins."""
_SCANNED_AT_ONCE = 5_000
_CLEARED_AT_ONCE = 100_000
_LONGEST_PREFIX = 40


@named_methods
class PostgresStore(OnlineStore):
    """Rows and books in the tables `{prefix}_rows` and `{prefix}_features`, made by the first push.

    url: `postgresql://user:password@host:5432/database`, or libpq's `key=value` text; what it lacks comes from where libpq finds it.
    ttl: in seconds, None never expires. Its life is told by the books: a renewal writes no rows.
    prefix: of the tables; letters, digits and underscores. owner: as in `RedisStore`.

    Connects at first use, and again after a fork. A server that does not answer raises OnlineUnavailable after three tries.
    """

    def __init__(
        self,
        url: str,
        ttl: int | None = None,
        prefix: str = "mlforge",
        owner: Store | str | None = None,
    ) -> None:
        from mlforge.online.postgres.server import Server
        from mlforge.online.postgres.tables import Tables

        self.owner = checked_owner(owner, "PostgresStore")
        self.ttl = checked_ttl(ttl, "PostgresStore")
        self.prefix = _checked_prefix(prefix)
        self._server = Server(url)
        self._tables: Tables = Tables(self.prefix)
        self._known = ParsedBooks()

    def __repr__(self) -> str:
        return f"PostgresStore({self._server}, ttl={self.ttl}, prefix={self.prefix!r})"

    def described(self) -> str:
        """The repr, the owner if it was named, and a hash of all connection options, a password's included."""
        return described_by(self, self._server.options_hash)

    def ping(self) -> bool:
        """True if the server answers; OnlineUnavailable if not."""
        return bool(self._server.ask(b"select true"))

    def close(self) -> None:
        """Close idle connections; the next call opens new ones."""
        self._server.close()

    def features(self) -> list[str]:
        """The features that were pushed here and not dropped since, by name."""
        return [feature for (feature,) in self._query(self._tables.listed)]

    def begin(self, feature: str, target: Target, claim: Claim | None = None) -> OnlineBooks:
        """Raise the fence to the target and note it as pending, atomically; the books from now on."""
        check_name(feature)

        def work(cursor: Cursor) -> Mapping[str, str]:
            fields = self._locked(cursor, feature)
            after = begun(feature, fields, target, claim, str(self._server))
            cursor.execute(
                self._tables.begin,
                {
                    "feature": feature,
                    "fields": json.dumps(after),
                    "is_new": not fields or not fields.keys() <= after.keys(),
                    "life": self._books_life(clock.now()),
                },
            )
            return after

        books = from_fields(self._change(work), self._books_name(feature))
        assert books is not None
        return books

    def finish(
        self, feature: str, target: Target, books: OnlineBooks, server: str | None = None
    ) -> None:
        """Write the books with the target as done and none pending, atomically."""
        life = self._books_life(books.renewed_at)

        def work(cursor: Cursor) -> None:
            fields = self._fenced(cursor, feature, target)
            if server is not None and (run := self._run(cursor)) not in (None, server):
                raise OnlineUnavailable(
                    f"{feature}: {self._server} was restored or failed over during the push of {target} "
                    f"(timeline {run}), and may lack rows of it: push again"
                )
            self._record(cursor, feature, finished(fields, target, books, self.ttl), life)

        self._change(work)

    def renew(self, feature: str, target: Target) -> int:
        """Give every row and the books their full time to live again; returns the number of rows."""
        renewed_at = clock.now()

        def work(cursor: Cursor) -> int:
            fields = self._fenced(cursor, feature, target)
            again = renewed(fields, renewed_at, self.ttl)
            counted = cursor.execute(self._tables.count, ([feature],)).fetchone()
            cursor.execute(self._tables.live, {"feature": feature, "ttl": self.ttl})
            self._record(cursor, feature, again, self._books_life(renewed_at))
            return counted[1] if counted else 0

        return self._change(work)

    def evidence(self) -> Evidence | None:
        """The server's timeline, another after each failover or restore; None from a standby, or where it may not be asked."""
        try:
            [(run,)] = self._server.ask(self._tables.timeline)
        except OnlineUnavailable:
            raise
        except OnlineError:
            return None
        return None if run is None else Evidence(run, 0)

    def mark_incomplete(self, feature: str, books: OnlineBooks) -> None:
        """Note in the books that rows are missing, unless a push has begun since."""
        target = books.target
        assert target is not None

        def work(cursor: Cursor) -> None:
            fields = self._fenced(cursor, feature, target)
            cursor.execute(self._tables.note, (json.dumps(incomplete(fields)), feature))

        with suppress(StalePush):
            self._change(work)

    def rows_by_feature(self, features: Collection[str]) -> dict[str, int]:
        """The number of rows online of each of these features, in one statement."""
        named = list(map(check_name, features))
        counted = dict(self._query(self._tables.count, (named,)))
        return {feature: counted.get(feature, 0) for feature in features}

    def forget(self, feature: str, owner: str | None = None) -> None:
        """Delete the feature's books and fence, unless another store owns them."""

        def work(cursor: Cursor) -> None:
            check_owned(feature, self._locked(cursor, feature), owner, str(self._server))
            cursor.execute(self._tables.forget, (feature,))

        self._change(work)

    def unregister(self, feature: str) -> None:
        """Take the feature off the list of features; its rows and books stay."""
        self._change(lambda cursor: cursor.execute(self._tables.unlist, (feature,)))

    def _put(self, feature: str, target: Target | None, chunks: Iterable[Rows]) -> int:
        check_name(feature)
        count = 0
        for some in _several(chunks):
            rows = dict(zip(_hashes(some), chain.from_iterable(r.texts for r in some), strict=True))

            def work(cursor: Cursor, rows: Mapping[str, str] = rows) -> None:
                self._enter(cursor, feature, target)
                cursor.execute(self._tables.stage)
                with cursor.copy(self._tables.copy) as copy:
                    copy.set_types(["bytea", "text"])
                    for hash, text in rows.items():
                        copy.write_row((bytes.fromhex(hash), text))
                cursor.execute(self._tables.upsert, (feature,))

            self._change(work)
            count += sum(len(chunk.hashes) for chunk in some)
        return count

    def _remove(self, feature: str, target: Target | None, chunks: Iterable[Sequence[str]]) -> int:
        check_name(feature)
        count = 0
        for some in _several(map(Rows, chunks)):
            digests = list(map(bytes.fromhex, _hashes(some)))

            def work(cursor: Cursor, digests: list[bytes] = digests) -> int:
                self._enter(cursor, feature, target)
                return cursor.execute(self._tables.remove, (feature, digests)).rowcount

            count += self._change(work)
        return count

    def _clear(self, feature: str) -> int:
        return self._change(lambda cursor: self._cleared(cursor, feature))

    def _scan(self, feature: str) -> Iterator[list[str]]:
        last = b""
        while True:
            arguments = (check_name(feature), last, _SCANNED_AT_ONCE)
            rows = self._query(self._tables.scan, arguments)
            if not rows:
                return
            yield [digest.hex() for (digest,) in rows]
            last = rows[-1][0]

    def _fetch(
        self, requests: Sequence[RowRequest]
    ) -> list[tuple[OnlineBooks | None, list[str | None]]]:
        features = [check_name(request.feature) for request in requests]
        hashes = [hash for request in requests for hash in request.hashes]
        arguments = {
            "features": features,
            "names": [r.feature for r in requests for _ in r.hashes],
            "digests": list(map(bytes.fromhex, hashes)),
        }
        rows = self._query(self._tables.fetch, arguments)
        texts: list[str | None] = [None] * len(hashes)
        fields: dict[str, str] = {}
        for position, feature, text in rows:
            if position:
                texts[position - 1] = text
            else:
                fields[feature] = text
        each = iter(texts)
        return [
            (
                self._parsed(request.feature, fields.get(request.feature)),
                list(islice(each, len(request.hashes))),
            )
            for request in requests
        ]

    def _parsed(self, feature: str, text: str | None) -> OnlineBooks | None:
        return self._known.of(feature, text, self._books_name)

    def _enter(self, cursor: Cursor, feature: str, target: Target | None) -> None:
        """Hold a write of rows against the fence, drop what has outlived its TTL, and see to it that the rows live."""
        if target is None:
            cursor.execute(self._tables.enter, (feature,))
        row = cursor.execute(self._tables.lock, (feature,)).fetchone()
        fields, has_expired = row or (None, False)
        check_fence(feature, parsed_fields(fields), target, str(self._server))
        if has_expired:
            self._cleared(cursor, feature)
        lives = self._tables.live_alone if target is None else self._tables.live
        cursor.execute(lives, {"feature": feature, "ttl": self.ttl})

    def _locked(self, cursor: Cursor, feature: str) -> dict[str, str] | None:
        """The fields of the books that live, which nobody else changes until the transaction ends."""
        cursor.execute(self._tables.enter, (feature,))
        row = cursor.execute(self._tables.lock, (feature,)).fetchone()
        fields, has_expired = row or (None, False)
        if has_expired:
            self._cleared(cursor, feature)
            cursor.execute(self._tables.live, {"feature": feature, "ttl": None})
        return parsed_fields(fields)

    def _cleared(self, cursor: Cursor, feature: str) -> int:
        """The number of a feature's rows, all of which are deleted: some at a time, as a statement has a bound."""
        total, deleted = 0, 1
        while deleted:
            deleted = cursor.execute(self._tables.clear, (feature, _CLEARED_AT_ONCE)).rowcount
            total += deleted
        return total

    def _run(self, cursor: Cursor) -> str | None:
        row = cursor.execute(self._tables.timeline).fetchone()
        return row[0] if row else None

    def _fenced(self, cursor: Cursor, feature: str, target: Target) -> dict[str, str]:
        fields = self._locked(cursor, feature)
        check_fence(feature, fields, target, str(self._server))
        assert fields is not None
        return fields

    def _record(
        self, cursor: Cursor, feature: str, fields: Mapping[str, str], life: int | None
    ) -> None:
        cursor.execute(
            self._tables.record, {"feature": feature, "fields": json.dumps(fields), "life": life}
        )

    def _query(self, statement: bytes, arguments: Any = None) -> list[tuple[Any, ...]]:
        """The rows of a statement; none where nobody has pushed yet."""
        from psycopg.errors import UndefinedTable

        try:
            return self._server.ask(statement, arguments)
        except UndefinedTable:
            return []

    def _change(self, work: Callable[[Cursor], T]) -> T:
        """The result of a transaction that writes, for which the tables are made where they are missing."""
        from psycopg.errors import UndefinedTable

        try:
            return self._server.transact(work)
        except UndefinedTable:
            self._server.transact(lambda cursor: cursor.execute(self._tables.create))
            return self._server.transact(work)

    def _row_name(self, feature: str, hash: str) -> str:
        return f"digest {hash} in {self.prefix}_rows of {self._server}"

    def _books_name(self, feature: str) -> str:
        return f"{feature} in {self.prefix}_features of {self._server}"

    def _books_life(self, renewed_at: int) -> int | None:
        """Microseconds, from now to half a TTL after `renewed_at`; None for ever."""
        if self.ttl is None:
            return None
        half = self.ttl * 500_000
        return min(half, max(1, half - (clock.now() - renewed_at)))


def _checked_prefix(prefix: object) -> str:
    if (
        isinstance(prefix, str)
        and prefix.isidentifier()
        and prefix.isascii()
        and len(prefix) <= _LONGEST_PREFIX
    ):
        return prefix
    raise DefinitionError(
        f"PostgresStore: prefix={prefix!r} is not allowed; use up to {_LONGEST_PREFIX} letters, digits and "
        "underscores, none of the digits first"
    )


def _several(chunks: Iterable[Rows]) -> Iterator[list[Rows]]:
    each = iter(chunks)
    while some := list(islice(each, _CHUNKS_AT_ONCE)):
        yield some


def _hashes(chunks: Iterable[Rows]) -> Iterator[str]:
    return chain.from_iterable(chunk.hashes for chunk in chunks)
