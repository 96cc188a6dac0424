"""Metrics to SQL: one named window for each distinct one, over points and events together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mlforge.compilers.base import ENTITY, ROW, TIME, ComputeContext, value_alias
from mlforge.core.metrics import MetricColumn
from mlforge.core.schema import FLOATS, INTEGERS, decimal_scale
from mlforge.core.time_model import Window

AGGREGATES = {
    "count": "count({})",
    "sum": "sum({})",
    "mean": "avg({})",
    "min": "min({})",
    "max": "max({})",
    "std": "stddev_samp({})",
    "median": "median({})",
}
LISTED = {
    "count": "len({})",
    "sum": "list_sum({})",
    "mean": "list_avg({})",
    "min": "list_min({})",
    "max": "list_max({})",
    "std": "list_stddev_samp({})",
    "median": "list_median({})",
}
"""The same of a list of a window's values."""
_AS_DOUBLE = ("mean", "std", "median")


def quote(identifier: str) -> str:
    """An SQL identifier, whatever it holds."""
    return '"' + identifier.replace('"', '""') + '"'


def operand(metric: MetricColumn, dtype: str) -> str:
    """The aggregated column, cast to what makes the result's dtype the same on every engine."""
    column = quote(value_alias(metric.column))
    if dtype == "Float64":
        return column
    scale = decimal_scale(dtype)
    if metric.aggregation in _AS_DOUBLE or (metric.aggregation == "sum" and dtype in FLOATS):
        return f"{column}::DOUBLE"
    if metric.aggregation == "sum" and scale is not None:
        return f"{column}::DECIMAL(38, {scale})"
    if metric.aggregation == "sum" and (dtype in INTEGERS or dtype == "Boolean"):
        return f"{column}::HUGEINT"
    return column


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
    names = _names(context)
    columns = [
        f"{AGGREGATES[metric.aggregation].format(_operand(metric, context))} "
        f"OVER {names[metric.window]} AS {quote(metric.name)}"
        for metric in context.metrics
    ]
    return f"SELECT * FROM (\n{_over(columns, names, relation)}\n)\nWHERE {quote(ROW)} IS NOT NULL"


def select_listed(context: ComputeContext, relation: str) -> str:
    """The same by way of lists: one for each window and operand, of which all metrics are made.

    Far cheaper than an aggregate each while windows hold few rows.
    """
    names = _names(context)
    lists: dict[tuple[Window, str, str], str] = {}
    columns = []
    for metric in context.metrics:
        key = (metric.window, _operand(metric, context), quote(value_alias(metric.column)))
        made = lists.setdefault(key, quote(f"__list{len(lists)}"))
        columns.append(f"{LISTED[metric.aggregation].format(made)} AS {quote(metric.name)}")
    gathered = [
        f"list({operand}) FILTER ({column} IS NOT NULL) OVER {names[window]} AS {made}"
        for (window, operand, column), made in lists.items()
    ]
    return (
        f"SELECT\n  {_lines([quote(ROW), *columns])}\n"
        f"FROM (\n{_over(gathered, names, relation)}\n)\nWHERE {quote(ROW)} IS NOT NULL"
    )


def rows_seen(context: ComputeContext, relation: str) -> str:
    """The statement that tells how many rows the widest window sees in all of the relation's rows."""
    widest = max(context.by_window(), key=lambda window: window.width.us)
    counted = _over(["count(*) OVER w0 AS seen"], {widest: "w0"}, relation)
    return f"SELECT coalesce(sum(seen), 0)::BIGINT AS seen FROM (\n{counted}\n)"


def _names(context: ComputeContext) -> dict[Window, str]:
    return {window: f"w{index}" for index, window in enumerate(context.by_window())}


def _operand(metric: MetricColumn, context: ComputeContext) -> str:
    return operand(metric, context.dtypes[metric.column])


def _over(columns: Iterable[str], names: Mapping[Window, str], relation: str) -> str:
    """The columns, each over a window of its own or a shared one, beside the row's number."""
    frames = [frame(name, window) for window, name in names.items()]
    return (
        f"SELECT\n  {_lines([quote(ROW), *columns])}\nFROM {quote(relation)}\n"
        f"WINDOW\n  {_lines(frames)}"
    )


def _lines(items: Iterable[str]) -> str:
    return ",\n  ".join(items)
