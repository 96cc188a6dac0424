"""Aggregations by their names, as metrics write them: `sum`, `last_10`, `p99_9`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mlforge.core.aggregation_kinds import KINDS, K, Kind, N
from mlforge.core.schema import INSTANT
from mlforge.errors import DataError, DefinitionError, near_names

_A_SLIP = 0.66  # of the letters are the same: one of three was mistyped
# Other libraries have many words, and short ones resemble anything.
_A_SLIP_OF_A_LONG_WORD, _LONG = (
    0.8,
    6,
)
_EVENT_DTYPES = (
    *("Int64", "Float64", "Decimal(10, 2)", "Boolean", "String", "Date", "Time", INSTANT),
    *("List(Int64)", "Array(Float32, 2)", 'Struct("lat": Float64)'),
)
"""A dtype of each kind that event columns may have."""


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


AGGREGATIONS: tuple[str, ...] = tuple(
    name
    for kind in KINDS.values()
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
        f"({K.allowed}; pN is {N.allowed})"
    )


def output_dtype(name: str, dtype: str, what: str) -> str:
    """The dtype of an aggregate, or DataError naming `what` where the two do not go together."""
    result = aggregation(name).kind.dtype(dtype)
    if result is not None:
        return result
    works = [kind.name for kind in KINDS.values() if kind.dtype(dtype) is not None]
    raise DataError(
        f"{what}: {name} of {dtype} is not possible; {', '.join(works)} would be, or a cast"
    )


@lru_cache(maxsize=256)
def result_dtypes(name: str) -> frozenset[str]:
    """The dtypes that an aggregate may have, whatever column it is of: a dtype for each kind of column."""
    kind = aggregation(name).kind
    results = (kind.dtype(dtype) for dtype in _EVENT_DTYPES)
    return frozenset(dtype for dtype in results if dtype is not None)


def empty_value(name: str | None) -> Any:
    """The value of an empty window; None also for a column that is no metric."""
    return None if name is None else aggregation(name).empty


def _read(name: str) -> Aggregation | None:
    """The aggregation of exactly that name."""
    for kind in KINDS.values():
        if kind.parameter is None:
            if name == kind.name:
                return Aggregation(name, kind)
        elif name.startswith(prefix := kind.name[:-1]):
            value = kind.parameter.read(name.removeprefix(prefix))
            if value is not None:
                return Aggregation(name, kind, value)
    return None


_SYNONYMS = {word: kind.name for kind in KINDS.values() for word in kind.words}
_PERCENT = re.compile(
    r"(?:p|q|pc|pct|perc|percentile|quantile)_?(\d{1,9})(?:[._](\d{1,9}))?(?:th)?"
)
_NUMBERED = re.compile(r"(\w+?)_?(\d{1,9})")


def _hint(name: str) -> str:
    """The aggregation that a name means, or the numbers that it may have; empty where none is near."""
    name = name.lower().strip()
    percent = _PERCENT.fullmatch(name)
    if percent is not None:
        return _meant(_as_percentile(percent[1], percent[2]), f"pN is {N.allowed};")
    numbered = _NUMBERED.fullmatch(name)
    if numbered is not None:
        word = numbered[1]
        kind = _SYNONYMS.get(f"{word}_k") or _SYNONYMS.get(word) or f"{word}_K"
        kind = kind if kind.endswith("_K") else f"{kind}_K"
        if kind in KINDS:
            number = str(int(numbered[2]))
            return _meant(kind[:-1] + number, f"of {kind}, {K.allowed};")
    near = near_names(name, AGGREGATIONS, most=1, cutoff=_A_SLIP)
    lowered = {known.lower(): known for known in KINDS}
    word = lowered.get(name) or _SYNONYMS.get(name) or (near[0] if near else _near_synonym(name))
    parameter = KINDS[word].parameter if word in KINDS else None
    return _meant(word if parameter is None else word[:-1] + parameter.examples[0], "")


def _near_synonym(name: str) -> str:
    """The kind that a mistyped word of another library means; empty where none is near."""
    long = [word for word in _SYNONYMS if len(word) >= _LONG]
    near = near_names(name, long, most=1, cutoff=_A_SLIP_OF_A_LONG_WORD)
    return _SYNONYMS[near[0]] if near else ""


def _as_percentile(whole: str, decimals: str | None) -> str:
    """The percentile that digits mean: 999 is 99.9, and 0.9 a share; p0 is the least value, p100 the greatest."""
    if whole in ("0", "1") and decimals:
        return f"p{int(decimals.ljust(2, '0')[:2])}" if whole == "0" else ""
    if (whole, decimals) in (("999", None), ("99", "9")):
        return "p99_9"
    if decimals and int(decimals):
        return ""
    return {0: "min", 100: "max"}.get(int(whole), f"p{int(whole)}")


def _meant(name: str, otherwise: str) -> str:
    return f"did you mean {name!r}?" if _read(name) is not None else otherwise
