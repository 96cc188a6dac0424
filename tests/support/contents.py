"""Parquet files as bytes; what was ever written into a source, by the SHA-256 of its bytes, and the rows that it holds.

A version names the hashes of the contents that it was made of. So whatever it names can be looked up
here, and a content that nobody wrote, such as half of one, is found out.
"""

from __future__ import annotations

import hashlib
import io
from functools import lru_cache
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from tests.support.agreement import plain

Row = dict[str, Any]

_written: dict[str, bytes] = {}


def as_parquet(frame: pl.DataFrame) -> bytes:
    """A parquet file that holds the frame."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def note(content: bytes) -> str:
    """Remember a whole content; its hash."""
    found = hashlib.sha256(content).hexdigest()
    _written.setdefault(found, content)
    return found


def content(hash_: str) -> bytes:
    """The content of that hash; fails if nobody wrote it."""
    assert hash_ in _written, f"a content was read that nobody wrote: {hash_}"
    return _written[hash_]


@lru_cache(maxsize=100_000)
def rows(hash_: str) -> tuple[Row, ...]:
    """The rows of a content, instants as UTC microseconds."""
    table = pq.ParquetFile(io.BytesIO(content(hash_))).read()
    return tuple({name: plain(v) for name, v in row.items()} for row in table.to_pylist())
