"""A hash of a multiset of rows: independent of their order, stable between releases.

Every cell becomes 64 bits, salted with its column's name; a row mixes its cells into 128 bits; the
multiset's digest is the sum over its rows modulo 2**128, so digests of disjoint parts add up (the
construction is the additive one of Clarke et al., "Incremental multiset hash functions", 2003,
with a fast mixer in place of a cryptographic one: it detects change, not forgery). The mixer is that of
splitmix64 (Steele, Lea, Flood, 2014).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial, reduce
from itertools import accumulate, pairwise
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from mlforge.core.manifest import MODULUS
from mlforge.core.side_by_side import CORES, each_of


def _arrow(values: Iterable[float | None], dtype: type[pl.DataType] = pl.UInt64) -> pa.Array:
    """The values as Arrow's array, by way of polars: pa.array and pa.scalar import pandas, wherever it is installed."""
    return pl.Series(values, dtype=dtype).to_arrow()


def _constant(value: int | None) -> pa.Scalar:
    return _arrow([value])[0]


_LANES = (_constant(0x9E3779B97F4A7C15), _constant(0xD1B54A32D192ED03))
_STEPS = (
    (_constant(30), _constant(0xBF58476D1CE4E5B9)),
    (_constant(27), _constant(0x94D049BB133111EB)),
    (_constant(31), None),
)
_NULL, _LENGTH = _constant(0x9FB21C651E98DF25), _constant(0xC2B2AE3D27D4EB4F)
_ZERO, _HALF, _LOW = _constant(0), _constant(32), _constant((1 << 32) - 1)
_ABSENT, _FLOAT_ZERO = _constant(None), _arrow([0.0], pl.Float64)[0]
_FEW = 2_000  # texts that take less time one by one than a plan of polars does
_BLOCK = 32_768  # rows at a time: what is between two steps stays in the processor's cache
_MANY = 4 * _BLOCK  # rows that are worth waking threads for
_LONG = _BLOCK // 4  # rows of a run, on average, that are summed sooner run by run
_WORD = (1 << 64) - 1
_Salted = Sequence[tuple[pa.Scalar, Any]]


def digest(frame: pl.DataFrame) -> int:
    """The digest of the frame's rows: 128 bits; 0 for no rows."""
    columns, height = _salted(frame), frame.height
    if height < _MANY or CORES == 1:
        return _joined(*_lane_sums(columns, _blocks(0, height)))
    blocks = [*_blocks(0, height)]
    sums = each_of(partial(_lane_sums, columns), [blocks[n::CORES] for n in range(CORES)])
    return _joined(*map(sum, zip(*sums, strict=True)))


def _blocks(start: int, end: int) -> Iterator[range]:
    """The rows from one place to another, some at a time."""
    return (range(at, min(at + _BLOCK, end)) for at in range(start, end, _BLOCK))


def _lane_sums(columns: _Salted, blocks: Iterable[range]) -> tuple[int, int]:
    """The sums of both lanes over some blocks of rows; the first modulo 2**64, as a digest has its lowest bits alone."""
    first = second = 0
    for block in blocks:
        row = _mixed_rows(columns, block)
        lanes = [_mixed(pc.bit_wise_xor(row, lane)) for lane in _LANES]
        first += _wrapped(lanes[0])
        second += _total(lanes[1])
    return first, second


def hashes(values: pl.Series) -> pl.Series:
    """64 bits of each value (UInt64), equal for equal values of a dtype; null where the value is null.

    They are the same in every process, on every machine and with every release of polars.
    """
    return pl.Series(_array(_mixed(_array(_cells(values.rechunk())))), dtype=pl.UInt64)


def digests(frame: pl.DataFrame, heights: Sequence[int]) -> list[int]:
    """The digest of each run of so many rows, of which the frame consists; each run has a row."""
    columns, height = _salted(frame), frame.height
    ends = [*accumulate(heights)]
    if height > _LONG * len(heights):
        runs = zip([0, *ends], ends, strict=False)
        return [_joined(*_lane_sums(columns, _blocks(*run))) for run in runs]
    last = _arrow(end - 1 for end in ends)
    blocks = [_mixed_rows(columns, block) for block in _blocks(0, height)]
    lanes = [[_mixed(pc.bit_wise_xor(rows, lane)) for rows in blocks] for lane in _LANES]
    halves = [_sums([*map(half, values)], last) for values in lanes for half in (_high, _low)]
    return [
        _joined((first << 32) + first_low, (second << 32) + second_low)
        for first, first_low, second, second_low in zip(*halves, strict=True)
    ]


def _sums(blocks: Sequence[pa.Array], last: pa.Array) -> list[int]:
    """The sum of each run of values below 2**32; last: the place of each run's last value."""
    until = pc.cumulative_sum(pa.concat_arrays(blocks)).take(last).to_pylist()
    return [here - before for before, here in pairwise([0, *until])]


def _salted(frame: pl.DataFrame) -> _Salted:
    """Each column's salt, and its values as bits."""
    return [(_salt(name), _cells(frame[name].rechunk())) for name in frame.columns]


def _mixed_rows(columns: _Salted, block: range) -> pa.Array:
    """The cells of each row of a block, mixed to 64 bits."""
    row = _ZERO
    for salt, cells in columns:
        cell = _mixed(pc.add(cells.slice(block.start, len(block)), salt))
        # A null adds nothing, so a column of nulls is as good as none.
        row = pc.add(row, pc.fill_null(cell, _ZERO) if cell.null_count else cell)
    if isinstance(row, pa.Scalar):  # no columns
        row = pa.repeat(row, len(block))
    return _array(row)


def _joined(first: int, second: int) -> int:
    """A digest of the sums of both lanes."""
    return ((first << 64) + second) % MODULUS


def _cells(values: pl.Series) -> pa.Array:
    """Each value as 64 bits (UInt64); equal values of a dtype have equal bits.

    The common dtypes are Arrow's own bytes, without a plan of polars: there may be very many small files.
    """
    dtype = values.dtype
    if dtype.is_nested():
        return _within(values)
    if dtype in (pl.Int64, pl.UInt64) or isinstance(dtype, pl.Datetime):
        return values.to_arrow().view(pa.uint64())
    if dtype == pl.String:
        return _texts(values)
    if dtype == pl.Binary:
        return _texts(values.bin.encode("hex"))
    if dtype.is_float():
        return values.cast(pl.Float64).to_arrow().view(pa.uint64())
    if dtype.is_decimal():
        return _texts(values.cast(pl.String))
    if dtype == pl.Null:
        return values.cast(pl.UInt64).to_arrow()
    return values.to_physical().cast(pl.Int64).to_arrow().view(pa.uint64())


def _within(values: pl.Series) -> pa.Array:
    """The bits of lists, arrays and structs: each part is mixed with its place, or its field's name, and added up.

    An empty list, a list of nulls and no list differ from each other.
    """
    if isinstance(values.dtype, pl.Struct):
        total = reduce(
            pc.add,
            [_placed(values.struct.field(name), _salt(name)) for name in values.struct.fields],
        )
    else:
        total = _sum_of_lists(
            values.arr.to_list() if isinstance(values.dtype, pl.Array) else values
        )
    return pc.if_else(_array(values.is_not_null().to_arrow()), total, _ABSENT)


def _sum_of_lists(lists: pl.Series) -> pa.Array:
    """The sum of each list's placed parts and its length (UInt64), whatever of a null."""
    lengths = lists.list.len().fill_null(0).cast(pl.UInt64)
    filled = lengths > 0
    numbered = lengths.filter(filled).to_frame("n")
    places = numbered.select(pl.int_ranges(0, "n", dtype=pl.UInt64).explode()).to_series()
    place = _mixed(pc.add(_array(places.rechunk().to_arrow()), _LENGTH))
    bits = _placed(lists.filter(filled).explode().rechunk(), place)
    until = pc.cumulative_sum(pa.concat_arrays([_arrow([0]), bits]))
    ends, length = _array(lengths.cum_sum().to_arrow()), _array(lengths.to_arrow())
    totals = pc.subtract(until.take(ends), until.take(pc.subtract(ends, length)))
    return pc.add(totals, _mixed(pc.add(length, _LENGTH)))


def _placed(parts: pl.Series, place: Any) -> pa.Array:
    """The bits of parts mixed with their places; a null is a part like any other, and zero has no sign."""
    if parts.dtype.is_float():
        cells = pc.add(_array(parts.cast(pl.Float64).rechunk().to_arrow()), _FLOAT_ZERO).view(
            pa.uint64()
        )
    else:
        cells = _array(_cells(parts.rechunk()))
    return _array(_mixed(pc.add(pc.fill_null(cells, _NULL), place)))


def _array(values: Any) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _texts(values: pl.Series) -> pa.Array:
    """Each distinct text is hashed once."""
    hashed: dict[str | None, int | None] = {None: None}
    texts = values.to_list() if len(values) <= _FEW else values.unique().to_list()
    for text in texts:
        if text not in hashed:
            digest_ = hashlib.blake2b(text.encode(), digest_size=8).digest()
            hashed[text] = int.from_bytes(digest_, "little")
    if len(values) <= _FEW:
        return _arrow(hashed[text] for text in texts)
    numbers = pl.Series([hashed[text] for text in texts], dtype=pl.UInt64)
    return values.replace_strict(
        pl.Series(texts, dtype=pl.String), numbers, return_dtype=pl.UInt64
    ).to_arrow()


def _mixed(values: Any) -> Any:
    """Every value put through the mixer."""
    for shift, factor in _STEPS:
        values = pc.bit_wise_xor(values, pc.shift_right(values, shift))
        if factor is not None:
            values = pc.multiply(values, factor)
    return values


def _total(values: Any) -> int:
    """The exact sum of a block: of the high halves, and of the low ones, which are what the sum modulo 2**64 has beyond those."""
    high = _wrapped(_high(values)) << 32
    return high + ((_wrapped(values) - high) & _WORD)


def _wrapped(values: Any) -> int:
    """The sum modulo 2**64."""
    return int(pc.sum(values).as_py())


def _high(values: Any) -> Any:
    return pc.shift_right(values, _HALF)


def _low(values: Any) -> Any:
    return pc.bit_wise_and(values, _LOW)


@lru_cache(maxsize=1_024)
def _salt(name: str) -> pa.Scalar:
    hashed = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return _constant(int.from_bytes(hashed, "little"))
