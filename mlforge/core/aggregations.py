"""The registry of aggregations: one row tells all that is not an engine's own.

Names, dtypes, values of empty windows, errors and docs follow from it. A new aggregation is a row here, its
plain-Python fold, and a row in the table of each engine's compiler.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from functools import lru_cache
from typing import Any

from mlforge.core import plain_folds
from mlforge.core.plain_folds import Fold, of_values
from mlforge.core.schema import DIGITS, FLOATS, INSTANT, INTEGERS, decimal_scale, list_of
from mlforge.errors import DataError, DefinitionError

MOST_LISTED = 1_000
"""The greatest K of first_K, last_K and top_K."""
_ORDERED = ("String", "Date", "Time", INSTANT)
_A_SLIP = 0.66  # of the letters are the same: one of three was mistyped


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

    name: of one with a parameter, ends in the parameter's letter: last_K. dtype: that of the result, given the event column's; None where the two do not go together. fold: the
        aggregation in plain Python. empty: the value of an empty window. ordered: whether the order of events
        matters, which is that of (time, value). parts: the columns of tiles from which it is computed; none
        where only events will do. parameter: the number in the name, if any. degree: the power of the values'
        unit that the result has, by which its rounding is judged. words: what other libraries call it.
    """

    name: str
    dtype: Callable[[str], str | None]
    fold: Fold
    empty: Any = None
    ordered: bool = False
    parts: tuple[str, ...] = ()
    parameter: Parameter | None = None
    degree: int = 1
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Aggregation:
    """An aggregation as a metric names it: a kind, and the kind's parameter in the name, if it has one."""

    name: str
    kind: Kind
    parameter: Any = None

    @property
    def most_values(self) -> int:
        """The most values that a result holds: one, or those of a list."""
        return int(self.parameter) if self.kind.empty == () else 1

    @property
    def empty(self) -> Any:
        """The value of an empty window; a list is the caller's own."""
        empty = self.kind.empty
        return list(empty) if isinstance(empty, tuple) else empty


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[1-9]\d{0,3}", text) and int(text) <= MOST_LISTED else None


def _share(text: str) -> Fraction | None:
    if text == "99_9":
        return Fraction(999, 1000)
    return Fraction(int(text), 100) if re.fullmatch(r"[1-9]\d?", text) else None


_K = Parameter(_whole, f"K is 1 to {MOST_LISTED}", ("3", "1"))
_N = Parameter(_share, "p1 to p99, and p99_9", ("90", "50", "99_9"))


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
        words=("minimum", "least", "smallest", "lowest"),
    ),
    Kind(
        "max",
        _own_if_ordered,
        of_values(max),
        parts=("max",),
        words=("maximum", "greatest", "largest", "highest"),
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
        words=("latest", "newest", "most_recent", "current", "last_value", "arg_max"),
    ),
    Kind(
        "first_time",
        _always(INSTANT),
        plain_folds.first_time,
        ordered=True,
        parts=("first_time",),
        words=("first_seen", "first_at", "min_time", "earliest_time"),
    ),
    Kind(
        "last_time",
        _always(INSTANT),
        plain_folds.last_time,
        ordered=True,
        parts=("last_time",),
        words=("last_seen", "last_at", "max_time", "latest_time", "recency"),
    ),
    Kind(
        "first_K",
        list_of,
        plain_folds.first_values,
        empty=(),
        ordered=True,
        parameter=_K,
        words=("first_n", "head", "firstk", "earliest_k", "oldest_k"),
    ),
    Kind(
        "last_K",
        list_of,
        plain_folds.last_values,
        empty=(),
        ordered=True,
        parameter=_K,
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
        words=(
            *("nunique", "n_unique", "unique", "uniq", "distinct", "unique_count", "n_distinct"),
            *("distinct_count", "approx_count_distinct", "approx_unique_count", "cardinality"),
        ),
    ),
    Kind(
        "pN",
        _float_of_numbers,
        plain_folds.percentile,
        parameter=_N,
        words=("percentile", "quantile", "percentile_cont", "quantile_cont"),
    ),
    Kind(
        "mode",
        _own_if_ordered,
        of_values(plain_folds.mode),
        words=("most_frequent", "most_common", "majority", "modal"),
    ),
    Kind(
        "top_K",
        _list_if_ordered,
        plain_folds.top,
        empty=(),
        parameter=_K,
        words=("topk", "top_n", "histogram", "value_counts"),
    ),
)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _KINDS}
"""The registry, by the names of kinds."""
AGGREGATIONS: tuple[str, ...] = tuple(
    name
    for kind in _KINDS
    for name in (
        [kind.name]
        if kind.parameter is None
        else [kind.name[:-1] + number for number in kind.parameter.examples]
    )
)
"""A name of every kind; of a kind with a parameter, some."""


@lru_cache(maxsize=4096)
def aggregation(name: str) -> Aggregation:
    """The aggregation of that name; DefinitionError for an unknown one, with the one that is meant."""
    known = _read(name)
    if known is not None:
        return known
    hint = _hint(name)
    raise DefinitionError(
        f"unknown aggregation {name!r}; {f'{hint} ' if hint else ''}there are {', '.join(KINDS)} "
        f"({_K.allowed}; pN is {_N.allowed})"
    )


def output_dtype(name: str, dtype: str, what: str) -> str:
    """The dtype of an aggregate, or DataError naming `what` where the two do not go together."""
    result = aggregation(name).kind.dtype(dtype)
    if result is not None:
        return result
    works = [kind.name for kind in _KINDS if kind.dtype(dtype) is not None]
    raise DataError(
        f"{what}: {name} of {dtype} is not possible; {', '.join(works)} would be, or a cast"
    )


def empty_value(name: str | None) -> Any:
    """The value of an empty window; None also for a column that is no metric."""
    return None if name is None else aggregation(name).empty


def _read(name: str) -> Aggregation | None:
    """The aggregation of exactly that name."""
    for kind in _KINDS:
        if kind.parameter is None:
            if name == kind.name:
                return Aggregation(name, kind)
        elif name.startswith(prefix := kind.name[:-1]):
            value = kind.parameter.read(name.removeprefix(prefix))
            if value is not None:
                return Aggregation(name, kind, value)
    return None


_SYNONYMS = {word: kind.name for kind in _KINDS for word in kind.words}
_PERCENT = re.compile(r"(?:p|q|pc|pct|perc|percentile|quantile)_?(\d+)(?:[._](\d+))?(?:th)?")
_NUMBERED = re.compile(r"(\w+?)_?(\d+)")


def _hint(name: str) -> str:
    """The aggregation that a name means, or the numbers that it may have; empty where none is near."""
    name = name.lower().strip()
    percent = _PERCENT.fullmatch(name)
    if percent is not None:
        return _meant(_as_percentile(percent[1], percent[2]), f"pN is {_N.allowed};")
    numbered = _NUMBERED.fullmatch(name)
    if numbered is not None:
        word = numbered[1]
        kind = _SYNONYMS.get(f"{word}_k") or _SYNONYMS.get(word) or f"{word}_K"
        kind = kind if kind.endswith("_K") else f"{kind}_K"
        if kind in KINDS:
            number = str(int(numbered[2]))
            return _meant(kind[:-1] + number, f"of {kind}, {_K.allowed};")
    near = get_close_matches(name, AGGREGATIONS, n=1, cutoff=_A_SLIP)
    lowered = {known.lower(): known for known in KINDS}
    word = lowered.get(name) or _SYNONYMS.get(name) or (near[0] if near else "")
    parameter = KINDS[word].parameter if word in KINDS else None
    return _meant(word if parameter is None else word[:-1] + parameter.examples[0], "")


def _as_percentile(whole: str, decimals: str | None) -> str:
    """The percentile that digits mean: 999 is 99.9, and 0.9 a share."""
    if whole in ("0", "1") and decimals:
        return f"p{int(decimals.ljust(2, '0')[:2])}" if whole == "0" else ""
    if (whole, decimals) in (("999", None), ("99", "9")):
        return "p99_9"
    return f"p{int(whole)}" if not decimals or not int(decimals) else ""


def _meant(name: str, otherwise: str) -> str:
    return f"did you mean {name!r}?" if _read(name) is not None else otherwise
