"""Metrics to polars: an expression where polars' own rolling aggregation is exact, else a fold."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from mlforge.compilers.base import ComputeContext, value_alias
from mlforge.metrics import MetricColumn
from mlforge.schema import FLOATS, decimal_scale


def _sum(values: pl.Expr, dtype: str) -> pl.Expr:
    # Integers add up in 128 bits, so that a sum beyond 64 is seen rather than wrapped.
    scale = decimal_scale(dtype)
    total = values.cast(pl.Decimal(38, scale) if scale is not None else pl.Int128()).sum()
    return pl.when(values.count() > 0).then(total)


def _mean(values: pl.Expr, dtype: str) -> pl.Expr:
    return _sum(values, dtype).cast(pl.Float64) / values.count()


AGGREGATES: dict[str, Callable[[pl.Expr, str], pl.Expr]] = {
    "count": lambda values, _: values.count().cast(pl.Int64),
    "sum": _sum,
    "mean": _mean,
    "min": lambda values, _: values.min(),
    "max": lambda values, _: values.max(),
    "median": lambda values, _: values.cast(pl.Float64).median(),
}


def is_folded(metric: MetricColumn, context: ComputeContext) -> bool:
    """Whether polars' sliding sum would keep traces of values that have left the window.

    It adds and subtracts: exact for integers, which decimals are within, but not for floats.
    """
    inexact = context.dtypes[metric.column] in FLOATS and metric.aggregation in ("sum", "mean")
    return inexact or metric.aggregation == "std"


def expression(metric: MetricColumn, context: ComputeContext) -> pl.Expr:
    """The aggregate of one window's events, named as the metric's column."""
    dtype = context.dtypes[metric.column]
    values = pl.col(value_alias(metric.column))
    return AGGREGATES[metric.aggregation](values, dtype).alias(metric.name)
