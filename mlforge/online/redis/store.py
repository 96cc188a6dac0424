"""The online store on Redis, Valkey or anything that speaks their protocol and runs Lua."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, Self

import polars as pl

from mlforge.core import clock
from mlforge.core.arguments import flag
from mlforge.core.signatures import named_methods
from mlforge.core.values import check_name, is_name, to_iso
from mlforge.errors import (
    OnlineError,
    OnlineRefused,
    StalePush,
)
from mlforge.online.arguments import checked_owner, checked_ttl
from mlforge.online.base import OnlineStore
from mlforge.online.books import INCOMPLETE, Claim, Evidence, OnlineBooks, Target
from mlforge.online.chunks import Rows
from mlforge.online.codec import (
    evidence_text,
    fence_text,
    owner_text,
    target_text,
    to_fields,
    ttl_text,
)
from mlforge.online.redis import resp, scripts
from mlforge.online.redis.arguments import (
    checked_prefix,
    checked_server,
    password_in,
)
from mlforge.online.redis.fetched_books import (
    KnownBooks,
    books_key,
    books_name,
    books_of,
    no_rows,
    read_command,
    rows_command,
)
from mlforge.online.redis.refusals import fenced
from mlforge.online.requests import RowRequest
from mlforge.store import Store

if TYPE_CHECKING:
    from mlforge.online.redis.client import Server

_ANY_HASH = "?" * 64
_HASH_END = len(_ANY_HASH) + 1
_SCANNED_AT_ONCE = 5_000
_MULTI, _EXEC = resp.command("MULTI"), resp.command("EXEC")


@named_methods
class RedisStore(OnlineStore):
    """Rows at `{prefix}:{feature}:{hash of the entity}`, books at `{prefix}:{feature}`.

    ttl: in seconds, None never expires. prefix: of all keys; stores with different prefixes can share a server.
    password_file: a file that holds the password, in place of `password`: read once, at construction.
    owner: the offline store, or its id, whose rows readers mean: those of another raise OwnedElsewhere.
        Definitions fill in their own store.

    Connects at first use, and again after a fork. A server that does not answer raises OnlineUnavailable
    after three tries.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 6379,
        db: int = 0,
        password: str | None = None,
        ttl: int | None = None,
        prefix: str = "mlforge",
        ssl: bool = False,
        username: str | None = None,
        password_file: str | os.PathLike[str] | None = None,
        owner: Store | str | None = None,
    ) -> None:
        from mlforge.online.redis.client import Server

        if password_file is not None:
            password = password_in(password_file, password)

        self._configure(
            Server.of(
                flag(ssl, "RedisStore: ssl"),
                **checked_server(host, port, db, username, password),
            ),
            ttl,
            prefix,
            owner,
        )

    @classmethod
    def from_url(
        cls,
        url: str,
        ttl: int | None = None,
        prefix: str = "mlforge",
        owner: Store | str | None = None,
    ) -> Self:
        """The store at `redis://`, `rediss://` or `unix://`, with redis-py's options in the query."""
        from mlforge.online.redis.client import Server

        store = cls.__new__(cls)
        store._configure(Server.from_url(url), ttl, prefix, owner)
        return store

    def _configure(
        self, server: Server, ttl: int | None, prefix: str, owner: Store | str | None
    ) -> None:
        self.owner = checked_owner(owner, "RedisStore")
        self.ttl = checked_ttl(ttl, "RedisStore")
        self.prefix = checked_prefix(prefix)
        self._server = server
        self._known: dict[str, KnownBooks] = {}

    def __repr__(self) -> str:
        return f"RedisStore({self._server}, ttl={self.ttl}, prefix={self.prefix!r})"

    def described(self) -> str:
        """The repr, the owner if it was named, and a hash of all connection options, a password's included."""
        owner = self.owner if isinstance(self.owner, str) else None
        return f"{self!r} owner={owner} {self._server.options_hash}"

    def ping(self) -> bool:
        """True if the server answers; OnlineUnavailable if not."""
        with self._server.asking() as client:
            return bool(client.ping())

    def close(self) -> None:
        """Let go of connections; the next call makes new ones."""
        self._server.client.close()

    async def aclose(self) -> None:
        """Let go of the running event loop's idle connections; they close by themselves when it ends."""
        await self._server.aclose()

    def books(self, feature: str) -> OnlineBooks | None:
        """The feature's books; None if it was never pushed, or not renewed in time."""
        [(books, _)] = self._fetch([RowRequest(feature)])
        return books

    def features(self) -> list[str]:
        """The features that were pushed here and not dropped since, by name; OnlineError for a list of another type."""
        from mlforge.online.redis.client import Refused

        try:
            with self._server.asking() as client:
                names = map(str, client.smembers(self._list))
        except Refused as refused:
            if not refused.reply.startswith("WRONGTYPE"):
                raise
            raise OnlineError(
                f"{self._list} in {self._server} holds no list of features; delete it, and each push puts its "
                "feature there again"
            ) from None
        return sorted(name for name in names if is_name(name))

    def begin(self, feature: str, target: Target, claim: Claim | None = None) -> OnlineBooks:
        """Raise the fence to the target and note it as pending, atomically; the books from now on."""
        key = self._key(feature)
        arguments = (
            fence_text(target),
            target_text(target),
            self._books_life(clock.now()),
            feature,
            target.store,
            "" if claim is None else owner_text(claim.owner),
            claim.takes_from or "" if claim else "",
            "1" if claim and claim.afresh else "",
        )
        with self._fenced(feature, target), self._server.asking() as client:
            flat: list[str] = client.eval(scripts.BEGIN, 2, key, self._list, *arguments)
        books = books_of(tuple(flat), self._books_name(feature))
        assert books is not None
        return books

    def finish(
        self, feature: str, target: Target, books: OnlineBooks, server: str | None = None
    ) -> None:
        """Write the books with the target as done and none pending, atomically."""
        fields = to_fields(target, books, self.ttl)
        self._record(feature, target, fields, self._books_life(books.renewed_at), server)

    def evidence(self) -> Evidence | None:
        """The server's run id and count of evicted keys; None if it does not report them, or may not."""
        return self._server.evidence()

    async def evidence_async(self) -> Evidence | None:
        """As `evidence`, on a connection of the running event loop."""
        return await self._server.evidence_async()

    def rows_by_feature(self, features: Collection[str]) -> dict[str, int]:
        """The number of rows online of each of these features, by one scan of the server's keys."""
        start = len(self.prefix) + 1
        numbers = {check_name(feature): number for number, feature in enumerate(features)}
        listed = [pl.DataFrame(schema={"feature": pl.UInt32, "row": pl.UInt64})]
        for keys in self._scan_keys(f"{self.prefix}:*:{_ANY_HASH}"):
            of_feature = [numbers.get(key[start:-_HASH_END]) for key in keys]
            rows = pl.Series("row", keys, dtype=pl.String).hash()
            listed.append(pl.DataFrame([pl.Series("feature", of_feature, dtype=pl.UInt32), rows]))
        # A scan may come upon a row twice.
        counts = dict(pl.concat(listed).group_by("feature").n_unique().iter_rows())
        return {feature: counts.get(number, 0) for feature, number in numbers.items()}

    def mark_incomplete(self, feature: str, books: OnlineBooks) -> None:
        """Note in the books that rows are missing, unless a push has begun since."""
        assert books.target is not None
        with suppress(StalePush):
            self._record(feature, books.target, {"losses": evidence_text(INCOMPLETE)}, "keep")

    def renew(self, feature: str, target: Target) -> int:
        """Give every row and the books their full time to live again; returns the number of rows."""
        renewed_at = clock.now()
        listed = [pl.Series([], dtype=pl.UInt64)]

        def rows() -> Iterator[Rows]:
            for hashes in self._scan(feature):
                # A scan may come upon a row twice; it lives once.
                listed.append(pl.Series(hashes, dtype=pl.String).hash())
                yield Rows(hashes)

        renewed = self._stream(scripts.RENEW, feature, target, rows())
        fields = {"renewed_at": to_iso(renewed_at) or "", "ttl": ttl_text(self.ttl)}
        self._record(feature, target, fields, self._books_life(renewed_at))
        gone = sum(map(len, listed)) - renewed
        return pl.concat(listed).n_unique() - gone

    def forget(self, feature: str, owner: str | None = None) -> None:
        """Delete the feature's books and fence, unless another store owns them."""
        with self._fenced(feature, None), self._server.asking() as client:
            client.eval(scripts.FORGET, 1, self._key(feature), owner or "")

    def unregister(self, feature: str) -> None:
        """Take the feature off the list of features; its rows and books stay."""
        with self._server.asking() as client:
            client.srem(self._list, feature)

    def _put(self, feature: str, target: Target | None, chunks: Iterable[Rows]) -> int:
        return self._stream(scripts.PUT, feature, target, chunks)

    def _remove(self, feature: str, target: Target | None, chunks: Iterable[Sequence[str]]) -> int:
        return self._stream(scripts.REMOVE, feature, target, map(Rows, chunks))

    def _scan(self, feature: str) -> Iterator[list[str]]:
        for keys in self._scan_keys(f"{self._key(feature)}:{_ANY_HASH}"):
            yield [key[-len(_ANY_HASH) :] for key in keys]

    def _scan_keys(self, pattern: str) -> Iterator[list[str]]:
        """The keys of a pattern in chunks, none of them empty; each key at least once."""
        cursor = 0
        while True:
            with self._server.asking() as client:
                cursor, keys = client.scan(cursor, match=pattern, count=_SCANNED_AT_ONCE)
            if keys:
                yield [str(key) for key in keys]
            if cursor == 0:
                return

    def _fetch(
        self, requests: Sequence[RowRequest]
    ) -> list[tuple[OnlineBooks | None, list[str | None]]]:
        return self._fetched(requests, self._server.ask(*self._reads(requests))[-1])

    async def _fetch_async(
        self, requests: Sequence[RowRequest]
    ) -> list[tuple[OnlineBooks | None, list[str | None]]]:
        replies = await self._server.ask_async(*self._reads(requests))
        return self._fetched(requests, replies[-1])

    def _reads(self, requests: Sequence[RowRequest]) -> tuple[bytes, int]:
        """The commands that read books and rows, and their number."""
        # A transaction: rows deleted between the two reads would pass for empty windows.
        commands = [_MULTI]
        for request in requests:
            key = self._key(request.feature)
            commands.append(read_command(key))
            if request.hashes:
                commands.append(rows_command(key, request.hashes))
        commands.append(_EXEC)
        return b"".join(commands), len(commands)

    def _fetched(
        self, requests: Sequence[RowRequest], executed: Sequence[Any]
    ) -> list[tuple[OnlineBooks | None, list[str | None]]]:
        """The books and rows in the replies to EXEC, refusals among them."""
        replies = iter(executed)
        return [
            (
                self._read_books(request.feature, next(replies)),
                self._server.granted(next(replies)) if request.hashes else [],
            )
            for request in requests
        ]

    def _read_books(self, feature: str, reply: list[str] | Exception) -> OnlineBooks | None:
        if isinstance(reply, Exception):
            with self._fenced(feature, None):
                self._server.granted(reply)
            raise reply
        known = self._known.get(feature)
        if known is not None and known.fields == reply:
            return known.books
        books = books_of(tuple(reply), self._books_name(feature))
        if books is not None:  # anybody may ask for names that no feature has
            self._known[feature] = KnownBooks(reply, books)
        return books

    def _foreign(self, absent: Sequence[tuple[str, str]]) -> list[str | None]:
        try:
            return no_rows(self._server.ask(*self._types(absent)))
        except OnlineRefused:  # a user without the right to ask
            return [None] * len(absent)

    async def _foreign_async(self, absent: Sequence[tuple[str, str]]) -> list[str | None]:
        try:
            return no_rows(await self._server.ask_async(*self._types(absent)))
        except OnlineRefused:
            return [None] * len(absent)

    def _types(self, absent: Sequence[tuple[str, str]]) -> tuple[bytes, int]:
        """The commands that ask for the types of what lies at rows' places, and their number."""
        # MGET gives nil for a key of another type, as for none.
        commands = [resp.command("TYPE", self._row_name(*place)) for place in absent]
        return b"".join(commands), len(commands)

    def _record(
        self,
        feature: str,
        target: Target,
        fields: Mapping[str, str],
        life: str,
        server: str | None = None,
    ) -> None:
        flat = [text for field in fields.items() for text in field]
        arguments = (fence_text(target), life, server or "", *flat)
        with self._fenced(feature, target), self._server.asking() as client:
            client.eval(scripts.RECORD, 1, self._key(feature), *arguments)

    def _stream(
        self, script: str, feature: str, target: Target | None, chunks: Iterable[Rows]
    ) -> int:
        """Run a script per chunk of rows; the sum of what it returns."""
        books = self._key(feature)
        arguments = resp.strings([fence_text(target), "" if self.ttl is None else str(self.ttl)])

        def call(rows: Rows) -> bytes:
            keys = resp.prefixed(f"{books}:", rows.hashes)
            packed = b"".join([keys, arguments, resp.strings(rows.texts)])
            count = len(rows.hashes) + 2 + len(rows.texts)
            return resp.command(
                "EVAL", script, str(len(rows.hashes) + 1), books, more=(count, packed)
            )

        with self._fenced(feature, target):
            return self._server.stream(map(call, chunks))

    def _fenced(self, feature: str, target: Target | None) -> AbstractContextManager[None]:
        return fenced(feature, target, self._server, self._books_name(feature))

    @property
    def _list(self) -> str:
        return f"{self.prefix}:_features"  # no feature's name starts with an underscore

    def _key(self, feature: str) -> str:
        return books_key(self.prefix, feature if type(feature) is str else check_name(feature))

    def _row_name(self, feature: str, hash: str) -> str:
        return f"{self._key(feature)}:{hash}"

    def _books_name(self, feature: str) -> str:
        return books_name(self.prefix, feature, self._server.name)

    def _books_life(self, renewed_at: int) -> str:
        """Milliseconds, from now to half a TTL after `renewed_at`; empty for ever."""
        if self.ttl is None:
            return ""
        half = self.ttl * 500
        return str(min(half, max(1, half - (clock.now() - renewed_at) // 1_000)))
