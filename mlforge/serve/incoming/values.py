"""Values of JSON as columns hold them: the dtype that values share, and the conversion to a dtype."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from typing import Any

import polars as pl

from mlforge.core.arguments import shown
from mlforge.core.schema import DIGITS
from mlforge.serve.problems import Refused

Row = dict[str, Any]
NO_JSON = (pl.Duration, pl.Time, pl.Binary, pl.Object)
"""Dtypes whose values JSON does not have."""
DEEPEST = 16
"""How far lists and objects of a column that no file has may be nested."""
MOST_VALUES = 10_000_000
"""How many values, rows times columns, are made of one request."""


def check_names(names: Collection[str], rows: int) -> None:
    """Refused for a name that no column can have, an empty one or half a character of UTF-16, and for too many of them."""
    if len(names) * rows > MOST_VALUES:
        raise Refused(
            422,
            "bad_rows",
            f"{rows:,} rows of {len(names):,} names, most of them absent; send fewer rows at once",
        )
    for name in names:
        if not name or name != name.encode(errors="replace").decode():
            raise Refused(422, "bad_rows", f"{shown(name)} is no name of a column")


def dtype_of(name: str, values: Iterable[Any]) -> pl.DataType:
    """The dtype that all values of a column share; Refused where they have none."""
    try:
        dtype = _shared(values, DEEPEST)
    except TypeError:
        raise Refused(422, "bad_rows", f"{name} has values of several types") from None
    if dtype is None:
        raise Refused(
            422,
            "bad_rows",
            f"{name} holds nothing but empty lists or objects, which have no type; leave it out, or send Arrow",
        )
    return dtype


def _shared(values: Iterable[Any], deeper: int) -> pl.DataType | None:
    """The dtype of JSON's own values; None where nothing is said of it. TypeError for a mixture of types.

    Integers beside floats are floats; objects have the fields of all of them. deeper: how far values may be nested still.
    """
    if deeper == 0:
        raise Refused(400, "too_deep", f"a value is nested more than {DEEPEST} times")
    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    if kinds == {list}:
        inner = _shared((item for value in present for item in value), deeper - 1)
        return None if inner is None else pl.List(inner)
    if kinds == {dict}:
        names = dict.fromkeys(name for value in present for name in value)
        check_names(names, len(present))
        fields = {
            name: _shared([value.get(name) for value in present], deeper - 1) for name in names
        }
        known = {name: dtype for name, dtype in fields.items() if dtype is not None}
        return pl.Struct(known) if known else None
    if kinds == {int, float}:
        return pl.Float64()
    if len(kinds) > 1:
        raise TypeError("several types")
    return _OF_JSON[kinds.pop()] if kinds else None


_OF_JSON: dict[type, pl.DataType] = {
    bool: pl.Boolean(),
    int: pl.Int64(),
    float: pl.Float64(),
    str: pl.String(),
}


def conversion(dtype: pl.DataType, *, within: bool = False) -> Callable[[Any], Any]:
    """The conversion of JSON's values to those of a dtype; it raises ValueError or TypeError for others.

    within: of values within lists and objects, whose dtype stays: instants finer than its milliseconds are others, too.
    """
    if isinstance(dtype, pl.Datetime):
        convert = _zoned if dtype.time_zone is not None else _naive
        return _to_the_millisecond(convert) if within and dtype.time_unit == "ms" else convert
    if isinstance(dtype, pl.Date):
        return date.fromisoformat
    if isinstance(dtype, pl.Decimal):
        return _decimal(dtype.scale)
    if isinstance(dtype, pl.List | pl.Array):
        return _list(conversion(dtype.inner, within=True))  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return _struct({f.name: conversion(f.dtype, within=True) for f in dtype.fields})  # type: ignore[arg-type]
    if dtype.is_integer():
        return _one_of(int)
    if dtype.is_float():
        return _float(_INFINITE.get(dtype.base_type(), math.inf))
    return _one_of(*_KINDS.get(dtype.base_type(), ()))


_WIDE = Context(prec=3 * DIGITS)
"""A context that rounds none of a column's Decimals: that of Python holds 28 digits."""
_EXACT_DIGITS = 15
"""How many digits of a number of JSON a float keeps, whatever they are."""
_INFINITE: Mapping[Any, float] = {pl.Float16: 65_520.0, pl.Float32: 3.4028235677973366e38}
"""The least float that a dtype holds as infinite."""
_KINDS: dict[Any, tuple[type, ...]] = {
    pl.String: (str,),
    pl.Categorical: (str,),
    pl.Enum: (str,),
    pl.Boolean: (bool,),
}
"""The types of Python that JSON's values of a dtype have; of another dtype it has none."""


def told(dtype: pl.DataType) -> str:
    """A dtype in a message: how JSON has its values, where the dtype's name does not say it."""
    if isinstance(dtype, pl.Datetime):
        return "an instant in ISO 8601, as '2026-01-31T10:00:00Z'"
    return "a date in ISO 8601, as '2026-01-31'" if isinstance(dtype, pl.Date) else str(dtype)


def _one_of(*kinds: type) -> Callable[[Any], Any]:
    def checked(value: Any) -> Any:
        if type(value) not in kinds:
            raise TypeError("a value of another type")
        return value

    return checked


def _float(least: float) -> Callable[[Any], float]:
    """The conversion to a float below a bound: a number of JSON that is larger would be infinite."""

    checked = _one_of(int, float)

    def convert(value: Any) -> float:
        number = float(checked(value))
        if not abs(number) < least:
            raise ValueError("it is too large")
        return number

    return convert


def _list(convert: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    def each(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise TypeError("no list")
        return [None if item is None else convert(item) for item in value]

    return each


def _struct(fields: Mapping[str, Callable[[Any], Any]]) -> Callable[[Any], Row]:
    def each(value: Any) -> Row:
        if not isinstance(value, dict):
            raise TypeError("no object")
        present = {name: item for name, item in value.items() if item is not None}
        if not present.keys() <= fields.keys():
            raise TypeError("no object of these fields")
        return {name: fields[name](item) for name, item in present.items()}

    return each


def fine_enough(dtype: pl.DataType, values: Iterable[Any]) -> pl.DataType:
    """The dtype of a column of these values: in microseconds where one is finer than its milliseconds, which would put it before its time."""
    if not isinstance(dtype, pl.Datetime) or dtype.time_unit != "ms":
        return dtype
    is_finer = any(value is not None and value.microsecond % 1000 for value in values)
    return pl.Datetime("us", dtype.time_zone) if is_finer else dtype


def _zoned(value: str) -> datetime:
    """An instant; a text without a zone is UTC."""
    instant = datetime.fromisoformat(value)
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _naive(value: str) -> datetime:
    return _zoned(value).replace(tzinfo=None)


def _to_the_millisecond(convert: Callable[[Any], datetime]) -> Callable[[Any], datetime]:
    def checked(value: Any) -> datetime:
        instant = convert(value)
        if instant.microsecond % 1000:
            raise ValueError("it is finer than the column")
        return instant

    return checked


def _decimal(scale: int) -> Callable[[Any], Decimal]:
    checked, least = _one_of(int, float, str), Decimal((0, (1,), -scale))

    def convert(value: Any) -> Decimal:
        number = Decimal(str(checked(value)))
        if not number.is_finite() or number != number.quantize(least, context=_WIDE):
            raise ValueError("it has more digits than the column")
        digits = max(len(number.as_tuple().digits), number.adjusted() + 1)
        if type(value) is float and digits > _EXACT_DIGITS:
            raise ValueError("it was rounded as it was read; a string keeps all digits")
        return number

    return convert
