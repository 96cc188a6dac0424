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
_STEPS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))


def digest(frame: pl.DataFrame) -> int:
    """The digest of the frame's rows: 128 bits; 0 for no rows."""
    if frame.is_empty():
        return 0
    cells = pl.DataFrame([_cells(frame[name]).alias(name) for name in frame.columns])
    salted = cells.select(pl.col(name) + _constant(_salt(name)) for name in cells.columns)
    # A null adds nothing, so a column of nulls is as good as none.
    rows = (
        _mixed(salted)
        .fill_null(0)
        .select(row=sum((pl.col(name) for name in cells.columns), _constant(0)))
    )
    lanes = _mixed(
        rows.select((pl.col("row") ^ _constant(lane)).alias(str(lane)) for lane in _LANES)
    )
    # By halves, whose sums cannot overflow below 2**32 rows.
    high, low = (
        lanes.select(half.sum()).row(0)
        for half in (pl.all() // (1 << 32), pl.all() & _constant(_LOW))
    )
    first, second = (
        (int(upper) << 32) + int(lower) for upper, lower in zip(high, low, strict=True)
    )
    return ((first << 64) + second) % MODULUS


def _cells(values: pl.Series) -> pl.Series:
    """Each value as 64 bits; equal values of a dtype give equal bits."""
    dtype = values.dtype
    if dtype == pl.String:
        return _texts(values)
    if dtype.is_float():
        # Adding zero makes -0.0 and 0.0 one.
        arrow = (values.cast(pl.Float64) + 0.0).to_arrow()
        return pl.Series(arrow.view(pa.uint64()))
    if dtype.is_decimal():
        return _texts(values.cast(pl.String))
    if dtype in (pl.Null, pl.UInt64):
        return values.cast(pl.UInt64)
    return values.to_physical().cast(pl.Int64).reinterpret(signed=False)


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


def _mixed(frame: pl.DataFrame) -> pl.DataFrame:
    """Every value put through the mixer, a step over all columns at a time."""
    for shift, factor in _STEPS:
        frame = frame.select((pl.all() ^ (pl.all() // (1 << shift))) * _constant(factor))
    return frame


def _salt(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _constant(value: int) -> pl.Expr:
    return pl.lit(value, dtype=pl.UInt64)
