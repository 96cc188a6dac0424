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
from mlforge.engines.base import Engine
from mlforge.engines.kernels import overlapping, segments_kernel
from mlforge.engines.kernels.point_windows import TimelineIndex
from mlforge.engines.kernels.segments_kernel import COUNT, LENGTH, START

_INDEX = "__index"


class PolarsEngine(Engine):
    """In memory, on all cores; the default."""

    name: ClassVar[str] = "polars"
    adds_up_exactly: ClassVar[bool] = True

    def aggregate(
        self, line: pl.DataFrame, context: ComputeContext, points: pl.DataFrame | None = None
    ) -> pl.DataFrame:
        """Roll over the line; what rolling would not compute exactly is summed over the windows' segments."""
        if points is not None:
            return segments_kernel.aggregate_at_points(line, context, points)
        points = line.filter(pl.col(ROW).is_not_null())
        if self.are_few(points, line):
            return segments_kernel.aggregate_at_points(line, context, points)
        wide, by_window = overlapping.wide_columns(line, context), context.by_window()
        looked_up = [window for window in by_window if window.width is None]
        at_points = TimelineIndex.of(line, points).windows(points, looked_up)
        windows = {
            window: segments_kernel.at_points(at_points[window], aggregates, wide)
            if window in at_points
            else _rolled(line, window, aggregates, wide)
            for window, aggregates in by_window.items()
        }
        return segments_kernel.results(line, context, windows, points[ROW])


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
        pl.col(_INDEX).first().fill_null(0).cast(pl.Int64).alias(START),
        pl.len().cast(pl.Int64).alias(LENGTH),
        *(pl.col(value_name(value)).count().alias(COUNT.format(value)) for value in summed),
        *(polars_compiler.expression(a, wide).alias(result_name(i)) for i, a in exact.items()),
    )
    # Groups come in an order of polars' own, the rows within each in that of time.
    rolled = rolled.sort(ENTITY, maintain_order=True)
    assert all(rolled[key].equals(line[key]) for key in (ENTITY, TIME)), "rows out of order"
    return rolled.filter(line[ROW].is_not_null())
