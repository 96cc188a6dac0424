"""Kinds: the types of the language, and how values of the store's dtypes become values of a kind.

A value has one form for each kind, in both compilers: instants and durations are whole microseconds, dates
whole days since 1970, decimals floats. Null is None in every kind.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

from mlforge.core.schema import FLOATS, INSTANT, INTEGERS, decimal_scale
from mlforge.core.values import FIRST_INSTANT, LAST_INSTANT, from_us, to_us

INT, FLOAT, BOOL, TEXT = "int", "float", "bool", "text"
INSTANT_KIND, DATE, DURATION, NULL, OTHER = "instant", "date", "duration", "null", "other"
NUMBERS = (INT, FLOAT)
ORDERED = (INT, FLOAT, TEXT, INSTANT_KIND, DATE, DURATION)
LEAST_INT, GREATEST_INT = -(1 << 63), (1 << 63) - 1
DTYPES = {
    INT: "Int64",
    FLOAT: "Float64",
    BOOL: "Boolean",
    TEXT: "String",
    INSTANT_KIND: INSTANT,
    DATE: "Date",
}
"""The dtype of a derived column, by its kind; other kinds cannot be stored."""
_SHOWN = {
    INT: "a whole number",
    FLOAT: "a number",
    BOOL: "true or false",
    TEXT: "text",
    INSTANT_KIND: "an instant",
    DATE: "a date",
    DURATION: "a duration",
    NULL: "null",
    OTHER: "of a type that only is_null() takes",
}
_LIST = re.compile(r"List\((.+)\)")
_FIRST_DAY = date(1970, 1, 1)


def list_of(kind: str) -> str:
    """The kind of lists of a kind."""
    return f"list of {kind}"


def element(kind: str) -> str | None:
    """The kind of a list's values; None for a kind that is no list."""
    return kind.removeprefix("list of ") if kind.startswith("list of ") else None


def described(kind: str) -> str:
    """The kind as a message says it."""
    inner = element(kind)
    return _SHOWN[kind] if inner is None else f"a list ({_SHOWN.get(inner, inner)})"


@lru_cache(maxsize=256)
def kind_of(dtype: str) -> str:
    """The kind of a column's dtype."""
    if dtype in INTEGERS:
        return INT
    if dtype in FLOATS or decimal_scale(dtype) is not None:
        return FLOAT
    simple = {"Boolean": BOOL, "String": TEXT, "Date": DATE, INSTANT: INSTANT_KIND, "Null": NULL}
    values = _LIST.fullmatch(dtype)
    if values is None:
        return simple.get(dtype, OTHER)
    inner = kind_of(values[1])
    return OTHER if inner in (OTHER, NULL) or element(inner) is not None else list_of(inner)


def reader(kind: str) -> Callable[[Any], Any]:
    """The function from a column's Python value to a value of the kind."""
    inner = element(kind)
    if inner is None:
        return _READERS.get(kind, _as_is)
    read = _READERS[inner]
    return lambda values: None if values is None else [read(value) for value in values]


def writer(kind: str) -> Callable[[Any], Any]:
    """The function from a value of the kind to the column's Python value."""
    return _WRITERS.get(kind, _as_is)


def instant_of(text: str) -> int | None:
    """The instant of an ISO 8601 text in UTC microseconds; naive is UTC; None for any other text."""
    try:
        moment = datetime.fromisoformat(text)
        return to_us(moment if moment.tzinfo is None else moment.astimezone(UTC))
    except (ValueError, OverflowError):
        return None


def day_of(text: str) -> int | None:
    """The day of an ISO 8601 date, in days since 1970; None for any other text."""
    try:
        return (date.fromisoformat(text) - _FIRST_DAY).days
    except ValueError:
        return None


def whole(value: int) -> int | None:
    """The whole number; null where 64 bits do not hold it."""
    return value if LEAST_INT <= value <= GREATEST_INT else None


def finite(value: float) -> float | None:
    """The float; null where it is not finite."""
    return value if math.isfinite(value) else None


def within_calendar(us: int) -> int | None:
    """The instant; null outside the years 1 to 9999."""
    return us if FIRST_INSTANT <= us <= LAST_INSTANT else None


def _as_is(value: Any) -> Any:
    return value


def _int(value: Any) -> int | None:
    return None if value is None else whole(int(value))


def _float(value: Any) -> float | None:
    return None if value is None else finite(float(value))


def _instant(value: Any) -> int | None:
    return to_us(value) if isinstance(value, datetime) else value


def _days(value: Any) -> int | None:
    return (value - _FIRST_DAY).days if isinstance(value, date) else value


_READERS: dict[str, Callable[[Any], Any]] = {
    INT: _int,
    FLOAT: _float,
    BOOL: _as_is,
    TEXT: _as_is,
    INSTANT_KIND: _instant,
    DATE: _days,
}
_WRITERS: dict[str, Callable[[Any], Any]] = {
    INSTANT_KIND: lambda us: None if us is None else from_us(us),
    DATE: lambda days: None if days is None else _FIRST_DAY + timedelta(days=days),
}
