"""Rows that two frames have in common: an amended file has most of its rows where it had them before."""

from __future__ import annotations

import polars as pl

_BITS: dict[type[pl.DataType], type[pl.DataType]] = {pl.Float64: pl.Int64, pl.Float32: pl.Int32}


def without_common_rows(
    one: pl.DataFrame, other: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Two frames of one schema without rows that they have in common: those at the same place, or the same distance from the end.

    Of frames of one height all of these, else those before the first difference and behind the last. Floats are alike if all of their
    bits are, so that 0.0 and -0.0 are not. To compare rows in order costs a fraction of counting them.
    """
    height = min(one.height, other.height)
    differing = _differing_rows(one.head(height), other.head(height))
    if one.height == other.height:
        return one[differing], other[differing]
    begin = differing[0] if len(differing) else height
    one, other = one.slice(begin), other.slice(begin)
    height = min(one.height, other.height)
    differing = _differing_rows(one.tail(height), other.tail(height))
    end = height - 1 - differing[-1] if len(differing) else height
    return one.head(one.height - end), other.head(other.height - end)


def _differing_rows(one: pl.DataFrame, other: pl.DataFrame) -> pl.Series:
    """The places at which two frames of one height and one schema have different rows, in order."""
    differs = pl.Series([False]).new_from_index(0, one.height)
    for name, dtype in one.schema.items():
        left, right = one[name], other[name]
        if bits := _BITS.get(dtype.base_type()):
            left, right = left.reinterpret(dtype=bits), right.reinterpret(dtype=bits)
        differs = differs | left.ne_missing(right)
    return differs.arg_true()
