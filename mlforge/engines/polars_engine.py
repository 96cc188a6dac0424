"""The kernel on polars: one rolling pass a window, and folds where rolling would not be exact."""

from __future__ import annotations

from typing import ClassVar

import polars as pl

from mlforge.compilers import polars_compiler
from mlforge.compilers.base import ENTITY, TIME, ComputeContext, value_alias
from mlforge.engines.base import Engine, overflow
from mlforge.engines.folds import Slices, moments, sums
from mlforge.metrics import MetricColumn
from mlforge.schema import decimal_scale
from mlforge.timemodel import Window

_INDEX, _START, _LENGTH, _COUNT = "__index", "__start", "__length", "__count_"


class PolarsEngine(Engine):
    """In memory, on all cores; the default."""

    name: ClassVar[str] = "polars"

    def aggregate(
        self, events: pl.LazyFrame, points: pl.DataFrame, context: ComputeContext
    ) -> pl.DataFrame:
        """Roll over events and points together; a point's window is that of its time."""
        both = pl.concat([events.collect(), points], how="diagonal")
        both = both.sort(ENTITY, TIME).with_row_index(_INDEX)
        at = points
        for window, metrics in context.by_window().items():
            # All rows of one entity and instant see the same window, so any one of them answers.
            rolled = _rolled(both, window, metrics, context).unique([ENTITY, TIME], keep="any")
            found = at.lazy().join(rolled, on=[ENTITY, TIME], how="left").collect()
            folded = _folded(both, found, metrics, context)
            at = found.select(pl.exclude("^__(start|length|count_.*)$")).with_columns(folded)
        return at.drop(ENTITY, TIME)


def _rolled(
    both: pl.DataFrame, window: Window, metrics: tuple[MetricColumn, ...], context: ComputeContext
) -> pl.LazyFrame:
    """Each row's window: where it lies within `both`, and what polars computes of it exactly."""
    ends_at = window.offset.us if window.offset else 0
    exact = [metric for metric in metrics if not polars_compiler.is_folded(metric, context)]
    counted = dict.fromkeys(metric.column for metric in metrics if metric not in exact)
    return (
        both.lazy()
        .rolling(
            TIME,
            period=f"{window.width.us}i",
            offset=f"-{window.width.us + ends_at}i",
            closed=window.closed,
            group_by=ENTITY,
        )
        .agg(
            pl.col(_INDEX).first().fill_null(0).cast(pl.Int64).alias(_START),
            pl.len().cast(pl.Int64).alias(_LENGTH),
            *(pl.col(value_alias(column)).count().alias(_COUNT + column) for column in counted),
            *(polars_compiler.expression(metric, context) for metric in exact),
        )
    )


def _folded(
    both: pl.DataFrame,
    found: pl.DataFrame,
    metrics: tuple[MetricColumn, ...],
    context: ComputeContext,
) -> list[pl.Series]:
    """What polars would not compute exactly; each column is summed once."""
    slices = Slices(found[_START], found[_LENGTH])
    made: list[pl.Series] = []
    for column in dict.fromkeys(metric.column for metric in metrics):
        own = [metric for metric in metrics if metric.column == column]
        folded = [metric for metric in own if polars_compiler.is_folded(metric, context)]
        values = both[value_alias(column)]
        scale = decimal_scale(context.dtypes[column])
        decimals = [metric.name for metric in own if scale and metric.aggregation == "sum"]
        if decimals:
            _check_decimals(sums(values, slices), scale or 0, decimals)
        total = None
        for metric in folded:
            count = found[_COUNT + column]
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
