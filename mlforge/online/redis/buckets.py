"""The buckets of a feature on a cluster: 64 keys for its books, each beside the rows of the entities whose hash says so.

The part of a key between braces decides on which node it lies, so that books and rows of a bucket are always together:
`{prefix}:{{feature:b}}` and `{prefix}:{{feature:b}}:{hash of the entity}`, where b is the first byte of the hash modulo 64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from mlforge.online.chunks import CHUNK, Rows

BUCKETS = 64
_BUCKET_OF = {f"{byte:02x}": byte % BUCKETS for byte in range(256)}


@lru_cache(maxsize=2_048)
def bucket_keys(key: str) -> tuple[str, ...]:
    """The keys of the books in all buckets. key: that of the feature's books on a server of its own."""
    prefix, _, feature = key.rpartition(":")
    return tuple(f"{prefix}:{{{feature}:{bucket}}}" for bucket in range(BUCKETS))


def bucket_of(hash: str) -> int:
    """The bucket of an entity, by its hash."""
    return _BUCKET_OF[hash[:2]]


def by_bucket(chunks: Iterable[Rows]) -> Iterator[tuple[int, Rows]]:
    """The rows in chunks of one bucket each, as large as they can be."""
    waiting = [_Waiting() for _ in range(BUCKETS)]
    for rows in chunks:
        for position, hash in enumerate(rows.hashes):
            bucket = waiting[bucket_of(hash)]
            bucket.hashes.append(hash)
            if rows.texts:
                bucket.texts.append(rows.texts[position])
        for number, bucket in enumerate(waiting):
            if len(bucket.hashes) >= CHUNK:
                yield number, bucket.taken()
    for number, bucket in enumerate(waiting):
        if bucket.hashes:
            yield number, bucket.taken()


def positions_by_bucket(hashes: Sequence[str]) -> dict[int, list[int]]:
    """The positions of the hashes in each bucket that has some."""
    positions: dict[int, list[int]] = {}
    for position, hash in enumerate(hashes):
        positions.setdefault(bucket_of(hash), []).append(position)
    return positions


class _Waiting:
    """Rows of a bucket that are too few yet to be sent."""

    def __init__(self) -> None:
        self.hashes: list[str] = []
        self.texts: list[str] = []

    def taken(self) -> Rows:
        """All rows, of which none waits any more."""
        rows = Rows(self.hashes, self.texts)
        self.hashes, self.texts = [], []
        return rows
