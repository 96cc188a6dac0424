"""Aggregates to polars: an expression where polars' own rolling aggregation is exact."""

from __future__ import annotations

from collections.abc import Callable, Collection
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
BETWEEN_RANKS = ("median", "pN")
"""Polars takes the difference of two values, which may be more than a float holds."""
SUMMED = ("sum", "mean", "std", "var")
"""Polars' sliding sums add and subtract: they would keep traces of floats that have left the window."""


def expression(aggregate: Aggregate, wide: Collection[int] = ()) -> pl.Expr:
    """The aggregate of one window's events. wide: value columns in which two values differ by more than a float holds."""
    aggregation, values = aggregate.aggregation, pl.col(value_name(aggregate.value))
    compiled, parameter = AGGREGATES[aggregation.kind.name], aggregation.parameter
    if aggregation.kind.name in BETWEEN_RANKS and aggregate.value in wide:
        whole = compiled(values, parameter)  # halves lose the last bit of the least floats
        return pl.when(whole.is_finite()).then(whole).otherwise(compiled(values / 2, parameter) * 2)
    return compiled(values, parameter)


def is_rolled(aggregate: Aggregate) -> bool:
    """Whether the aggregate is an expression over each window, not a sum or a fold of slices."""
    return aggregate.aggregation.kind.name in AGGREGATES
