"""Extremes and percentiles of windows that overlap much, by ranks over the whole line: no engine reads each window's rows for them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import polars as pl

from mlforge.compilers.base import Aggregate, ComputeContext, value_name
from mlforge.compilers.polars_compiler import BETWEEN_RANKS
from mlforge.core.schema import FLOATS
from mlforge.engines.kernels import ranks
from mlforge.engines.kernels.pairwise import Segments
from mlforge.engines.kernels.point_windows import PointWindows

_EXTREMES = ("min", "max")
_TINY = 1e-290
"""Below it floats have fewer digits, or products with a share have: a percentile would be off by more than others are."""


def overlaps(aggregate: Aggregate, windows: PointWindows, most: Mapping[str, float]) -> bool:
    """Whether ranks over the whole line cost less than the rows of each window.

    most: by the kind of aggregation, of how many windows each row is part, on average, before they do; of extremes for each
    power of two up to the longest window, as each is a pass over the line.
    """
    kind, lengths = aggregate.aggregation.kind.name, windows.segments.lengths
    if kind not in most:
        return False
    longest = lengths.max()
    passes = longest.bit_length() if kind in _EXTREMES and isinstance(longest, int) else 1
    return bool(lengths.sum() > most[kind] * passes * windows.line.height)


def ranked(aggregate: Aggregate, windows: PointWindows, wide: Collection[int]) -> pl.Series:
    """A least or greatest value, or a percentile, of each window. wide: as `wide_columns`."""
    column, aggregation = value_name(aggregate.value), aggregate.aggregation
    values, segments = windows.line[column], windows.segments
    if aggregation.kind.name in _EXTREMES:
        return ranks.extremes(values, segments, greatest=aggregation.kind.name == "max")
    before = windows.index.counts_before(column)
    of_values = Segments(before.gather(segments.starts), windows.counts(column))
    share = 0.5 if aggregation.parameter is None else float(aggregation.parameter)
    is_wide = aggregate.value in wide
    return ranks.between_ranks(values.drop_nulls(), of_values, share, wide=is_wide)


def tiny_percentiles(line: pl.DataFrame, context: ComputeContext) -> frozenset[Aggregate]:
    """The percentiles of columns of floats that hold values of which a product with a share loses digits."""
    floats = _percentile_columns(context)
    sizes = (pl.col(value_name(i)).cast(pl.Float64).abs() for i in floats)
    are_tiny = (((size > 0) & (size < _TINY)).any() for size in sizes)
    found = line.select(are_tiny).row(0) if floats else ()
    columns = {i for i, is_tiny in zip(floats, found, strict=True) if is_tiny}
    return frozenset(
        a
        for a in context.aggregates
        if a.value in columns and a.aggregation.kind.name in BETWEEN_RANKS
    )


def wide_columns(line: pl.DataFrame, context: ComputeContext) -> frozenset[int]:
    """The columns of floats, whose percentiles are asked for, in which two values differ by more than a float holds."""
    floats = _percentile_columns(context)
    ranges = (pl.col(value_name(i)).cast(pl.Float64) for i in floats)
    spans = line.select(values.max() - values.min() for values in ranges).row(0) if floats else ()
    return frozenset(i for i, span in zip(floats, spans, strict=True) if span == math.inf)


def _percentile_columns(context: ComputeContext) -> list[int]:
    """The columns of floats whose percentiles are asked for."""
    positions = {a.value for a in context.aggregates if a.aggregation.kind.name in BETWEEN_RANKS}
    return [value for value in positions if context.dtypes[value] in FLOATS]
