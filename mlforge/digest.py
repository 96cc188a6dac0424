"""A hash of a multiset of rows: independent of their order, stable between releases.

Every cell becomes 64 bits, salted with its column's name; a row mixes its cells into 128 bits; the
multiset's digest is the sum over its rows modulo 2**128, so digests of disjoint parts add up (the
construction is the additive one of Clarke et al., "Incremental multiset hash functions", 2003,
with a fast mixer in place of a cryptographic one: it detects change, not forgery). The mixer is that of
splitmix64 (Steele, Lea, Flood, 2014).
"""

from __future__ import annotations

import hashlib

import polars as pl
import pyarrow as pa

from mlforge.manifest import MODULUS

_LANES = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)
_LOW = (1 << 32) - 1


def digest(frame: pl.DataFrame) -> int:
    """The digest of the frame's rows: 128 bits; 0 for no rows."""
    if frame.is_empty():
        return 0
    row = pl.Series([0], dtype=pl.UInt64).new_from_index(0, frame.height)
    for name in frame.columns:
        # A null adds nothing, so a column of nulls is as good as none.
        row = row + _mix(_cells(frame[name]) + _salt(name)).fill_null(0)
    high, low = (_sum(_mix(row ^ lane)) for lane in _LANES)
    return ((high << 64) + low) % MODULUS


def _cells(values: pl.Series) -> pl.Series:
    """Each value as 64 bits; equal values of a dtype give equal bits."""
    dtype = values.dtype
    if dtype == pl.String:
        bits = _texts(values)
    elif dtype.is_float():
        # Adding zero makes -0.0 and 0.0 one.
        arrow = (values.cast(pl.Float64) + 0.0).to_arrow()
        bits = pl.Series(arrow.view(pa.uint64()))
    elif dtype.is_decimal():
        bits = _texts(values.cast(pl.String))
    elif dtype == pl.Null:
        bits = pl.Series([None], dtype=pl.UInt64).new_from_index(0, len(values))
    elif dtype == pl.UInt64:
        bits = values
    else:
        bits = values.to_physical().cast(pl.Int64).reinterpret(signed=False)
    return bits


def _texts(values: pl.Series) -> pl.Series:
    """Each distinct text is hashed once."""
    distinct = values.drop_nulls().unique()
    hashed = [
        int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
        for text in distinct
    ]
    return values.replace_strict(
        distinct, pl.Series(hashed, dtype=pl.UInt64), return_dtype=pl.UInt64, default=None
    )


def _mix(x: pl.Series) -> pl.Series:
    x = (x ^ (x // (1 << 30))) * 0xBF58476D1CE4E5B9
    x = (x ^ (x // (1 << 27))) * 0x94D049BB133111EB
    return x ^ (x // (1 << 31))


def _salt(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _sum(x: pl.Series) -> int:
    """The exact sum, by halves that cannot overflow below 2**32 rows."""
    return int((x & _LOW).sum()) + (int((x // (1 << 32)).sum()) << 32)
