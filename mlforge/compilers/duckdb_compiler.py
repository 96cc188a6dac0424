"""Aggregates to SQL: one named window for each distinct one, over points and events together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mlforge.compilers.base import (
    ENTITY,
    ROW,
    TIME,
    Aggregate,
    ComputeContext,
    result_name,
    value_name,
)
from mlforge.core.schema import FLOATS, INTEGERS, decimal_scale
from mlforge.core.time_model import Window

AGGREGATES = {
    "count": "count({})",
    "sum": "sum({})",
    "mean": "avg({})",
    "min": "min({})",
    "max": "max({})",
    "std": "stddev_samp({})",
    "var": "var_samp({})",
    "median": "median({})",
    "pN": "quantile_cont({}, {})",
}
"""By the kind of aggregation: the operand's place, then the parameter's. Other kinds are folds of slices."""
LIST_AGGREGATES = {
    "count": "len({})",
    "sum": "list_sum({})",
    "mean": "list_avg({})",
    "min": "list_min({})",
    "max": "list_max({})",
    "std": "list_stddev_samp({})",
    "var": "list_var_samp({})",
    "median": "list_median({})",
    "pN": "list_aggregate({}, 'quantile_cont', {})",
}
"""Aggregates of a window whose values are a list."""
_AS_DOUBLE = ("mean", "std", "var", "median", "pN")


def quote(identifier: str) -> str:
    """An SQL identifier, whatever it holds."""
    return '"' + identifier.replace('"', '""') + '"'


def operand(aggregate: Aggregate, dtype: str) -> str:
    """The aggregated column, cast to what makes the result's dtype the same on every engine."""
    column, name = quote(value_name(aggregate.value)), aggregate.aggregation.kind.name
    if dtype == "Float64":
        return column
    scale = decimal_scale(dtype)
    if name in _AS_DOUBLE or (name == "sum" and dtype in FLOATS):
        return f"{column}::DOUBLE"
    if name == "sum" and scale is not None:
        return f"{column}::DECIMAL(38, {scale})"
    if name == "sum" and (dtype in INTEGERS or dtype == "Boolean"):
        return f"{column}::HUGEINT"
    return column


def frame(name: str, window: Window) -> str:
    """A named window whose RANGE is the window's span in microseconds: two numbers, or two columns of the relation."""
    span, varies = window.span(0), window.width is None
    bounds = map(quote, range_names(name)) if varies else (-span.start, -span.end)
    first, last = (f"{bound} PRECEDING" for bound in bounds)
    return (
        f"{name} AS (PARTITION BY {quote(ENTITY)} ORDER BY {quote(TIME)} "
        f"RANGE BETWEEN {first} AND {last})"
    )


def range_names(name: str) -> tuple[str, str]:
    """The columns of a window's range at a row: its greatest and its least distance back, in microseconds."""
    return f"__{name}_most", f"__{name}_least"


def varying(context: ComputeContext) -> dict[Window, tuple[str, str]]:
    """The windows whose range depends on the row, and the columns of the relation that `select` takes for each."""
    names = _window_names(context)
    return {w: range_names(name) for w, name in names.items() if w.width is None}


def select(context: ComputeContext, relation: str) -> str:
    """The statement that evaluates every aggregate at every numbered row of a relation of events and points.

    The relation has the columns entity, time, row (null where no value is asked for) and the values.
    """
    names = _window_names(context)
    columns = [
        f"{_call(AGGREGATES, aggregate, _operand(aggregate, context))} "
        f"OVER {names[aggregate.window]} AS {quote(result_name(index))}"
        for index, aggregate in enumerate(context.aggregates)
    ]
    return f"SELECT * FROM (\n{_over(columns, names, relation)}\n)\nWHERE {quote(ROW)} IS NOT NULL"


def select_by_lists(context: ComputeContext, relation: str) -> str:
    """The statement of `select` by way of lists: a list for each window and operand gives all its aggregates.

    Far cheaper than an aggregate each while windows hold few rows.
    """
    names = _window_names(context)
    lists: dict[tuple[Window, str, str], str] = {}
    columns = []
    for index, aggregate in enumerate(context.aggregates):
        column = quote(value_name(aggregate.value))
        key = (aggregate.window, _operand(aggregate, context), column)
        values = lists.setdefault(key, quote(f"__list{len(lists)}"))
        result = _call(LIST_AGGREGATES, aggregate, values)
        columns.append(f"{result} AS {quote(result_name(index))}")
    gathered = [
        f"list({operand}) FILTER ({column} IS NOT NULL) OVER {names[window]} AS {values}"
        for (window, operand, column), values in lists.items()
    ]
    return (
        f"SELECT\n  {_lines([quote(ROW), *columns])}\n"
        f"FROM (\n{_over(gathered, names, relation)}\n)\nWHERE {quote(ROW)} IS NOT NULL"
    )


PLACE = "__place"
"""The position of a row in the relation, from 0."""


def bound_names(context: ComputeContext) -> dict[Window, tuple[str, str]]:
    """The columns of `select_at_points` that hold each window's first place, and the place behind its last."""
    return {w: (f"__{name}_start", f"__{name}_end") for w, name in _window_names(context).items()}


def select_at_points(context: ComputeContext, relation: str, points: str) -> str:
    """The statement of `select` where points are few: it looks up each window's rows by their places and reads no others.

    The relation has PLACE and the values; the points have their rows' numbers and the columns of `bound_names`.
    """
    bounds = {window: tuple(map(quote, names)) for window, names in bound_names(context).items()}
    row, place, number = quote(ROW), quote(PLACE), "number"
    joined = []
    for name, (window, aggregates) in enumerate(context.by_window().items()):
        start, end = bounds[window]
        columns = [
            f"{_call(AGGREGATES, a, _operand(a, context))} AS {quote(result_name(index))}"
            for index, a in aggregates.items()
        ]
        joined.append(
            f"LEFT JOIN (\nSELECT\n  {_lines([number, *columns])}\n"
            f"FROM (SELECT {row} AS {number}, unnest(range({start}, {end})) AS place FROM {quote(points)})\n"
            f"JOIN {quote(relation)} ON {place} = place\nGROUP BY {number}\n"
            f") AS w{name} ON w{name}.{number} = {quote(points)}.{row}"
        )
    results = [quote(result_name(index)) for index in range(len(context.aggregates))]
    return (
        f"SELECT\n  {_lines([f'{quote(points)}.{row}', *results])}\n"
        f"FROM {quote(points)}\n" + "\n".join(joined)
    )


def rows_seen(context: ComputeContext, relation: str) -> str:
    """The statement that counts the rows which the widest window sees, over all of the relation's rows."""
    names = _window_names(context)
    widest = max(names, key=lambda window: window.longest)
    counted = _over([f"count(*) OVER {names[widest]} AS seen"], {widest: names[widest]}, relation)
    return f"SELECT coalesce(sum(seen), 0)::BIGINT AS seen FROM (\n{counted}\n)"


def _window_names(context: ComputeContext) -> dict[Window, str]:
    return {window: f"w{index}" for index, window in enumerate(context.by_window())}


def _call(table: Mapping[str, str], aggregate: Aggregate, operand: str) -> str:
    """The aggregate of an operand in SQL."""
    parameter = aggregate.aggregation.parameter
    number = None if parameter is None else float(parameter)
    return table[aggregate.aggregation.kind.name].format(operand, number)


def _operand(aggregate: Aggregate, context: ComputeContext) -> str:
    return operand(aggregate, context.dtypes[aggregate.value])


def _over(columns: Iterable[str], names: Mapping[Window, str], relation: str) -> str:
    """The columns, each over its own or a shared window, beside the row's number."""
    frames = [frame(name, window) for window, name in names.items()]
    return (
        f"SELECT\n  {_lines([quote(ROW), *columns])}\nFROM {quote(relation)}\n"
        f"WINDOW\n  {_lines(frames)}"
    )


def _lines(items: Iterable[str]) -> str:
    return ",\n  ".join(items)
