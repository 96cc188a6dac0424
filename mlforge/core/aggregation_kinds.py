"""The registry of aggregations: one row tells all that is not an engine's own.

Names, dtypes, values of empty windows, errors and docs follow from it. A new aggregation is a row here, its
plain-Python fold, and a row in the table of each engine's compiler.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mlforge.core import plain_folds
from mlforge.core.plain_folds import Fold, of_values
from mlforge.core.schema import DIGITS, FLOATS, INSTANT, INTEGERS, decimal_scale, list_of

MOST_LISTED = 1_000
"""The greatest K of first_K, last_K and top_K."""
_ORDERED = ("String", "Date", "Time", INSTANT)


@dataclass(frozen=True, slots=True)
class Parameter:
    """The number that ends the name of some aggregations.

    read: the number's value; None where it is out of range or not written so. allowed: the range, for people.
    examples: numbers that tests and docs use.
    """

    read: Callable[[str], Any]
    allowed: str
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of the registry.

    name: of one with a parameter, ends in the parameter's letter: last_K. dtype: that of the result, given the
        event column's; None where the two do not go together. fold: the aggregation in plain Python. empty: the
        value of an empty window. ordered: whether the order of events matters, which is that of (time, value).
        parts: the columns of tiles from which it is computed; none where only values will do. kept: which of an entity's older
        values suffice beside the newer ones: the distinct ones ("distinct"), with their numbers ("counts"), those around a
        rank ("ranks"), the first and the last ("ends"). parameter: the number in the name, if any. degree: the power of the values' unit that the result has, by which its rounding
        is judged. instant: whether the result is an event's instant, which moves on as time does. words: what other libraries call it.
    """

    name: str
    dtype: Callable[[str], str | None]
    fold: Fold
    empty: Any = None
    ordered: bool = False
    parts: tuple[str, ...] = ()
    kept: str = ""
    parameter: Parameter | None = None
    degree: int = 1
    instant: bool = False
    words: tuple[str, ...] = ()


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch("[1-9][0-9]{0,3}", text) and int(text) <= MOST_LISTED else None


def _share(text: str) -> Fraction | None:
    if text == "99_9":
        return Fraction(999, 1000)
    return Fraction(int(text), 100) if re.fullmatch("[1-9][0-9]?", text) else None


K = Parameter(_whole, f"K is 1 to {MOST_LISTED}", ("3", "1"))
N = Parameter(_share, "p1 to p99, and p99_9", ("90", "50", "99_9"))


def _always(dtype: str) -> Callable[[str], str | None]:
    return lambda _: dtype


def _is_number(dtype: str) -> bool:
    return dtype in INTEGERS or dtype in FLOATS or dtype == "Boolean"


def _of_sums(dtype: str) -> str | None:
    scale = decimal_scale(dtype)
    if scale is not None:
        return f"Decimal({DIGITS}, {scale})"
    if not _is_number(dtype):
        return None
    return "Float64" if dtype in FLOATS else "Int64"


def _float_of_numbers(dtype: str) -> str | None:
    return "Float64" if _is_number(dtype) or decimal_scale(dtype) is not None else None


def _own(dtype: str) -> str | None:
    return dtype


def _counted_apart(dtype: str) -> str | None:
    return "Int64" if _own_if_ordered(dtype) else None


def _list_if_ordered(dtype: str) -> str | None:
    return list_of(dtype) if _own_if_ordered(dtype) else None


def _own_if_ordered(dtype: str) -> str | None:
    ordered = _is_number(dtype) or decimal_scale(dtype) is not None or dtype in _ORDERED
    return dtype if ordered else None


_KINDS = (
    Kind(
        "count",
        _always("Int64"),
        of_values(len),
        empty=0,
        parts=("count",),
        words=("size", "len", "length", "n", "number", "num"),
    ),
    Kind(
        "sum",
        _of_sums,
        of_values(plain_folds.total),
        parts=("count", "sum"),
        words=("total", "add"),
    ),
    Kind(
        "mean",
        _float_of_numbers,
        of_values(plain_folds.mean),
        parts=("count", "sum"),
        words=("avg", "average"),
    ),
    Kind(
        "min",
        _own_if_ordered,
        of_values(min),
        parts=("min",),
        words=("minimum", "least", "smallest", "lowest", "bool_and"),
    ),
    Kind(
        "max",
        _own_if_ordered,
        of_values(max),
        parts=("max",),
        words=("maximum", "greatest", "largest", "highest", "bool_or"),
    ),
    Kind(
        "std",
        _float_of_numbers,
        of_values(plain_folds.std),
        parts=("count", "sum", "spread"),
        words=("stddev", "stdev", "stddev_samp", "sd", "sigma"),
    ),
    Kind(
        "median",
        _float_of_numbers,
        lambda events, _: plain_folds.percentile(events, Fraction(1, 2)),
        kept="ranks",
        words=("med",),
    ),
    Kind(
        "var",
        _float_of_numbers,
        of_values(plain_folds.variance),
        parts=("count", "sum", "spread"),
        degree=2,
        words=("variance", "var_samp", "sample_variance"),
    ),
    Kind(
        "first",
        _own,
        plain_folds.first,
        ordered=True,
        parts=("first", "first_time"),
        words=("earliest", "oldest", "initial", "first_value", "arg_min"),
    ),
    Kind(
        "last",
        _own,
        plain_folds.last,
        ordered=True,
        parts=("last", "last_time"),
        words=("latest", "newest", "most_recent", "recent", "current", "last_value", "arg_max"),
    ),
    Kind(
        "first_time",
        _always(INSTANT),
        plain_folds.first_time,
        ordered=True,
        parts=("first_time",),
        instant=True,
        words=("first_seen", "first_at", "min_time", "earliest_time"),
    ),
    Kind(
        "last_time",
        _always(INSTANT),
        plain_folds.last_time,
        ordered=True,
        parts=("last_time",),
        instant=True,
        words=("last_seen", "last_at", "max_time", "latest_time", "recency"),
    ),
    Kind(
        "first_K",
        list_of,
        plain_folds.first_values,
        empty=(),
        ordered=True,
        kept="ends",
        parameter=K,
        words=("first_n", "head", "firstk", "earliest_k", "oldest_k"),
    ),
    Kind(
        "last_K",
        list_of,
        plain_folds.last_values,
        empty=(),
        ordered=True,
        kept="ends",
        parameter=K,
        words=(
            "last_n",
            "tail",
            "lastk",
            "latest_k",
            "newest_k",
            "list",
            "collect_list",
            "array_agg",
        ),
    ),
    Kind(
        "count_distinct",
        _counted_apart,
        of_values(plain_folds.distinct),
        empty=0,
        kept="distinct",
        words=(
            *("nunique", "n_unique", "unique", "uniq", "distinct", "unique_count", "n_distinct"),
            *("distinct_count", "approx_count_distinct", "approx_unique_count", "cardinality"),
        ),
    ),
    Kind(
        "pN",
        _float_of_numbers,
        plain_folds.percentile,
        kept="ranks",
        parameter=N,
        words=("percentile", "quantile", "percentile_cont", "quantile_cont"),
    ),
    Kind(
        "mode",
        _own_if_ordered,
        of_values(plain_folds.mode),
        kept="counts",
        words=("most_frequent", "most_common", "majority", "modal"),
    ),
    Kind(
        "top_K",
        _list_if_ordered,
        plain_folds.top,
        empty=(),
        kept="counts",
        parameter=K,
        words=("topk", "top_n", "histogram", "hist", "value_counts"),
    ),
)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _KINDS}
"""The registry, by the names of kinds."""
