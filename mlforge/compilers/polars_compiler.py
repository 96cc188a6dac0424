"""Metrics to polars expressions."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from mlforge.compilers.base import ComputeContext, value_alias
from mlforge.metrics import MetricColumn
from mlforge.schema import FLOATS, decimal_scale


def _sum(values: pl.Expr, dtype: str) -> pl.Expr:
    # Integers add up in 128 bits, so that a sum beyond 64 is seen rather than wrapped.
    wide = pl.Float64() if dtype in FLOATS else pl.Int128()
    scale = decimal_scale(dtype)
    total = values.cast(pl.Decimal(38, scale) if scale is not None else wide).sum()
    return pl.when(values.count() > 0).then(total)


AGGREGATES: dict[str, Callable[[pl.Expr, str], pl.Expr]] = {
    "count": lambda values, _: values.count().cast(pl.Int64),
    "sum": _sum,
    "mean": lambda values, _: values.cast(pl.Float64).mean(),
    "min": lambda values, _: values.min(),
    "max": lambda values, _: values.max(),
    "std": lambda values, _: values.cast(pl.Float64).std(ddof=1),
    "median": lambda values, _: values.cast(pl.Float64).median(),
}


def expression(metric: MetricColumn, context: ComputeContext) -> pl.Expr:
    """The aggregate of one window's events, named as the metric's column."""
    dtype = context.dtypes[metric.column]
    return AGGREGATES[metric.aggregation](pl.col(value_alias(metric.column)), dtype).alias(
        metric.name
    )
