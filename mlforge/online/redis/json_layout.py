"""Rows as JSON texts, each under a key of its own: `{key of the books}:{hash of the entity}`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from mlforge.core.values import check_name
from mlforge.online.books import OnlineBooks
from mlforge.online.chunks import Rows, encoded, slices
from mlforge.online.codec import format_of
from mlforge.online.decoding import Row, typed_rows
from mlforge.online.redis import resp, scripts, watched_puts
from mlforge.online.redis.fetched_books import read_command, rows_command, texts_of
from mlforge.online.redis.layouts import RowLayout, Write

if TYPE_CHECKING:
    from mlforge.online.redis.client import Server

ANY_HASH = "?" * 64
_HASH_END = len(ANY_HASH) + 1
SCANNED_AT_ONCE = 1_000
"""Keys that one step of a scan looks at, which holds the server for about as long as a chunk of rows does."""


class JsonLayout(RowLayout):
    """JSON that any language reads."""

    name = "json"
    digest_bytes, raw = 32, False

    def encoded(self, frame: pl.DataFrame, keys: Sequence[str]) -> Iterator[Rows]:
        """The frame in chunks of JSON texts."""
        return encoded(frame, keys)

    def ready(self, rows: Rows) -> Rows:
        """The rows, and these as `put` sends them."""
        return replace(rows, sent=watched_puts.sent(rows))

    def put(self, server: Server, write: Write, chunks: Iterable[Rows]) -> int:
        """Write the rows, some chunks at once; returns their number."""
        return watched_puts.put(
            server,
            write,
            chunks,
            lambda left: self._stream(server, scripts.PUT, write, left),
        )

    def remove(self, server: Server, write: Write, chunks: Iterable[Sequence[str]]) -> int:
        """Delete the rows of these hashes; returns how many there were."""
        return self._stream(server, scripts.REMOVE, write, map(Rows, chunks))

    def renew(self, server: Server, write: Write) -> int:
        """Give all rows their full life; returns their number."""
        listed = [pl.Series([], dtype=pl.UInt64)]

        def rows() -> Iterator[Rows]:
            for hashes in self.scan(server, write.key):
                # A scan may come upon a row twice; it lives once.
                listed.append(pl.Series(hashes, dtype=pl.String).hash())
                yield from map(Rows, slices(hashes))

        renewed = self._stream(server, scripts.RENEW, write, rows())
        gone = sum(map(len, listed)) - renewed
        return pl.concat(listed).n_unique() - gone

    def scan(self, server: Server, key: str) -> Iterator[list[str]]:
        """The hashes of all rows in chunks, by a scan of the server's keys; each at least once."""
        for keys in self._rows(server, key):
            yield [row_key[-len(ANY_HASH) :] for row_key in keys]

    def clear(self, server: Server, key: str) -> int:
        """Delete all rows, by a scan of the server's keys; returns how many there were."""
        return sum(
            int(server.ask_about(keys[0], "UNLINK", *keys)) for keys in self._rows(server, key)
        )

    def sweep(self, server: Server, key: str, layout: str) -> None:
        """Delete all rows where books tell of rows in another layout."""
        if layout != self.name:
            for keys in self._rows(server, key):
                sweep_keys(server, key, layout, keys)

    def counts(self, server: Server, prefix: str, features: Collection[str]) -> dict[str, int]:
        """The number of rows of each of these features, by one scan of the server's keys."""
        start = len(prefix) + 1
        numbers = {check_name(feature): number for number, feature in enumerate(features)}
        listed = [pl.DataFrame(schema={"feature": pl.UInt32, "row": pl.UInt64})]
        for keys in scan_keys(server, f"{prefix}:*:{ANY_HASH}"):
            of_feature = [numbers.get(key[start:-_HASH_END]) for key in keys]
            rows = pl.Series("row", keys, dtype=pl.String).hash()
            listed.append(pl.DataFrame([pl.Series("feature", of_feature, dtype=pl.UInt32), rows]))
        # A scan may come upon a row twice.
        counts = dict(pl.concat(listed).group_by("feature").n_unique().iter_rows())
        return {feature: counts.get(number, 0) for feature, number in numbers.items()}

    def reads(self, key: str, hashes: Sequence[str]) -> list[bytes]:
        """The commands that read a feature's books and these rows."""
        return [read_command(key), rows_command(key, hashes)] if hashes else [read_command(key)]

    def typed(self, books: OnlineBooks | None, stored: Sequence[Any]) -> list[Row | None]:
        """The rows of the stored bytes; Misfit for a damaged one."""
        return typed_rows(
            texts_of(stored),
            None if books is None or books.target is None else books.columns_by_dtype,
        )

    def row_name(self, key: str, hash: str) -> str:
        """The row's key."""
        return f"{key}:{hash}"

    def _rows(self, server: Server, key: str) -> Iterator[list[str]]:
        """The keys of all rows in chunks; each at least once."""
        return scan_keys(server, f"{key}:{ANY_HASH}")

    def _stream(self, server: Server, script: str, write: Write, chunks: Iterable[Rows]) -> int:
        """Run a script per chunk of rows; the sum of what it returns."""
        return server.stream(call(script, write, rows) for rows in chunks)


def scan_keys(server: Server, pattern: str) -> Iterator[list[str]]:
    """The keys of a pattern in chunks, none of them empty; each key at least once."""
    return server.scan(pattern, pattern, SCANNED_AT_ONCE)


def call(script: str, write: Write, rows: Rows) -> bytes:
    """The call of a script for rows, whose keys begin with that of the books."""
    keys = resp.prefixed(f"{write.key}:", rows.hashes)
    arguments = resp.strings([write.fence, write.life])
    texts = resp.strings(rows.texts)
    packed = b"".join([keys, arguments, texts])
    count = len(rows.hashes) + 2 + len(rows.texts)
    return resp.command("EVAL", script, str(len(rows.hashes) + 1), write.key, more=(count, packed))


def sweep_keys(server: Server, key: str, layout: str, keys: Sequence[str]) -> None:
    """Delete keys unless the books have come to tell of rows in another layout."""
    server.evaluate(scripts.SWEEP, [key], [format_of(layout), *keys])
