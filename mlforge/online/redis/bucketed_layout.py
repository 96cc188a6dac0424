"""Rows as JSON texts on a cluster: each lies beside the books of its bucket."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import polars as pl

from mlforge.online.chunks import Rows, encoded
from mlforge.online.redis import scripts
from mlforge.online.redis.buckets import bucket_keys, bucket_of, by_bucket
from mlforge.online.redis.fetched_books import books_key
from mlforge.online.redis.json_layout import ANY_HASH, SCANNED_AT_ONCE, JsonLayout, call
from mlforge.online.redis.layouts import Write

if TYPE_CHECKING:
    from mlforge.online.redis.client import Server
    from mlforge.online.redis.cluster import ClusterServer


class BucketedLayout(JsonLayout):
    """As `JsonLayout`, whose keys of books are here those of a server of its own: each stands for those of all buckets."""

    def encoded(self, frame: pl.DataFrame, keys: Sequence[str]) -> Iterator[Rows]:
        """The frame in chunks of JSON texts, which buckets mix."""
        return encoded(frame, keys)

    def put(self, server: Server, write: Write, chunks: Iterable[Rows]) -> int:
        """Write the rows, each chunk of a bucket at once; returns their number."""
        return self._stream(server, scripts.PUT, write, chunks)

    def sweep(self, server: Server, key: str, layout: str) -> None:
        """Delete nothing: on a cluster, rows lie in no other layout."""
        return

    def counts(self, server: Server, prefix: str, features: Collection[str]) -> dict[str, int]:
        """The number of rows of each of these features, bucket by bucket."""
        return {feature: self._count(server, books_key(prefix, feature)) for feature in features}

    def row_name(self, key: str, hash: str) -> str:
        """The row's key."""
        return f"{bucket_keys(key)[bucket_of(hash)]}:{hash}"

    def _count(self, server: Server, key: str) -> int:
        none = pl.Series([], dtype=pl.UInt64)
        chunks = self._rows(server, key)
        listed = [none, *(pl.Series(keys, dtype=pl.String).hash() for keys in chunks)]
        return pl.concat(listed).n_unique()  # a scan may come upon a row twice

    def _rows(self, server: Server, key: str) -> Iterator[list[str]]:
        """The keys of all rows in chunks; each at least once, also while its slot moves."""
        for bucket in bucket_keys(key):
            yield from server.scan(bucket, f"{bucket}:{ANY_HASH}", SCANNED_AT_ONCE)

    def _stream(self, server: Server, script: str, write: Write, chunks: Iterable[Rows]) -> int:
        """Run a script per chunk of rows of a bucket; the sum of what it returns."""
        from mlforge.online.redis.cluster_rounds import Block

        writes = [replace(write, key=key) for key in bucket_keys(write.key)]
        return cast("ClusterServer", server).stream_blocks(
            Block.of(writes[bucket].key, call(script, writes[bucket], rows))
            for bucket, rows in by_bucket(chunks)
        )
