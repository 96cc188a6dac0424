"""Rows of a request as a frame: JSON by the dtypes that the source's files have, or a stream of Arrow."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

import polars as pl

from mlforge.core.arguments import shown
from mlforge.serve.problems import Refused

Row = dict[str, Any]
MOST_BAD = 10
"""The most bad rows that a refusal names."""
_NO_JSON = (pl.Duration, pl.Time, pl.Binary, pl.Object)


def rows_of_lines(body: bytes) -> list[Row]:
    """The objects that JSON lines hold; Refused where a line is no object, by its number."""
    rows = []
    for number, line in enumerate(body.split(b"\n"), 1):
        if line.strip():
            rows.append(_object(line, f"line {number}"))
    return rows


def rows_of_json(body: bytes) -> list[Row]:
    """The objects of a JSON list, or the one object; Refused for another value."""
    value = _parsed(body, "the body")
    rows = value if isinstance(value, list) else [value]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise Refused(422, "bad_rows", f"row {number} is {shown(row)}; send objects")
    return rows


def _object(text: bytes, what: str) -> Row:
    value = _parsed(text, what)
    if not isinstance(value, dict):
        raise Refused(422, "bad_rows", f"{what} is {shown(value)}; send an object in each line")
    return value


def _parsed(text: bytes, what: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise Refused(400, "too_deep", f"{what} is nested too deeply") from None
    except ValueError as error:
        raise Refused(400, "not_json", f"{what} is not JSON: {error}") from None


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def frame_of(
    rows: Sequence[Row], dtypes: Mapping[str, pl.DataType], needed: Collection[str]
) -> pl.DataFrame:
    """The rows as a frame. Raises Refused, which names the bad rows, each with its number from 1 on and why.

    dtypes: those of the columns that the source's files have; a column that none has takes the type of its values.
    needed: columns that must hold a value in each row. A column that is null throughout is left out.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    bad: dict[int, str] = {}
    for name in needed:
        for number, row in enumerate(rows, 1):
            if row.get(name) is None:
                bad.setdefault(number, f"{name} is missing")
    columns = []
    for name in names:
        values = [row.get(name) for row in rows]
        if all(value is None for value in values):
            continue
        dtype = dtypes.get(name) or _dtype_of(values)
        columns.append(_column(name, values, dtype, bad))
    if bad:
        raise _bad(bad, len(rows))
    if not columns:
        raise Refused(422, "bad_rows", "no row holds a value")
    return pl.DataFrame(columns)


def frame_of_arrow(body: bytes, needed: Collection[str]) -> pl.DataFrame:
    """The rows of a stream of Arrow; Refused for other bytes, and for rows that lack what is needed."""
    try:
        frame = pl.read_ipc_stream(io.BytesIO(body))
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise Refused(400, "not_arrow", f"the body is no stream of Arrow: {error}") from None
    except BaseException as error:  # a panic of the reader is no Exception
        if type(error).__name__ != "PanicException":
            raise
        raise Refused(400, "not_arrow", "the body is no stream of Arrow that can be read") from None
    bad: dict[int, str] = {}
    for name in needed:
        if name not in frame.columns:
            raise Refused(422, "bad_rows", f"there is no column {name}")
        for number in frame[name].is_null().arg_true().head(MOST_BAD + 1) + 1:
            bad.setdefault(number, f"{name} is missing")
    if bad:
        raise _bad(bad, frame.height)
    return frame


def _bad(bad: Mapping[int, str], count: int) -> Refused:
    told = [f"row {number}: {bad[number]}" for number in sorted(bad)[:MOST_BAD]]
    more = [f"and {len(bad) - MOST_BAD:,} more"] if len(bad) > MOST_BAD else []
    return Refused(422, "bad_rows", f"none of {count:,} rows was taken: {'; '.join(told + more)}")


def _dtype_of(values: Iterable[Any]) -> pl.DataType | None:
    """The dtype of JSON's own values; None for lists and objects, and for a mixture of types."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return pl.Float64()
    [kind, *further] = kinds
    return None if further else _OF_JSON.get(kind)


_OF_JSON: dict[type, pl.DataType] = {
    bool: pl.Boolean(),
    int: pl.Int64(),
    float: pl.Float64(),
    str: pl.String(),
}


def _column(
    name: str, values: Sequence[Any], dtype: pl.DataType | None, bad: dict[int, str]
) -> pl.Series:
    """The column; values that do not fit count as null, and are told in `bad` by their rows' numbers."""
    if dtype is not None and dtype.base_type() in _NO_JSON:
        raise Refused(
            422, "bad_rows", f"{name} is {dtype}, which JSON does not have; send Arrow or parquet"
        )
    convert = _value_of(dtype)
    converted: list[Any] = []
    for number, value in enumerate(values, 1):
        try:
            converted.append(None if value is None else convert(value))
        except (TypeError, ValueError, OverflowError, InvalidOperation):
            converted.append(None)
            bad.setdefault(number, f"{name} is {shown(value)}, not {_told(dtype)}")
    try:
        return pl.Series(name, converted, dtype, strict=True)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        _find_bad(name, converted, dtype, bad)
        return pl.Series(name, [None] * len(values), dtype)


def _find_bad(
    name: str, values: Sequence[Any], dtype: pl.DataType | None, bad: dict[int, str]
) -> None:
    """Tell which values have another type than the column."""
    before = len(bad)
    for number, value in enumerate(values, 1):
        try:
            pl.Series(name, [value], dtype, strict=True)
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
            bad.setdefault(number, f"{name} is {shown(value)}, not {_told(dtype)}")
    if len(bad) == before:  # each fits alone, and they do not fit together
        raise Refused(422, "bad_rows", f"{name} has values of several types")


def _told(dtype: pl.DataType | None) -> str:
    return "a value of one type" if dtype is None else str(dtype)


def _value_of(dtype: pl.DataType | None) -> Callable[[Any], Any]:
    """The conversion of JSON's values to those of a dtype; it raises ValueError or TypeError for others."""
    if isinstance(dtype, pl.Datetime):
        return _zoned if dtype.time_zone is not None else _naive
    if isinstance(dtype, pl.Date):
        return date.fromisoformat
    if isinstance(dtype, pl.Decimal):
        return _decimal(dtype.scale)
    if isinstance(dtype, pl.List | pl.Array):
        return _list(_value_of(dtype.inner))  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return _struct({field.name: _value_of(field.dtype) for field in dtype.fields})  # type: ignore[arg-type]
    return _no_boolean if dtype is not None and dtype.is_numeric() else _same


def _list(convert: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    def each(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise TypeError("no list")
        return [None if item is None else convert(item) for item in value]

    return each


def _struct(fields: Mapping[str, Callable[[Any], Any]]) -> Callable[[Any], Row]:
    def each(value: Any) -> Row:
        if not isinstance(value, dict) or not value.keys() <= fields.keys():
            raise TypeError("no object of these fields")
        return {n: None if item is None else fields[n](item) for n, item in value.items()}

    return each


def _same(value: Any) -> Any:
    return value


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise TypeError("a boolean is no number")
    return value


def _zoned(value: str) -> datetime:
    """An instant; a text without a zone is UTC."""
    instant = datetime.fromisoformat(value)
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _naive(value: str) -> datetime:
    return _zoned(value).replace(tzinfo=None)


def _decimal(scale: int) -> Callable[[Any], Decimal]:
    def convert(value: Any) -> Decimal:
        number = Decimal(_no_boolean(value) if isinstance(value, int | bool) else str(value))
        if not number.is_finite() or number != round(number, scale):
            raise ValueError("it has more digits than the column")
        return number

    return convert
