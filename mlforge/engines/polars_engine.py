"""The kernel on polars: one rolling pass a window, and folds where rolling would not be exact."""

from __future__ import annotations

from typing import ClassVar

import polars as pl

from mlforge.compilers import polars_compiler
from mlforge.compilers.base import ENTITY, ROW, TIME, ComputeContext, value_alias
from mlforge.engines.base import Engine, overflow
from mlforge.engines.folds import Slices, moments, sums
from mlforge.metrics import MetricColumn
from mlforge.schema import decimal_scale
from mlforge.timemodel import Window

_INDEX, _START, _LENGTH, _COUNT = "__index", "__start", "__length", "__count_"


class PolarsEngine(Engine):
    """In memory, on all cores; the default."""

    name: ClassVar[str] = "polars"

    def aggregate(self, line: pl.DataFrame, context: ComputeContext) -> pl.DataFrame:
        """Roll over the line; what polars would not compute exactly is folded from the windows."""
        line = line.with_columns(pl.int_range(pl.len(), dtype=pl.UInt32).alias(_INDEX))
        asked = line[ROW].is_not_null()
        made = [line[ROW].filter(asked)]
        for window, metrics in context.by_window().items():
            exact = [metric for metric in metrics if not polars_compiler.is_folded(metric, context)]
            rolled = _rolled(line, window, metrics, context).filter(asked)
            made += [rolled[metric.name] for metric in exact]
            made += _folded(line, rolled, metrics, context)
        return pl.DataFrame(made)


def _rolled(
    line: pl.DataFrame, window: Window, metrics: tuple[MetricColumn, ...], context: ComputeContext
) -> pl.DataFrame:
    """For each row its window: where it lies within the line, and what polars computes of it exactly."""
    ends_at = window.offset.us if window.offset else 0
    exact = [metric for metric in metrics if not polars_compiler.is_folded(metric, context)]
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
        *(polars_compiler.expression(metric, context) for metric in exact),
    )
    # Groups come in an order of polars' own, the rows within each in that of time.
    rolled = rolled.sort(ENTITY, maintain_order=True)
    assert rolled.select(ENTITY, TIME).equals(line.select(ENTITY, TIME)), "rows out of order"
    return rolled


def _folded(
    line: pl.DataFrame,
    rolled: pl.DataFrame,
    metrics: tuple[MetricColumn, ...],
    context: ComputeContext,
) -> list[pl.Series]:
    """What polars would not compute exactly; each column is summed once."""
    slices = Slices(rolled[_START], rolled[_LENGTH])
    made: list[pl.Series] = []
    for column in dict.fromkeys(metric.column for metric in metrics):
        own = [metric for metric in metrics if metric.column == column]
        folded = [metric for metric in own if polars_compiler.is_folded(metric, context)]
        values = line[value_alias(column)]
        scale = decimal_scale(context.dtypes[column])
        decimals = [metric.name for metric in own if scale and metric.aggregation == "sum"]
        if decimals:
            _check_decimals(sums(values, slices), scale or 0, decimals)
        total = None
        for metric in folded:
            count = rolled[_COUNT + column]
            if metric.aggregation == "std":
                squares = moments(values, slices).squares
                value = (squares / (count.cast(pl.Float64) - 1)).sqrt().set(count < 2, None)
            else:
                total = sums(values, slices) if total is None else total
                value = total / count if metric.aggregation == "mean" else total
                value = value.clone().set(count == 0, None)
            made.append(value.alias(metric.name))
    return made


def _check_decimals(totals: pl.Series, scale: int, names: list[str]) -> None:
    """Polars wraps a decimal sum that does not fit; its size as a float tells."""
    greatest = totals.abs().max()
    if isinstance(greatest, float) and greatest >= 10.0 ** (38 - scale):
        raise overflow(names, f"Decimal(38, {scale})")
