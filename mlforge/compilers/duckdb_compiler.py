"""Metrics to SQL: one named window for each distinct one, over points and events together."""

from __future__ import annotations

from mlforge.compilers.base import ENTITY, ROW, TIME, ComputeContext, value_alias
from mlforge.metrics import MetricColumn
from mlforge.schema import FLOATS, INTEGERS, decimal_scale
from mlforge.timemodel import Window

AGGREGATES = {
    "count": "count({})",
    "sum": "sum({})",
    "mean": "avg({})",
    "min": "min({})",
    "max": "max({})",
    "std": "stddev_samp({})",
    "median": "median({})",
}
_AS_DOUBLE = ("mean", "std", "median")


def quote(identifier: str) -> str:
    """An SQL identifier, whatever it holds."""
    return '"' + identifier.replace('"', '""') + '"'


def operand(metric: MetricColumn, dtype: str) -> str:
    """The aggregated column, cast to what makes the result's dtype the same on every engine."""
    column = quote(value_alias(metric.column))
    scale = decimal_scale(dtype)
    if metric.aggregation in _AS_DOUBLE or (metric.aggregation == "sum" and dtype in FLOATS):
        return f"{column}::DOUBLE"
    if metric.aggregation == "sum" and scale is not None:
        return f"{column}::DECIMAL(38, {scale})"
    if metric.aggregation == "sum" and (dtype in INTEGERS or dtype == "Boolean"):
        return f"{column}::HUGEINT"
    return column


def expression(metric: MetricColumn, context: ComputeContext, window: str) -> str:
    """`sum("amount"::DOUBLE) OVER w0 AS "amount__sum__7d"`."""
    aggregate = AGGREGATES[metric.aggregation].format(
        operand(metric, context.dtypes[metric.column])
    )
    return f"{aggregate} OVER {window} AS {quote(metric.name)}"


def frame(name: str, window: Window) -> str:
    """A named window whose RANGE is the window's span in microseconds."""
    span = window.span
    return (
        f"{name} AS (PARTITION BY {quote(ENTITY)} ORDER BY {quote(TIME)} "
        f"RANGE BETWEEN {-span.start} PRECEDING AND {-span.end} PRECEDING)"
    )


def select(context: ComputeContext, relation: str) -> str:
    """The statement that evaluates every metric at every numbered row of a relation of events and points.

    The relation has the columns entity, time, row (null where nothing is asked) and the values.
    """
    grouped = context.by_window()
    names = {window: f"w{index}" for index, window in enumerate(grouped)}
    columns = [expression(metric, context, names[metric.window]) for metric in context.metrics]
    frames = [frame(names[window], window) for window in grouped]
    listed = ",\n  ".join([quote(ROW), *columns])
    return (
        f"SELECT * FROM (\nSELECT\n  {listed}\nFROM {quote(relation)}\nWINDOW\n  "
        + ",\n  ".join(frames)
        + f"\n)\nWHERE {quote(ROW)} IS NOT NULL"
    )
