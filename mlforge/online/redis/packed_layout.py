"""Rows as few bytes, those of a bucket together in one hash: some 75 bytes a row of six numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import polars as pl

from mlforge.online.books import OnlineBooks
from mlforge.online.chunks import Rows
from mlforge.online.decoding import Row
from mlforge.online.packing import PackedRows, RowSchema, packed, unpacked
from mlforge.online.redis import packed_scripts as scripts
from mlforge.online.redis import resp
from mlforge.online.redis.fetched_books import books_key, read_command
from mlforge.online.redis.json_layout import scan_keys, sweep_keys
from mlforge.online.redis.layouts import RowLayout, Write

if TYPE_CHECKING:
    from mlforge.online.redis.client import Server

_DIRECTORY = ":~"
_SCHEMA = b"schema:"
_BUCKETS_AT_ONCE = 32
_FEW_CHUNKS = 8
_FEW_ROWS = 2_000
_ROWS_A_BUCKET = 60
"""Of a large put, at least so many buckets are made before: fewer than the 72 rows at which one is split."""
_SPLITS_AT_ONCE = 200
_HEX = 2


class PackedLayout(RowLayout):
    """Packed rows in buckets. It knows all schemas that it has read: a schema's id is a hash of it."""

    name = "packed"
    digest_bytes, raw = 16, True

    def __init__(self) -> None:
        self._schemas: dict[bytes, RowSchema] = {}

    def encoded(self, frame: pl.DataFrame, keys: Sequence[str]) -> Iterator[Rows]:
        """The frame in chunks of packed rows."""
        return packed(frame, keys)

    def put(self, server: Server, write: Write, chunks: Iterable[Rows]) -> int:
        """Write the rows, each chunk at once; returns their number.

        Of many chunks, the life of buckets is set once at the end: nothing is promised of rows before their push is done.
        """
        fence, epoch = write.fence.encode(), token_hex(4).encode()
        life, sent, each = write.life.encode(), 0, iter(chunks)
        first = next(each, None)
        if isinstance(first, PackedRows) and first.among > _FEW_ROWS:
            self._grow(server, write, -(-first.among // _ROWS_A_BUCKET), epoch)

        def call(rows: Rows) -> bytes:
            nonlocal sent
            sent += 1
            if not isinstance(rows, PackedRows):
                rows = PackedRows.of_json(rows)
            own_life = life if sent <= _FEW_CHUNKS else b"keep"
            texts = resp.blobs([fence, own_life, epoch, *_schema_field(rows.schema)])
            pairs = resp.pairs(self._digests(rows.hashes), rows.packed)
            return _eval(scripts.PUT, write.key, 5 + 2 * len(rows.hashes), texts + pairs)

        written = server.stream(map(call, () if first is None else chain((first,), each)))
        if sent > _FEW_CHUNKS:
            self.renew(server, write)
        return written

    def _grow(self, server: Server, write: Write, buckets: int, epoch: bytes) -> None:
        """Make so many buckets, so that none is filled far beyond the others before it is split."""
        arguments = [write.fence.encode(), epoch, b"%d" % buckets, b"%d" % _SPLITS_AT_ONCE]
        there = 0
        while there < buckets:
            [there] = server.ask(_of_blobs(scripts.GROW, write.key, arguments), 1)

    def remove(self, server: Server, write: Write, chunks: Iterable[Sequence[str]]) -> int:
        """Delete the rows of these hashes; returns how many there were."""
        fence = write.fence.encode()
        return server.stream(
            _of_blobs(scripts.REMOVE, write.key, [fence, *self._digests(hashes)])
            for hashes in chunks
        )

    def renew(self, server: Server, write: Write) -> int:
        """Give all buckets their full life; returns the number of rows."""
        return sum(rows for rows in self._each(server, write))

    def scan(self, server: Server, key: str) -> Iterator[list[str]]:
        """The first half of the hashes of all rows, some buckets at a time."""
        for digests in _by_buckets(server, scripts.LIST, key, []):
            yield [digest.hex() for digest in digests]

    def clear(self, server: Server, key: str) -> int:
        """Delete all rows of whatever epoch, and the directory; returns how many rows readers found."""
        rows = self._count(server, key)
        for keys in scan_keys(server, f"{key}{_DIRECTORY}*"):
            with server.asking() as client:
                client.unlink(*keys)
        return rows

    def counts(self, server: Server, prefix: str, features: Collection[str]) -> dict[str, int]:
        """The number of rows of each of these features."""
        return {feature: self._count(server, books_key(prefix, feature)) for feature in features}

    def sweep(self, server: Server, key: str, layout: str) -> None:
        """Delete buckets of epochs that ended with the loss of their directory; all rows where books tell of another layout."""
        if layout != self.name:
            with server.asking() as client:
                if not client.exists(f"{key}{_DIRECTORY}"):
                    return
            for keys in scan_keys(server, f"{key}{_DIRECTORY}*"):
                sweep_keys(server, key, layout, keys)
            return
        for keys in scan_keys(server, f"{key}{_DIRECTORY}?*"):
            server.ask(_of_blobs(scripts.SWEEP, key, [bucket.encode() for bucket in keys]), 1)

    def reads(self, key: str, hashes: Sequence[str]) -> list[bytes]:
        """The commands that read a feature's books and these rows."""
        if not hashes:
            return [read_command(key)]
        digests = resp.alike(self._digests(hashes))
        return [read_command(key), _eval(scripts.READ, key, len(hashes), digests)]

    def unlearned(self, stored: Sequence[tuple[str, Sequence[Any]]]) -> tuple[bytes, int] | None:
        """The commands that ask for schemas which rows name for the first time, and their number; None for no such rows."""
        heads = {(key, row[:5]) for key, rows in stored for row in rows if row is not None}
        commands = [
            resp.command("HGET", f"{key}{_DIRECTORY}", more=(1, resp.blobs([_SCHEMA + head[1:]])))
            for key, head in heads
            if head[1:] not in self._schemas and head[:1] != b"{"
        ]
        return (b"".join(commands), len(commands)) if commands else None

    def learn(self, texts: Sequence[bytes | None]) -> None:
        """Note schemas; one that is missing or cannot be read stays unknown."""
        for text in texts:
            try:
                schema = RowSchema.parse((text or b"").decode())
            except (ValueError, RecursionError):
                continue
            self._schemas[schema.id] = schema

    def typed(self, books: OnlineBooks | None, stored: Sequence[Any]) -> list[Row | None]:
        """The packed rows with their values; Misfit for a damaged one."""
        columns = None if books is None or books.target is None else books.columns
        return unpacked(stored, self._schemas, columns)

    def row_name(self, key: str, hash: str) -> str:
        """The row's field in the bucket where it lies, whichever that is."""
        return f"{key}{_DIRECTORY}* field {hash[: self.digest_bytes * _HEX]}"

    def _digests(self, hashes: Sequence[str]) -> list[bytes]:
        end = self.digest_bytes * _HEX
        return [bytes.fromhex(hash[:end]) for hash in hashes]

    def _count(self, server: Server, key: str) -> int:
        return sum(_by_buckets(server, scripts.COUNT, key, []))

    def _each(self, server: Server, write: Write) -> Iterator[int]:
        """The rows of some buckets at a time, after their life is set."""
        arguments = [write.fence.encode(), write.life.encode()]
        return _by_buckets(server, scripts.RENEW, write.key, arguments)


def _by_buckets(server: Server, script: str, key: str, arguments: list[bytes]) -> Iterator[Any]:
    """Answers of a script about some buckets at a time, until it has seen the last."""
    start, count = 0, 1
    while start < count:
        end = start + _BUCKETS_AT_ONCE
        bounds = [b"%d" % start, b"%d" % end]
        [[count, answer]] = server.ask(_of_blobs(script, key, [*arguments, *bounds]), 1, raw=True)
        yield answer
        start = end


def _schema_field(schema: RowSchema | None) -> tuple[bytes, bytes]:
    return (b"", b"") if schema is None else (_SCHEMA + schema.id, schema.text.encode())


def _of_blobs(script: str, key: str, arguments: Sequence[bytes]) -> bytes:
    return _eval(script, key, len(arguments), resp.blobs(arguments))


def _eval(script: str, key: str, count: int, arguments: bytes) -> bytes:
    """The call of a script with a number of arguments, packed already."""
    return resp.command("EVAL", script, "2", key, f"{key}{_DIRECTORY}", more=(count, arguments))
