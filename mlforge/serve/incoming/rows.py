"""Rows of a request as a frame: JSON by the dtypes that the source's files have, or a stream of Arrow."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from decimal import InvalidOperation
from typing import Any

import polars as pl

from mlforge.core.arguments import shown
from mlforge.core.json_text import decoded_bytes
from mlforge.serve.incoming.values import (
    NO_JSON,
    Row,
    check_names,
    conversion,
    dtype_of,
    fine_enough,
    told,
)
from mlforge.serve.problems import Refused
from mlforge.sources.damage import UNDECODABLE

MOST_BAD = 10
"""The most bad rows that a refusal names."""


def rows_of_lines(body: bytes, most: int) -> list[Row]:
    """The objects that JSON lines hold, at most one more than `most`; Refused where a line is no object, by its number."""
    rows: list[Row] = []
    for number, line in enumerate(io.BytesIO(body), 1):
        if line.strip():
            rows.append(_object(line, f"line {number}"))
        if len(rows) > most:  # what is refused anyway takes no further room
            break
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
        return decoded_bytes(text)
    except RecursionError:
        raise Refused(400, "too_deep", f"{what} is nested too deeply") from None
    except ValueError as error:
        raise Refused(400, "not_json", f"{what} is not JSON: {error}") from None


def frame_of(
    rows: Sequence[Row],
    dtypes: Mapping[str, pl.DataType],
    needed: Collection[str],
    usual: Collection[str] = (),
) -> pl.DataFrame:
    """The rows as a frame. Raises Refused, which names the bad rows, each with its number from 1 on and why.

    dtypes: those of the columns that the source's files have; a column that none has takes the type of its values.
    needed: columns that must hold a value in each row. A column that is null throughout is left out where no file has it.
    usual: columns of `dtypes` that the frame has in any case, null where no row names them: functions ask for them.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    check_names(names, len(rows))
    bad: dict[int, str] = {}
    for name in needed:
        for number, row in enumerate(rows, 1):
            if row.get(name) is None:
                bad.setdefault(number, f"{name} is missing")
    columns = []
    for name in names:
        values = [row.get(name) for row in rows]
        if all(value is None for value in values):
            if name in dtypes:  # the features' functions may ask for it
                columns.append(_nulls(name, len(rows), dtypes[name]))
            continue
        columns.append(_column(name, values, dtypes.get(name) or dtype_of(name, values), bad))
    if bad:
        raise _bad(bad, len(rows))
    if all(column.null_count() == len(column) for column in columns):
        raise Refused(422, "bad_rows", "no row holds a value")
    unnamed = [name for name in usual if name not in names]
    return pl.DataFrame([*columns, *(_nulls(name, len(rows), dtypes[name]) for name in unnamed)])


def _nulls(name: str, count: int, dtype: pl.DataType) -> pl.Series:
    return pl.Series(name, [None], dtype).new_from_index(0, count)


def frame_of_arrow(body: bytes, needed: Collection[str]) -> pl.DataFrame:
    """The rows of a stream of Arrow; Refused for other bytes, and for rows that lack what is needed."""
    try:
        frame = pl.read_ipc_stream(io.BytesIO(body))
    except UNDECODABLE as error:
        raise Refused(400, "not_arrow", f"the body is no stream of Arrow: {error}") from None
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
    lines = [f"row {number}: {bad[number]}" for number in sorted(bad)[:MOST_BAD]]
    more = [f"and {len(bad) - MOST_BAD:,} more"] if len(bad) > MOST_BAD else []
    none = f"none of {count:,} rows was taken" if count > 1 else "the row was not taken"
    return Refused(422, "bad_rows", f"{none}: {'; '.join(lines + more)}")


def _column(name: str, values: Sequence[Any], dtype: pl.DataType, bad: dict[int, str]) -> pl.Series:
    """The column; values that do not fit count as null, and are told in `bad` by their rows' numbers."""
    if dtype.base_type() in NO_JSON:
        raise Refused(
            422, "bad_rows", f"{name} is {dtype}, which JSON does not have; send Arrow or parquet"
        )
    convert = conversion(dtype)
    converted: list[Any] = []
    for number, value in enumerate(values, 1):
        try:
            converted.append(None if value is None else convert(value))
        except (TypeError, ValueError, OverflowError, InvalidOperation):
            converted.append(None)
            bad.setdefault(number, f"{name} is {shown(value)}, not {told(dtype)}")
    dtype = fine_enough(dtype, converted)
    try:
        return pl.Series(name, converted, dtype, strict=True)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        _find_bad(name, converted, dtype, bad)
        return pl.Series(name, [None] * len(values), dtype)


def _find_bad(name: str, values: Sequence[Any], dtype: pl.DataType, bad: dict[int, str]) -> None:
    """Tell which values have another type than the column."""
    before = len(bad)
    for number, value in enumerate(values, 1):
        try:
            pl.Series(name, [value], dtype, strict=True)
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
            bad.setdefault(number, f"{name} is {shown(value)}, not {told(dtype)}")
    if len(bad) == before:  # each fits alone, and they do not fit together
        raise Refused(422, "bad_rows", f"{name} has values of several types")
