"""Rows on their way to an online store: encoded, and cut into chunks that block no server for long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import polars as pl

from mlforge.core.feature_spec import SOURCE
from mlforge.frames.encoding import json_rows, key_hashes
from mlforge.frames.shared_results import once

T = TypeVar("T")
ENCODED_AT_ONCE = 2_000
CHUNK = 250
"""Rows sent at once: they block the server for about a millisecond."""
_TEXT_BYTES = 170
"""Bytes that a text takes in memory beside its own, with its share of a hash."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Encoded rows: the hashes of their entities, and their JSON texts in the same order, where they matter.

    sent: each row as a server takes it, where a layout has made that beforehand.
    """

    hashes: Sequence[str]
    texts: Sequence[str] = ()
    sent: Sequence[str] = field(default=(), kw_only=True)

    def estimated_size(self) -> int:
        """The bytes that they take, roughly."""
        texts = sum(map(len, self.texts))
        return (1 + bool(self.sent)) * (texts + _TEXT_BYTES * len(self.hashes))


def encoded(frame: pl.DataFrame, keys: Sequence[str]) -> Iterator[Rows]:
    """The frame in chunks, encoded as they are asked for: the server works meanwhile."""
    values = [name for name in frame.columns if name not in (*keys, SOURCE)]
    for start in range(0, frame.height, ENCODED_AT_ONCE):
        block = frame.slice(start, ENCODED_AT_ONCE)
        hashes = key_hashes(block, keys).to_list()
        key, compute = (tuple(values), start), partial(json_rows, block, values)
        texts = once("rows as JSON", partial(tuple, key), compute, frame)
        yield from chunked(hashes, texts.to_list())


def noted(
    chunks: Iterator[Rows], unwritten: set[bytes] | None, digest_bytes: int
) -> Iterator[Rows]:
    """The chunks as they are; the digest of each row that passes is removed from `unwritten`."""
    for rows in chunks:
        if unwritten:
            unwritten.difference_update(digests_of(rows.hashes, digest_bytes))
        yield rows


def digests_of(hashes: Iterable[str], digest_bytes: int) -> Iterator[bytes]:
    """The first bytes of each hash, so many that they tell rows apart."""
    end = 2 * digest_bytes
    return (bytes.fromhex(hash[:end]) for hash in hashes)


def chunked(hashes: list[str], texts: list[str]) -> Iterator[Rows]:
    """Rows of these hashes and texts, a chunk at a time."""
    return map(Rows, slices(hashes), slices(texts))


def slices(items: list[T]) -> Iterator[list[T]]:
    """The items, as many at a time as a chunk has."""
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))
