"""Aggregates to polars: an expression where polars' own rolling aggregation is exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl

from mlforge.compilers.base import Aggregate, value_name

AGGREGATES: dict[str, Callable[[pl.Expr, Any], pl.Expr]] = {
    "count": lambda values, _: values.count().cast(pl.Int64),
    "min": lambda values, _: values.min(),
    "max": lambda values, _: values.max(),
    "median": lambda values, _: values.cast(pl.Float64).median(),
    "pN": lambda values, share: values.cast(pl.Float64).quantile(float(share), "linear"),
}
"""By the kind of aggregation, from a window's values and the aggregation's parameter."""
SUMMED = ("sum", "mean", "std", "var")
"""Polars' sliding sums add and subtract: they would keep traces of floats that have left the window."""


def expression(aggregate: Aggregate) -> pl.Expr:
    """The aggregate of one window's events."""
    aggregation = aggregate.aggregation
    return AGGREGATES[aggregation.kind.name](
        pl.col(value_name(aggregate.value)), aggregation.parameter
    )


def is_rolled(aggregate: Aggregate) -> bool:
    """Whether the aggregate is an expression over each window, not a sum or a fold of slices."""
    return aggregate.aggregation.kind.name in AGGREGATES
