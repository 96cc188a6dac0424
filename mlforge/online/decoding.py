"""Decoding a server's rows into the Python values that training returns.

A row is input: anybody who reaches the server can have written it. Each column is held against the dtype
that the books name, and a value that the dtype does not have raises Misfit; none is guessed at.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from typing import Any, NoReturn, TypeAlias

from mlforge.core.nested import Nested, nested
from mlforge.core.schema import (
    DIGITS,
    FLOATS,
    INSTANT,
    INTEGERS,
    Column,
    Schema,
    decimal_scale,
    integer_range,
)

Row: TypeAlias = dict[str, Any]
Decode: TypeAlias = Callable[[list[Any]], list[Any]]
"""A column's values from JSON to Python, in their order; ValueError where the dtype has no such value."""


class Misfit(Exception):
    """A row that does not fit the books; `position` is its index among the requested rows.

    incomplete: a column is missing, or of another type, as while another version is being pushed.
    """

    def __init__(self, position: int, what: str, incomplete: bool = False) -> None:
        super().__init__(what)
        self.position, self.incomplete = position, incomplete


def parse_rows(texts: Sequence[str | None]) -> list[Row | None]:
    """The parsed JSON objects of the texts, None for None; Misfit for the first text that is no object."""
    rows = [None if text is None else _parsed(text) for text in texts]
    if str in map(type, rows):
        at = next(position for position, row in enumerate(rows) if type(row) is str)
        raise Misfit(at, _why_no_object(str(texts[at])))
    return rows


def typed_rows(
    texts: Sequence[str | None], columns: Iterable[SameDtype] | None
) -> list[Row | None]:
    """The rows of the texts with the values of training; plain JSON where there are no columns. Misfit for an unfit text."""
    rows = parse_rows(texts)
    if columns is not None:
        decode_rows(rows, columns)
    return rows


@dataclass(frozen=True, slots=True)
class SameDtype:
    """Columns of one dtype, which are decoded together: a row of many columns takes few steps."""

    columns: Schema
    names: tuple[str, ...]
    decode: Decode

    @classmethod
    def of(cls, schema: Schema) -> tuple[SameDtype, ...]:
        """The columns of a schema by their dtypes. An unknown dtype raises KeyError."""
        by_dtype: dict[str, list[Column]] = {}
        for column in schema:
            by_dtype.setdefault(column.dtype, []).append(column)
        return tuple(
            cls(tuple(alike), tuple(column.name for column in alike), decoder(dtype))
            for dtype, alike in by_dtype.items()
        )


def decode_rows(rows: Sequence[Row | None], schema: Iterable[SameDtype]) -> None:
    """Replace the columns' values in the rows by the values of training; Misfit for an unfit value.

    Columns outside the schema stay as they are.
    """
    present = [row for row in rows if row is not None]
    for alike in schema:
        names = alike.names
        try:
            values = [row[name] for name in names for row in present]
            decoded = alike.decode(values)
        except (KeyError, ValueError, TypeError, ArithmeticError):
            for column in alike.columns:
                _find(rows, column)
            raise
        if decoded is not values:
            places = [(row, name) for name in names for row in present]
            for (row, name), value in zip(places, decoded, strict=True):
                row[name] = value


@lru_cache(maxsize=256)
def decoder(dtype: str) -> Decode:
    """The decoder of a dtype; KeyError where it is not known."""
    outer, scale = nested(dtype), decimal_scale(dtype)
    if outer is not None:
        return _NESTED[outer.kind](outer)
    return _each(_decimal) if scale is not None else _DECODERS[dtype]


def _find(rows: Sequence[Row | None], column: Column) -> None:
    """Raise Misfit for the row whose value of the column is not what its dtype has."""
    for position, row in enumerate(rows):
        if row is None:
            continue
        if column.name not in row:
            raise Misfit(position, f"it has no column {column.name!r}", incomplete=True)
        try:
            decoder(column.dtype)([row[column.name]])
        except (ValueError, TypeError, ArithmeticError):
            raise Misfit(
                position,
                f"its {column.name!r} is {_short(row[column.name])}, and no {column.dtype}",
                incomplete=True,
            ) from None


def _parsed(text: str) -> Any:
    """The object of a text; the text itself where it holds none."""
    try:
        value, end = _scan(text, 0)
        if end != len(text):
            value = json.loads(text)
        if not text.isascii():
            text.encode()
    except (ValueError, StopIteration, RecursionError):
        return text
    return value if type(value) is dict else text


def _why_no_object(text: str) -> str:
    try:
        text.encode()
        value = json.loads(text, parse_constant=_refused)
    except UnicodeEncodeError:
        return "it is not UTF-8"
    except RecursionError:
        return "it is nested too deeply"
    except ValueError as error:
        return f"it is not JSON ({error})"
    if isinstance(value, dict):
        return "there is white space around its JSON object"
    return f"it is {_short(value)}, not a JSON object"


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _short(value: object) -> str:
    try:
        shown = repr(value)
    except (ValueError, RecursionError):  # a whole number of too many digits
        return f"a huge {type(value).__name__}"
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


_scan: Any = json.JSONDecoder(parse_constant=_refused).scan_once  # type: ignore[attr-defined]
_NONE = type(None)


_NULL, _INT, _FLOAT, _STR, _BOOL, _LIST, _DICT = (
    frozenset({_NONE, *kinds})
    for kinds in ((), (int,), (float,), (str,), (bool,), (list,), (dict,))
)


def _check_kinds(values: list[Any], allowed: frozenset[type]) -> None:
    if not allowed.issuperset(map(type, values)):
        raise ValueError(values)


def _integers(dtype: str) -> Decode:
    least, greatest = integer_range(dtype)

    def decode(values: list[Any]) -> list[Any]:
        _check_kinds(values, _INT)
        known = [value for value in values if value is not None]
        if known and not (least <= min(known) and max(known) <= greatest):
            raise ValueError(values)
        return values

    return decode


def _floats(values: list[Any]) -> list[Any]:
    """A whole number may be written without its point."""
    if not _FLOAT.issuperset(map(type, values)):
        _check_kinds(values, _FLOAT | _INT)
        values = [float(value) if type(value) is int else value for value in values]
    if math.inf in values or -math.inf in values:
        raise ValueError(values)
    return values


def _strings(values: list[Any]) -> list[Any]:
    _check_kinds(values, _STR)
    for value in values:
        if value is not None and not value.isascii():
            value.encode()  # an escape can spell half a character
    return values


def _booleans(values: list[Any]) -> list[Any]:
    _check_kinds(values, _BOOL)
    return values


def _nulls(values: list[Any]) -> list[Any]:
    _check_kinds(values, _NULL)
    return values


def _lists(decode_elements: Decode) -> Decode:
    def decode(values: list[Any]) -> list[Any]:
        _check_kinds(values, _LIST)
        lists = [value for value in values if value is not None]
        elements = iter(decode_elements([element for value in lists for element in value]))
        return [None if value is None else list(islice(elements, len(value))) for value in values]

    return decode


def _arrays(outer: Nested) -> Decode:
    decode_lists = _lists(decoder(outer.parts[0][1]))

    def decode(values: list[Any]) -> list[Any]:
        lists = decode_lists(values)
        if any(value is not None and len(value) != outer.width for value in lists):
            raise ValueError(values)
        return lists

    return decode


def _structs(outer: Nested) -> Decode:
    names = [name for name, _ in outer.parts]
    decode_fields = [decoder(dtype) for _, dtype in outer.parts]

    def decode(values: list[Any]) -> list[Any]:
        _check_kinds(values, _DICT)
        present = [value for value in values if value is not None]
        if any(value.keys() != set(names) for value in present):
            raise ValueError(values)
        fields = [
            decode_field([value[name] for value in present])
            for name, decode_field in zip(names, decode_fields, strict=True)
        ]
        structs = iter(
            [dict(zip(names, parts, strict=True)) for parts in zip(*fields, strict=True)]
        )
        return [None if value is None else next(structs) for value in values]

    return decode


_NESTED: Mapping[str, Callable[[Nested], Decode]] = {
    "List": lambda outer: _lists(decoder(outer.parts[0][1])),
    "Array": _arrays,
    "Struct": _structs,
}


def _each(convert: Callable[[str], Any]) -> Decode:
    def decode(values: list[Any]) -> list[Any]:
        _check_kinds(values, _STR)
        return [None if value is None else convert(value) for value in values]

    return decode


def _decimal(text: str) -> Decimal:
    value = Decimal(text)
    if not value.is_finite() or len(value.as_tuple().digits) > DIGITS:
        raise ValueError(text)
    return value


def _instant(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    if value.tzinfo is None:
        raise ValueError(text)
    return value if value.tzinfo is UTC else value.astimezone(UTC)


_DECODERS: Mapping[str, Decode] = {
    **{dtype: _integers(dtype) for dtype in INTEGERS},
    **dict.fromkeys(FLOATS, _floats),
    "String": _strings,
    "Boolean": _booleans,
    "Null": _nulls,
    "Date": _each(date.fromisoformat),
    "Time": _each(time.fromisoformat),
    INSTANT: _each(_instant),
}
