"""The kernel on polars: one rolling pass a window, and sums where rolling would not be exact."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

import polars as pl

from mlforge.compilers import polars_compiler
from mlforge.compilers.base import (
    ENTITY,
    ROW,
    TIME,
    Aggregate,
    ComputeContext,
    result_name,
    value_name,
)
from mlforge.core.time_model import Window
from mlforge.engines import overlapping
from mlforge.engines.base import Engine, SumOverflow
from mlforge.engines.folds import FOLDS, Folds
from mlforge.engines.pairwise import Segments
from mlforge.engines.point_windows import DistinctPoints, PointWindows, TimelineIndex
from mlforge.engines.prefix_sums import DecimalOverflow, SegmentSums, Sums

_INDEX, _START, _LENGTH, _COUNT = "__index", "__start", "__length", "__count_{}"
_OVERLAP = {"min": 8, "max": 8, "median": 64, "pN": 64}
"""Of how many windows each row of a line is part, on average, before ranks over the whole line pay."""


class PolarsEngine(Engine):
    """In memory, on all cores; the default."""

    name: ClassVar[str] = "polars"

    def aggregate(
        self, line: pl.DataFrame, context: ComputeContext, points: pl.DataFrame | None = None
    ) -> pl.DataFrame:
        """Roll over the line; what rolling would not compute exactly is summed over the windows' segments."""
        are_apart = points is not None
        points = line.filter(pl.col(ROW).is_not_null()) if points is None else points
        few = are_apart or self.are_few(points, line)
        wide, by_window = overlapping.wide_columns(line, context), context.by_window()
        looked_up = [window for window in by_window if few or window.width is None]
        at_points = TimelineIndex.of(line, points).windows(points, looked_up)
        chosen = DistinctPoints.of(points, at_points, all_windows=few)
        windows = {
            window: _at_points(chosen.windows[window], aggregates, wide)
            if window in chosen.windows
            else _rolled(line, window, aggregates, wide)
            for window, aggregates in by_window.items()
        }
        return chosen.spread(_results(line, context, windows, chosen.points[ROW]))


def _results(
    line: pl.DataFrame,
    context: ComputeContext,
    windows: Mapping[Window, pl.DataFrame],
    numbers: pl.Series,
) -> pl.DataFrame:
    """The result of each aggregate in windows as `_rolled` gives them, beside the numbers of their points. Raises SumOverflow."""
    longest = max(_greatest(rolled[_LENGTH]) for rolled in windows.values())
    columns = [
        Sums(line, value_name(index), dtype, longest) for index, dtype in enumerate(context.dtypes)
    ]
    segments = {
        window: Segments(rolled[_START], rolled[_LENGTH]) for window, rolled in windows.items()
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


def _at_points(
    windows: PointWindows, aggregates: Mapping[int, Aggregate], wide: Collection[int]
) -> pl.DataFrame:
    """As `_rolled`, from the windows of the points alone."""
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
            windows.segments.starts.alias(_START),
            windows.segments.lengths.alias(_LENGTH),
            *(count.alias(_COUNT.format(value)) for value, count in counts.items()),
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


def _rolled(
    line: pl.DataFrame,
    window: Window,
    aggregates: Mapping[int, Aggregate],
    wide: Collection[int],
) -> pl.DataFrame:
    """For each point its window: where it lies within the line, and the aggregates that polars computes exactly."""
    exact = {i: a for i, a in aggregates.items() if polars_compiler.is_rolled(a)}
    summed = dict.fromkeys(
        a.value for a in aggregates.values() if a.aggregation.name in polars_compiler.SUMMED
    )
    indexed = line.with_columns(pl.int_range(pl.len(), dtype=pl.UInt32).alias(_INDEX))
    rolled = indexed.rolling(
        TIME,
        period=f"{window.width}i",
        offset=f"-{window.longest + window.lag}i",
        closed=window.closed,
        group_by=ENTITY,
    ).agg(
        pl.col(_INDEX).first().fill_null(0).cast(pl.Int64).alias(_START),
        pl.len().cast(pl.Int64).alias(_LENGTH),
        *(pl.col(value_name(value)).count().alias(_COUNT.format(value)) for value in summed),
        *(polars_compiler.expression(a, wide).alias(result_name(i)) for i, a in exact.items()),
    )
    # Groups come in an order of polars' own, the rows within each in that of time.
    rolled = rolled.sort(ENTITY, maintain_order=True)
    assert all(rolled[key].equals(line[key]) for key in (ENTITY, TIME)), "rows out of order"
    return rolled.filter(line[ROW].is_not_null())


def _result(index: int, aggregate: Aggregate, rolled: pl.DataFrame, sums: SegmentSums) -> pl.Series:
    """An aggregate in its window, null where that holds no value. Raises DecimalOverflow."""
    name = aggregate.aggregation.kind.name
    if name not in polars_compiler.SUMMED:
        return rolled[result_name(index)]
    count = rolled[_COUNT.format(aggregate.value)]
    if name in ("std", "var"):
        variance = (sums.deviations(count) / (count - 1)).set(count < 2, None)
        return variance.sqrt() if name == "std" else variance
    if name == "mean":
        return (sums.floats() / count).set(count == 0, None)
    return sums.totals().set(count == 0, None)


def _greatest(lengths: pl.Series) -> int:
    greatest = lengths.max()
    return greatest if isinstance(greatest, int) else 0
