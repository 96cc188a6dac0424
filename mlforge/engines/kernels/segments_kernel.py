"""Aggregates of windows as segments of a timeline: the kernel of polars, and of all engines where the rows are tiles."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import polars as pl

from mlforge.compilers import polars_compiler
from mlforge.compilers.base import ROW, Aggregate, ComputeContext, result_name, value_name
from mlforge.core.time_model import Window
from mlforge.engines.kernels import overlapping
from mlforge.engines.kernels.folds import FOLDS, Folds
from mlforge.engines.kernels.pairwise import Segments
from mlforge.engines.kernels.point_windows import DistinctPoints, PointWindows, TimelineIndex
from mlforge.engines.kernels.prefix_sums import DecimalOverflow, SegmentSums, SumOverflow, Sums

START, LENGTH, COUNT = "__start", "__length", "__count_{}"
_OVERLAP = {"min": 1, "max": 1, "median": 64, "pN": 64}
"""As of `overlapping.overlaps`: before ranks over the whole line pay."""


def aggregate_at_points(
    line: pl.DataFrame, context: ComputeContext, points: pl.DataFrame
) -> pl.DataFrame:
    """ROW and the result of each aggregate at points that are apart from the line, as `Engine.aggregate` gives them."""
    by_window, wide = context.by_window(), overlapping.wide_columns(line, context)
    windows = TimelineIndex.of(line, points).windows(points, list(by_window))
    chosen = DistinctPoints.of(points, windows, all_windows=True)
    looked_up = {
        window: at_points(chosen.windows[window], aggregates, wide)
        for window, aggregates in by_window.items()
    }
    return chosen.spread(results(line, context, looked_up, chosen.points[ROW]))


def results(
    line: pl.DataFrame,
    context: ComputeContext,
    windows: Mapping[Window, pl.DataFrame],
    numbers: pl.Series,
) -> pl.DataFrame:
    """The result of each aggregate in windows with their START, LENGTH and COUNT by value, beside the numbers of their points. Raises SumOverflow."""
    longest = max(_greatest(rolled[LENGTH]) for rolled in windows.values())
    columns = [
        Sums(line, value_name(index), dtype, longest) for index, dtype in enumerate(context.dtypes)
    ]
    segments = {
        window: Segments(rolled[START], rolled[LENGTH]) for window, rolled in windows.items()
    }
    sums = {
        (a.value, a.window): columns[a.value].over(segments[a.window]) for a in context.aggregates
    }
    folds = Folds(line, context)
    results = []
    for index, aggregate in enumerate(context.aggregates):
        window = aggregate.window
        try:
            if aggregate.aggregation.kind.name in FOLDS:
                result = folds.folded(aggregate, segments[window])
            else:
                result = _result(index, aggregate, windows[window], sums[aggregate.value, window])
        except DecimalOverflow as error:
            raise SumOverflow([index], error.dtype) from None
        results.append(result.alias(result_name(index)))
    return pl.DataFrame([numbers, *results])


def at_points(
    windows: PointWindows, aggregates: Mapping[int, Aggregate], wide: Collection[int]
) -> pl.DataFrame:
    """Where each window of points lies within the line, and the aggregates that polars computes exactly."""
    values = {aggregate.value for aggregate in aggregates.values()}
    counts = {value: windows.counts(value_name(value)) for value in values}
    rolled = {
        i: a
        for i, a in aggregates.items()
        if polars_compiler.is_rolled(a) and a.aggregation.name != "count"
    }
    ranked = {i: a for i, a in rolled.items() if overlapping.overlaps(a, windows, _OVERLAP)}
    exact = {
        result_name(i): polars_compiler.expression(a, wide)
        for i, a in rolled.items()
        if i not in ranked
    }
    return pl.DataFrame(
        [
            windows.segments.starts.alias(START),
            windows.segments.lengths.alias(LENGTH),
            *(count.alias(COUNT.format(value)) for value, count in counts.items()),
            *(
                counts[a.value].alias(result_name(i))
                for i, a in aggregates.items()
                if a.aggregation.name == "count"
            ),
            *(
                overlapping.ranked(a, windows, wide).alias(result_name(i))
                for i, a in ranked.items()
            ),
            *(windows.aggregated(exact) if exact else ()),
        ]
    )


def _result(index: int, aggregate: Aggregate, rolled: pl.DataFrame, sums: SegmentSums) -> pl.Series:
    """An aggregate in its window, null where that holds no value. Raises DecimalOverflow."""
    name = aggregate.aggregation.kind.name
    if name not in polars_compiler.SUMMED:
        return rolled[result_name(index)]
    count = rolled[COUNT.format(aggregate.value)]
    if name in ("std", "var"):
        variance = (sums.deviations(count) / (count - 1)).set(count < 2, None)
        return variance.sqrt() if name == "std" else variance
    if name == "mean":
        return (sums.floats() / count).set(count == 0, None)
    return sums.totals().set(count == 0, None)


def _greatest(lengths: pl.Series) -> int:
    greatest = lengths.max()
    return greatest if isinstance(greatest, int) else 0
