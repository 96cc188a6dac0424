"""The kernel on polars: one rolling pass a window, and sums where rolling would not be exact."""

from __future__ import annotations

from typing import ClassVar

import polars as pl

from mlforge.compilers import polars_compiler
from mlforge.compilers.base import ENTITY, ROW, TIME, ComputeContext, value_alias
from mlforge.core.metrics import MetricColumn
from mlforge.core.time_model import Window
from mlforge.engines.base import Engine
from mlforge.engines.pairwise import Segments
from mlforge.engines.prefix_sums import Sums

_INDEX, _START, _LENGTH, _COUNT = "__index", "__start", "__length", "__count_"


class PolarsEngine(Engine):
    """In memory, on all cores; the default."""

    name: ClassVar[str] = "polars"

    def aggregate(self, line: pl.DataFrame, context: ComputeContext) -> pl.DataFrame:
        """Roll over the line; what rolling would not compute exactly is summed over the windows' slices."""
        line = line.with_columns(pl.int_range(pl.len(), dtype=pl.UInt32).alias(_INDEX))
        asked = line[ROW].is_not_null()
        windows = {
            window: _rolled(line, window, metrics).filter(asked)
            for window, metrics in context.by_window().items()
        }
        longest = max(_most(rolled[_LENGTH]) for rolled in windows.values())
        sums = {
            column: Sums(line[value_alias(column)], context.dtypes[column], longest)
            for column in context.value_columns()
        }
        found = [
            _value(metric, windows[metric.window], sums[metric.column])
            for metric in context.metrics
        ]
        return pl.DataFrame([line[ROW].filter(asked), *found])


def _rolled(line: pl.DataFrame, window: Window, metrics: tuple[MetricColumn, ...]) -> pl.DataFrame:
    """For each row its window: where it lies within the line, and what polars computes of it exactly."""
    ends_at = window.offset.us if window.offset else 0
    exact = [metric for metric in metrics if metric.aggregation not in polars_compiler.SUMMED]
    counted = dict.fromkeys(metric.column for metric in metrics if metric not in exact)
    rolled = line.rolling(
        TIME,
        period=f"{window.width.us}i",
        offset=f"-{window.width.us + ends_at}i",
        closed=window.closed,
        group_by=ENTITY,
    ).agg(
        pl.col(_INDEX).first().fill_null(0).cast(pl.Int64).alias(_START),
        pl.len().cast(pl.Int64).alias(_LENGTH),
        *(pl.col(value_alias(column)).count().alias(_COUNT + column) for column in counted),
        *(polars_compiler.expression(metric) for metric in exact),
    )
    # Groups come in an order of polars' own, the rows within each in that of time.
    rolled = rolled.sort(ENTITY, maintain_order=True)
    assert all(rolled[key].equals(line[key]) for key in (ENTITY, TIME)), "rows out of order"
    return rolled


def _value(metric: MetricColumn, rolled: pl.DataFrame, sums: Sums) -> pl.Series:
    """A metric in its window, null where that holds no value."""
    if metric.aggregation not in polars_compiler.SUMMED:
        return rolled[metric.name]
    slices, count = Segments(rolled[_START], rolled[_LENGTH]), rolled[_COUNT + metric.column]
    if metric.aggregation == "std":
        found = (sums.deviations(slices, count) / (count - 1)).sqrt().set(count < 2, None)
    elif metric.aggregation == "mean":
        found = (sums.floats(slices) / count).set(count == 0, None)
    else:
        found = sums.totals(slices, metric.name).set(count == 0, None)
    return found.alias(metric.name)


def _most(lengths: pl.Series) -> int:
    most = lengths.max()
    return most if isinstance(most, int) else 0
