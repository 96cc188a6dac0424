"""From a column's values to its profile: one pass of group-bys over hashes and over the bits of floats."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import polars as pl
import pyarrow as pa

from mlforge.frames.digest import hashes
from mlforge.frames.polars_schema import dtype_text
from mlforge.frames.time_units import unit_us
from mlforge.profiles import registers
from mlforge.profiles.buckets import SHIFT, WEEK_US
from mlforge.profiles.column_profile import SAMPLED, ColumnProfile, Counted, Kind

LONGEST = 100
"""Characters of a text that a profile shows; texts are told apart by all of them."""
# Rows at a time: the squares of 53-bit numbers of more rows might not fit into 128 bits.
_BLOCK = 1 << 20
_MANTISSA, _SIGNIFICANT, _MAGNITUDE = 52, (1 << 52) - 1, (1 << 63) - 1
_BIAS = 1075  # a float is its significand times 2 to the power of its exponent's bits less this
_ALL_HASHES = 1 << 64


def profile_frame(frame: pl.DataFrame) -> dict[str, ColumnProfile]:
    """The profile of each column, by name."""
    return {name: profile_column(frame[name]) for name in frame.columns}


def profile_column(values: pl.Series) -> ColumnProfile:
    """The profile of a column of any dtype that a table can have."""
    dtype, kind = dtype_text(values.dtype), _kind(values.dtype)
    merged = ColumnProfile(kind, dtype)
    for start in range(0, len(values), _BLOCK):
        merged = merged.merged(_block(values.slice(start, _BLOCK).rechunk(), kind, dtype))
    return merged


def _kind(dtype: pl.DataType) -> Kind:
    if dtype == pl.Null:
        return "null"
    if dtype == pl.Boolean:
        return "boolean"
    if isinstance(dtype, (pl.Date, pl.Datetime)):
        return "time"
    if dtype.is_numeric() or dtype.is_temporal():
        return "number"
    return "text" if isinstance(dtype, (pl.String, pl.Categorical, pl.Enum)) else "nested"


def _block(values: pl.Series, kind: Kind, dtype: str) -> ColumnProfile:
    """The profile of at most so many rows that no sum of theirs overflows."""
    rows, nulls = len(values), values.null_count()
    values = values.drop_nulls()
    nans = infinities = 0
    if values.dtype.is_float():
        values = _unsigned(values.cast(pl.Float64))
        nans, infinities = int(values.is_nan().sum()), int(values.is_infinite().sum())
        values = values.filter(values.is_finite()) if nans or infinities else values
    elif kind == "text":
        values = values.cast(pl.String)
    if values.is_empty():
        return ColumnProfile(kind, dtype, rows, nulls, nans, infinities)
    hashed = _hashed(values)
    total, squares, histogram = _summed(values, kind, hashed)
    return ColumnProfile(
        kind=kind,
        dtype=dtype,
        rows=rows,
        nulls=nulls,
        nans=nans,
        infinities=infinities,
        least=_scalar(None if kind == "nested" else _plain(values).min(), values.dtype),
        greatest=_scalar(None if kind == "nested" else _plain(values).max(), values.dtype),
        total=total,
        squares=squares,
        histogram=dict(sorted(histogram.items())),
        registers=_registers(hashed),
        sample=_sample(values, hashed),
    )


def _unsigned(floats: pl.Series) -> pl.Series:
    """The floats, with zeros that have no sign; polars takes `x + 0.0` for x."""
    return floats.set(floats == 0, 0.0)


def _hashed(values: pl.Series) -> pl.Series:
    """64 bits of each value, the same on every machine and with every release of polars."""
    return hashes(values.cast(pl.String) if values.dtype == pl.Int128 else values)


def _summed(
    values: pl.Series, kind: Kind, hashed: pl.Series
) -> tuple[Fraction, Fraction, Mapping[int, int]]:
    """The sum, the sum of squares and the histogram of values."""
    none = Fraction(0)
    if kind in ("text", "nested"):
        return none, none, _counts(hashed // (1 << 56))
    if values.dtype.is_float():
        return _float_sums(values)
    unit = _unit(values.dtype)
    whole = values.cast(pl.Int128) if kind == "boolean" else values.to_physical().cast(pl.Int128)
    total, squares = _whole_sums(whole)
    if kind == "time":
        week = int(WEEK_US / unit)
        histogram = _counts(whole.to_frame("x").select(pl.col("x") // week).to_series())
    else:
        numbers = values if values.dtype.is_decimal() else whole
        histogram = _counts(_bits(numbers.cast(pl.Float64))["bucket"])
    return total * unit, squares * unit * unit, histogram


def _unit(dtype: pl.DataType) -> Fraction:
    """The number for which a one stands in the physical integers of a dtype; microseconds of times."""
    if isinstance(dtype, pl.Decimal):
        return Fraction(1, 10**dtype.scale)
    return unit_us(dtype) if dtype.is_temporal() else Fraction(1)


def _counts(buckets: pl.Series) -> dict[int, int]:
    counted = buckets.alias("bucket").to_frame().group_by("bucket").len()
    return dict(zip(counted["bucket"].to_list(), counted["len"].to_list(), strict=True))


def _whole_sums(whole: pl.Series) -> tuple[Fraction, Fraction]:
    """The exact sums of integers of 128 bits and of their squares; in Python where they might overflow."""
    largest = max(abs(int(whole.min())), abs(int(whole.max())))  # type: ignore[arg-type]
    if largest * largest * len(whole) < 1 << 126:
        return Fraction(int(whole.sum())), Fraction(int((whole * whole).sum()))
    numbers = whole.to_list()
    return Fraction(sum(numbers)), Fraction(sum(number * number for number in numbers))


def _bits(floats: pl.Series) -> pl.DataFrame:
    """Of each float: magnitude (its bits without the sign), and the bucket that it lies in."""
    bits = pl.Series("bits", floats.rechunk().to_arrow().view(pa.int64()))
    magnitude = pl.col("bits") & _MAGNITUDE
    bucket = magnitude // (1 << SHIFT)
    return bits.to_frame().select(
        magnitude=magnitude,
        bucket=pl.when(pl.col("bits") < 0).then(-1 - bucket).otherwise(bucket).cast(pl.Int32),
    )


def _float_sums(floats: pl.Series) -> tuple[Fraction, Fraction, Mapping[int, int]]:
    """Sums without rounding: floats of a bucket share their exponent, so that their significands add up as integers."""
    magnitude = pl.col("magnitude")
    fraction = (magnitude & _SIGNIFICANT).cast(pl.Int128)
    implied = pl.when(magnitude > _SIGNIFICANT).then(1 << _MANTISSA).otherwise(0)
    table = (
        _bits(floats)
        .lazy()
        .select("bucket", (fraction + implied.cast(pl.Int128)).alias("significand"))
        .group_by("bucket")
        .agg(
            pl.len(),
            pl.col("significand").sum().alias("sum"),
            (pl.col("significand") * pl.col("significand")).sum().alias("squares"),
        )
        .collect(engine="in-memory")
    )
    total, squares, histogram = _Scaled(), _Scaled(), {}
    for bucket, rows, sum_, square in table.iter_rows():
        exponent = max((bucket if bucket >= 0 else -1 - bucket) >> (_MANTISSA - SHIFT), 1) - _BIAS
        total.add(sum_ if bucket >= 0 else -sum_, exponent)
        squares.add(square, 2 * exponent)
        histogram[bucket] = rows
    return total.value, squares.value, histogram


class _Scaled:
    """An exact sum of integers times powers of two."""

    def __init__(self) -> None:
        self._by_exponent: dict[int, int] = {}

    def add(self, number: int, exponent: int) -> None:
        self._by_exponent[exponent] = self._by_exponent.get(exponent, 0) + number

    @property
    def value(self) -> Fraction:
        least = min(self._by_exponent, default=0)
        whole = sum(number << (e - least) for e, number in self._by_exponent.items())
        return Fraction(whole) * Fraction(2) ** least


def _registers(hashed: pl.Series) -> bytes:
    """Of each register, the rank of the first one bit in the rest of the hashes that belong to it."""
    first = 1 << registers.REST_BITS
    rest = pl.col("hash") & (first - 1)
    table = (
        hashed.alias("hash")
        .to_frame()
        .select((pl.col("hash") // first).cast(pl.UInt16).alias("register"), rest.alias("rest"))
        .group_by("register")
        .agg(pl.col("rest").min())
    )
    ranks = bytearray(registers.COUNT)
    for register, least in table.iter_rows():
        ranks[register] = registers.REST_BITS + 1 - least.bit_length()
    return bytes(ranks)


def _sample(values: pl.Series, hashed: pl.Series) -> tuple[Counted, ...]:
    """The distinct values with the least hashes, each with its rows."""
    frame = pl.DataFrame({"hash": hashed, "value": values})
    limit = _ALL_HASHES * 4 * SAMPLED // max(len(values), 1)
    while True:
        is_all = limit >= _ALL_HASHES
        seen = frame if is_all else frame.filter(pl.col("hash") < pl.lit(limit, pl.UInt64))
        distinct = seen.group_by("hash").agg(pl.len().alias("rows"), pl.col("value").first())
        if is_all or distinct.height >= SAMPLED:
            break
        limit *= 64
    chosen = distinct.bottom_k(SAMPLED, by="hash").sort("hash")
    dtype = values.dtype
    return tuple(
        Counted(hash_, _scalar(value, dtype), rows)
        for hash_, rows, value in zip(
            chosen["hash"].to_list(),
            chosen["rows"].to_list(),
            _plain(chosen["value"]).to_list(),
            strict=True,
        )
    )


def _plain(values: pl.Series) -> pl.Series:
    """Values that Python holds exactly: times as their integers."""
    return values.to_physical() if values.dtype.is_temporal() else values


def _scalar(value: Any, dtype: pl.DataType) -> Any:
    """A value of a column of that dtype as profiles hold it."""
    if value is None or isinstance(value, (bool, Decimal)):
        return value
    if isinstance(value, str):
        return value[:LONGEST]
    if isinstance(value, int) and dtype.is_temporal():
        return int(value * _unit(dtype) // 1)
    if isinstance(value, (int, float)):
        return value
    return json.dumps(_unsigned_zeros(value), default=str, ensure_ascii=False)[:LONGEST]


def _unsigned_zeros(value: Any) -> Any:
    """A nested value in lists and mappings, in which zero has no sign: values of one hash have one text."""
    if isinstance(value, (list, pl.Series)):
        return [_unsigned_zeros(each) for each in value]
    if isinstance(value, dict):
        return {name: _unsigned_zeros(each) for name, each in value.items()}
    return value + 0.0 if isinstance(value, float) else value
