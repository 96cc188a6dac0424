"""Rows on their way to an online store: encoded, and cut into chunks that block no server for long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Self, TypeVar

import polars as pl

from mlforge.core.feature_spec import SOURCE
from mlforge.frames.encoding import json_rows, key_hashes

T = TypeVar("T")
ENCODED_AT_ONCE = 2_000
_CHUNK = 250  # blocks the server for about a millisecond


@dataclass(frozen=True, slots=True)
class Rows:
    """Encoded rows: the hashes of their entities, and their JSON texts in the same order, where they matter."""

    hashes: Sequence[str]
    texts: Sequence[str] = ()

    def picked(self, places: Sequence[tuple[Self, int]]) -> Self:
        """Rows from several chunks like this one, each by its chunk and its position there."""
        hashes = [rows.hashes[at] for rows, at in places]
        return type(self)(hashes, [rows.texts[at] for rows, at in places] if self.texts else ())

    def chunks(self) -> Iterator[Self]:
        """The rows, as many at a time as a chunk has."""
        places = slices([(self, at) for at in range(len(self.hashes))])
        return (self.picked(some) for some in places)


def regrouped(
    chunks: Iterable[Rows], group_of: Callable[[str], int], at_once: int
) -> Iterator[tuple[int, Rows]]:
    """The rows by the groups that their hashes belong to, some chunks at a time; all chunks are of one kind."""
    each = iter(chunks)
    while some := list(islice(each, at_once)):
        places: dict[int, list[tuple[Rows, int]]] = {}
        for rows in some:
            for at, hash in enumerate(rows.hashes):
                places.setdefault(group_of(hash), []).append((rows, at))
        for group, own in sorted(places.items()):
            yield group, some[0].picked(own)


def encoded(frame: pl.DataFrame, keys: Sequence[str]) -> Iterator[Rows]:
    """The frame in chunks, encoded as they are asked for: the server works meanwhile."""
    values = [name for name in frame.columns if name not in (*keys, SOURCE)]
    for block in frame.iter_slices(ENCODED_AT_ONCE):
        yield from chunked(key_hashes(block, keys).to_list(), json_rows(block, values).to_list())


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
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
