"""The registry of aggregations: one row tells all that is not an engine's own.

Names, dtypes, values of empty windows, errors and docs follow from it. A new aggregation is a row here, its
plain-Python fold, and a row in the table of each engine's compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from mlforge.core import plain_folds
from mlforge.core.plain_folds import Fold, of_values
from mlforge.core.schema import DIGITS, FLOATS, INSTANT, INTEGERS, decimal_scale
from mlforge.errors import DataError, DefinitionError

_ORDERED = ("String", "Date", "Time", INSTANT)
_A_SLIP = 0.66  # of the letters are the same: one of three was mistyped


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of the registry.

    dtype: that of the result, given the event column's; None where the two do not go together. fold: the
        aggregation in plain Python. empty: the value of an empty window. ordered: whether the order of events
        matters, which is that of (time, value). parts: the columns of tiles from which it is computed; none
        where only events will do. words: what other libraries call it.
    """

    name: str
    dtype: Callable[[str], str | None]
    fold: Fold
    empty: Any = None
    ordered: bool = False
    parts: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Aggregation:
    """An aggregation as a metric names it: a kind, and the kind's parameter in the name, if it has one."""

    name: str
    kind: Kind
    parameter: Any = None


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
        of_values(plain_folds.median),
        words=("med", "p50", "q50"),
    ),
)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _KINDS}
"""The registry, by the names of kinds."""
AGGREGATIONS: tuple[str, ...] = tuple(KINDS)
"""A name of every kind; of one with a parameter, some."""


@lru_cache(maxsize=1024)
def aggregation(name: str) -> Aggregation:
    """The aggregation of that name; DefinitionError for an unknown one, with the one that is meant."""
    if name in KINDS:
        return Aggregation(name, KINDS[name])
    meant = _meant(name)
    hint = f"did you mean {meant!r}? " if meant else ""
    raise DefinitionError(f"unknown aggregation {name!r}; {hint}there are {', '.join(KINDS)}")


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
    return None if name is None else aggregation(name).kind.empty


_SYNONYMS = {word: kind.name for kind in _KINDS for word in kind.words}


def _meant(name: str) -> str | None:
    """The aggregation that a name means: by its meaning, or but for a slip; None where neither is near."""
    name = name.lower().strip()
    if name in KINDS:
        return name
    near = get_close_matches(name, KINDS, n=1, cutoff=_A_SLIP)
    return _SYNONYMS.get(name) or (near[0] if near else None)
