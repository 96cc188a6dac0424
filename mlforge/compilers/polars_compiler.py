"""Aggregates to polars: an expression where polars' own rolling aggregation is exact."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from mlforge.compilers.base import Aggregate, value_name

AGGREGATES: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "count": lambda values: values.count().cast(pl.Int64),
    "min": pl.Expr.min,
    "max": pl.Expr.max,
    "median": lambda values: values.cast(pl.Float64).median(),
}
SUMMED = ("sum", "mean", "std")
"""Polars' sliding sums add and subtract: they would keep traces of floats that have left the window."""


def expression(aggregate: Aggregate) -> pl.Expr:
    """The aggregate of one window's events."""
    return AGGREGATES[aggregate.aggregation.kind.name](pl.col(value_name(aggregate.value)))
