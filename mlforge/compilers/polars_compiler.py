"""Metrics to polars: an expression where polars' own rolling aggregation is exact."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from mlforge.compilers.base import value_alias
from mlforge.core.metrics import MetricColumn

AGGREGATES: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "count": lambda values: values.count().cast(pl.Int64),
    "min": pl.Expr.min,
    "max": pl.Expr.max,
    "median": lambda values: values.cast(pl.Float64).median(),
}
SUMMED = ("sum", "mean", "std")
"""Polars' sliding sums add and subtract: they would keep traces of floats that have left the window."""


def expression(metric: MetricColumn) -> pl.Expr:
    """The aggregate of one window's events, named as the metric's column."""
    return AGGREGATES[metric.aggregation](pl.col(value_alias(metric.column))).alias(metric.name)
