"""The online store on Redis, Valkey or anything that speaks their protocol and runs Lua."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Self

import polars as pl

from mlforge.core import clock
from mlforge.core.arguments import flag
from mlforge.core.signatures import named_methods
from mlforge.core.values import check_name, is_name, to_iso
from mlforge.errors import (
    OnlineError,
    StalePush,
)
from mlforge.online.addresses import told_cluster
from mlforge.online.arguments import checked_owner, checked_ttl, described_by
from mlforge.online.base import OnlineStore
from mlforge.online.books import INCOMPLETE, Claim, Evidence, OnlineBooks, Target
from mlforge.online.chunks import Rows, digests_of
from mlforge.online.codec import (
    evidence_text,
    fence_text,
    format_of,
    owner_text,
    target_text,
    to_fields,
    ttl_text,
    version_text,
)
from mlforge.online.decoding import Row
from mlforge.online.redis import placements, scripts
from mlforge.online.redis.arguments import (
    checked_layout,
    checked_prefix,
    checked_server,
    password_in,
)
from mlforge.online.redis.fetched_books import books_key, books_name, books_of
from mlforge.online.redis.gathering import Gathering
from mlforge.online.redis.layouts import Write
from mlforge.online.redis.merged_books import merged
from mlforge.online.redis.placements import Placement
from mlforge.online.redis.refusals import fenced
from mlforge.online.requests import Fetched, RowRequest
from mlforge.online.steps import answered, answered_async
from mlforge.store import Store

if TYPE_CHECKING:
    from mlforge.online.redis.client import Server

JSON = "json"


@named_methods
class RedisStore(OnlineStore):
    """Rows at `{prefix}:{feature}:{hash of the entity}`, books at `{prefix}:{feature}`.

    ttl: in seconds, None never expires. prefix: of all keys; stores with different prefixes can share a server.
    password_file: a file that holds the password, in place of `password`: read once, at construction.
    owner: the offline store, or its id, whose rows readers mean: those of another raise OwnedElsewhere.
        Definitions fill in their own store.
    layout: how a push writes rows: "json", which any language reads, or "packed", a quarter of its memory. Readers go by
        the books, whatever they were given.

    Of a cluster (`from_url(url, cluster=True)`), each feature has 64 buckets: rows at `{prefix}:{{feature:b}}:{hash}`, and books in each
    bucket. Its nodes are found from those that the URL names, and found again when they change.

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
        layout: str = "json",
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
            layout,
            placements.one_server(),
        )

    @classmethod
    def from_url(
        cls,
        url: str,
        ttl: int | None = None,
        prefix: str = "mlforge",
        owner: Store | str | None = None,
        layout: str = "json",
        cluster: bool = False,
    ) -> Self:
        """The store at `redis://`, `rediss://` or `unix://`, with redis-py's options in the query.

        `redis+sentinel://host1:26379,host2:26379/name/db` is the master of that name, whichever server it is at the time.

        cluster: whether it is a Redis Cluster, of which the URL names some nodes, as in `redis://host1,host2:6380`;
            `?cluster=true` in the URL says so, too.
        """
        from mlforge.online.redis.sentinel import server_at

        url, told = told_cluster(url)
        store = cls.__new__(cls)
        if told or flag(cluster, "RedisStore.from_url: cluster"):
            from mlforge.online.redis.cluster import ClusterServer

            store._configure(
                ClusterServer.from_url(url), ttl, prefix, owner, layout, placements.cluster()
            )
        else:
            store._configure(server_at(url), ttl, prefix, owner, layout, placements.one_server())
        return store

    def _configure(
        self,
        server: Server,
        ttl: int | None,
        prefix: str,
        owner: Store | str | None,
        layout: str,
        placement: Placement,
    ) -> None:
        self.owner = checked_owner(owner, "RedisStore")
        self.ttl = checked_ttl(ttl, "RedisStore")
        self.prefix = checked_prefix(prefix)
        self.layout = checked_layout(layout)
        self._placement = placement
        self._rows = placement.layout(layout)
        self.digest_bytes = self._rows.digest_bytes
        self._server = server
        self._reading = reading = placement.reading(server, self.prefix, self._rows)
        # Not the store's own method: a copy of the store shares what it has under way.
        self._gathering = Gathering(lambda requests: answered_async(reading.fetch(requests)))

    def __repr__(self) -> str:
        layout = "" if self.layout == JSON else f", layout={self.layout!r}"
        return f"RedisStore({self._server}, ttl={self.ttl}, prefix={self.prefix!r}{layout})"

    def described(self) -> str:
        """The repr, the owner if it was named, and a hash of all connection options, a password's included."""
        return described_by(self, self._server.options_hash)

    def ping(self) -> bool:
        """True if the server answers; OnlineUnavailable if not."""
        return self._server.ping()

    def close(self) -> None:
        """Let go of connections; the next call makes new ones."""
        self._server.close()

    async def aclose(self) -> None:
        """Let go of the running event loop's connection, which closes by itself when the loop ends; the next call opens another."""
        await self._server.aclose()

    def features(self) -> list[str]:
        """The features that were pushed here and not dropped since, by name; OnlineError for a list of another type."""
        from mlforge.online.redis.server_errors import Refused

        try:
            names = map(str, self._server.ask_about(self._list, "SMEMBERS", self._list))
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
        keys = self._books_keys(feature)
        arguments = (
            fence_text(target),
            target_text(target),
            self._books_life(clock.now()),
            feature,
            target.store,
            "" if claim is None else owner_text(claim.owner),
            claim.takes_from or "" if claim else "",
            "1" if claim and claim.afresh else "",
            format_of(self.layout),
        )
        with self._fenced(feature, target):
            begun = self._server.begin(scripts.BEGIN, keys, self._list, arguments)
        name = self._books_name(feature)
        books = merged([books_of(tuple(flat), name) for flat in begun])
        assert books is not None
        return books

    def finish(
        self, feature: str, target: Target, books: OnlineBooks, server: str | None = None
    ) -> None:
        """Write the books with the target as done and none pending, atomically."""
        version = version_text(target.version, self.layout)
        fields = {**to_fields(target, books, self.ttl), "version": version}
        with self._server.staying(f"{feature}: the push of {target}"):
            self._record(feature, target, fields, self._books_life(books.renewed_at), server)

    def evidence(self) -> Evidence | None:
        """The server's run and history, and its count of evicted keys; None if it does not report them, or may not."""
        return self._server.evidence()

    def evidence_to_note(self) -> Evidence | None:
        """As `evidence`, of a server that has a mark which CONFIG RESETSTAT takes away."""
        return self._server.evidence(mark=True)

    async def evidence_async(self) -> Evidence | None:
        """As `evidence`, on the connection of the running event loop."""
        return await self._server.evidence_async()

    def rewrite_own_files(self) -> list[str]:
        """Have the append-only files and snapshots of the servers lose what was deleted."""
        return self._server.rewrite_own_files()

    def rows_by_feature(self, features: Collection[str]) -> dict[str, int]:
        """The number of rows online of each of these features, as the layout counts them best."""
        return self._rows.counts(self._server, self.prefix, features)

    def mark_incomplete(self, feature: str, books: OnlineBooks) -> None:
        """Note in the books that rows are missing, unless a push has begun since."""
        assert books.target is not None
        with suppress(StalePush):
            self._record(feature, books.target, {"losses": evidence_text(INCOMPLETE)}, "keep")

    def renew(self, feature: str, target: Target) -> int:
        """Give every row and the books their full time to live again; returns the number of rows."""
        renewed_at = clock.now()
        with self._fenced(feature, target):
            rows = self._rows.renew(self._server, self._write(feature, target))
        fields = {"renewed_at": to_iso(renewed_at) or "", "ttl": ttl_text(self.ttl)}
        self._record(feature, target, fields, self._books_life(renewed_at))
        return rows

    def list_digests(self, feature: str) -> set[bytes]:
        """The digests of all rows online; what no reader finds any more is deleted on the way."""
        with self._fenced(feature, None):
            for layout in self._placement.layouts.values():
                layout().sweep(self._server, self._key(feature), self.layout)
            return super().list_digests(feature)

    def count_other_rows(self, feature: str, hashes: Iterable[str]) -> int:
        """The number of rows online whose entity is not among these hashes; nothing is written, as a plan asks so."""
        with self._fenced(feature, None):
            known = super().list_digests(feature)
        return len(known.difference(digests_of(hashes, self.digest_bytes)))

    def drop(self, feature: str, owner: str | None = None) -> int:
        """As of any store; OnlineUnavailable where another server has come in the place of this one meanwhile."""
        with self._server.staying(f"{feature}: the end of its rows"):
            return super().drop(feature, owner)

    def forget(self, feature: str, owner: str | None = None) -> None:
        """Delete the feature's books and fence, unless another store owns them."""
        with self._fenced(feature, None):
            self._server.evaluate(scripts.FORGET, self._books_keys(feature), [owner or ""])

    def unregister(self, feature: str) -> None:
        """Take the feature off the list of features; its rows and books stay."""
        self._server.ask_about(self._list, "SREM", self._list, feature)

    def _encoded(self, frame: pl.DataFrame, keys: Sequence[str]) -> Iterator[Rows]:
        return self._rows.encoded(frame, keys)

    def _ready(self, rows: Rows) -> Rows:
        return self._rows.ready(rows)

    def _put(self, feature: str, target: Target | None, chunks: Iterable[Rows]) -> int:
        # Rows of a push are looked after by its end.
        alone = self._server.staying(f"{feature}: a row") if target is None else nullcontext()
        with alone, self._fenced(feature, target):
            return self._rows.put(self._server, self._write(feature, target), chunks)

    def _remove(self, feature: str, target: Target | None, chunks: Iterable[Sequence[str]]) -> int:
        with self._fenced(feature, target):
            return self._rows.remove(self._server, self._write(feature, target), chunks)

    def _clear(self, feature: str) -> int:
        key = self._key(feature)
        return sum(layout().clear(self._server, key) for layout in self._placement.layouts.values())

    def _scan(self, feature: str) -> Iterator[list[str]]:
        return self._rows.scan(self._server, self._key(feature))

    def _write(self, feature: str, target: Target | None) -> Write:
        life = "" if self.ttl is None else str(self.ttl)
        return Write(self._key(feature), self._fence(target), life)

    def _fence(self, target: Target | None) -> str:
        return f"{fence_text(target)} {format_of(self.layout)}"

    def _fetch(self, requests: Sequence[RowRequest]) -> list[Fetched]:
        return answered(self._reading.fetch(requests))

    async def _fetch_async(self, requests: Sequence[RowRequest]) -> list[Fetched]:
        if self._reading.is_of_one_instant:
            return await self._gathering.fetched(requests)
        return await answered_async(self._reading.fetch(requests))

    def _typed(self, books: OnlineBooks | None, stored: Sequence[Any]) -> list[Row | None]:
        return self._reading.typed(books, stored)

    def _foreign(self, absent: Sequence[tuple[str, str]]) -> list[str | None]:
        return self._reading.foreign(absent)

    async def _foreign_async(self, absent: Sequence[tuple[str, str]]) -> list[str | None]:
        return await self._reading.foreign_async(absent)

    def _record(
        self,
        feature: str,
        target: Target,
        fields: Mapping[str, str],
        life: str,
        server: str | None = None,
    ) -> None:
        flat = [text for field in fields.items() for text in field]
        arguments = (self._fence(target), life, server or "", *flat)
        with self._fenced(feature, target):
            self._server.evaluate(scripts.RECORD, self._books_keys(feature), arguments)

    def _fenced(self, feature: str, target: Target | None) -> AbstractContextManager[None]:
        return fenced(feature, target, self._server, self._books_name(feature))

    @property
    def _list(self) -> str:
        return f"{self.prefix}:_features"  # no feature's name starts with an underscore

    def _key(self, feature: str) -> str:
        return books_key(self.prefix, feature if type(feature) is str else check_name(feature))

    def _books_keys(self, feature: str) -> Sequence[str]:
        return self._placement.books_keys(self._key(feature))

    def _row_name(self, feature: str, hash: str) -> str:
        return self._reading.row_name(feature, hash)

    def _books_name(self, feature: str) -> str:
        return books_name(self.prefix, feature, self._server.name)

    def _books_life(self, renewed_at: int) -> str:
        """Milliseconds, from now to half a TTL after `renewed_at`; empty for ever."""
        if self.ttl is None:
            return ""
        half = self.ttl * 500
        return str(min(half, max(1, half - (clock.now() - renewed_at) // 1_000)))
