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

_INDEX, _START, _LENGTH = "__index", "__start", "__length"


class PolarsEngine(Engine):
    """In memory, on all cores; the default."""

    name: ClassVar[str] = "polars"

    def aggregate(
        self, events: pl.LazyFrame, points: pl.DataFrame, context: ComputeContext
    ) -> pl.DataFrame:
        """Roll over events and points together; a point's window is that of its time."""
        both = (
            pl.concat([events.collect(), points], how="diagonal")
            .sort(ENTITY, TIME)
            .with_row_index(_INDEX)
        )
        at = points
        for window, metrics in context.by_window().items():
            rolled = _rolled(
                both,
                window,
                [m for m in metrics if not polars_compiler.is_folded(m, context)],
                context,
            )
            # All rows of one entity and instant see the same window, so any one of them answers.
            found = (
                at.lazy()
                .join(rolled.unique([ENTITY, TIME], keep="any"), on=[ENTITY, TIME], how="left")
                .collect()
            )
            at = found.drop(_START, _LENGTH).with_columns(
                *_folded(both, Slices(found[_START], found[_LENGTH]), metrics, context)
            )
        return at.drop(ENTITY, TIME)


def _rolled(
    both: pl.DataFrame, window: Window, metrics: list[MetricColumn], context: ComputeContext
) -> pl.LazyFrame:
    """Each row's window: where it lies within `both`, and what polars computes of it exactly."""
    ends_at = window.offset.us if window.offset else 0
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
            *(polars_compiler.expression(metric, context) for metric in metrics),
        )
    )


def _folded(
    both: pl.DataFrame, slices: Slices, metrics: tuple[MetricColumn, ...], context: ComputeContext
) -> list[pl.Series]:
    """The aggregates of floats, each column's moments or sums computed once."""
    made: list[pl.Series] = []
    for column in dict.fromkeys(metric.column for metric in metrics):
        wanted = [
            m for m in metrics if m.column == column and polars_compiler.is_folded(m, context)
        ]
        values = both[value_alias(column)]
        scale = decimal_scale(context.dtypes[column])
        summed = [m.name for m in metrics if m.column == column and m.aggregation == "sum"]
        if scale is not None and summed:
            _check_decimals(sums(values, slices), scale, summed)
        if not wanted:
            continue
        found = moments(values, slices)
        results = {
            "sum": sums(values, slices).set(found.count == 0, None),
            "mean": found.mean.set(found.count == 0, None),
            "std": (found.squares / (found.count - 1)).sqrt().set(found.count < 2, None),
        }
        made += [results[metric.aggregation].alias(metric.name) for metric in wanted]
    return made


def _check_decimals(totals: pl.Series, scale: int, names: list[str]) -> None:
    """Polars wraps a decimal sum that does not fit; its size as a float tells."""
    greatest = totals.abs().max()
    if isinstance(greatest, float) and greatest >= 10.0 ** (38 - scale):
        raise overflow(names, f"Decimal(38, {scale})")
