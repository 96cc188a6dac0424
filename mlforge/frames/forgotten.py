"""The rows of a frame that are of forgotten entities."""

from __future__ import annotations

import re

import polars as pl

from mlforge.core.forgotten import Forgotten
from mlforge.frames import polars_schema

_EXACT = 2.0**53
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def without(frame: pl.DataFrame, forgotten: Forgotten) -> tuple[pl.DataFrame, int]:
    """A frame without the rows of forgotten entities, and how many those were; the very frame where there are none.

    A row is of an entity if its column of the key's name holds the value, whatever dtype the column has.
    """
    hits = rows_of(frame, forgotten)
    if hits is None:
        return frame, 0
    return frame.filter(~hits), int(hits.sum())


def rows_of(frame: pl.DataFrame, forgotten: Forgotten) -> pl.Series | None:
    """Whether each row is of a forgotten entity; None where no row is."""
    together: pl.Series | None = None
    for key in forgotten.hashes:
        if key not in frame.columns or not _has_texts(frame[key].dtype):
            continue
        texts = _texts(frame[key])
        known = [text for text in texts.unique().drop_nulls() if forgotten.holds(key, text)]
        if known:
            hits = texts.is_in(known).fill_null(value=False)
            together = hits if together is None else together | hits
    return together


def could_hold(dtype: str, text: str) -> bool:
    """Whether a row of a dtype, as `mlforge.core.schema` names it, could be of the entity of a text."""
    held = polars_schema.to_polars(dtype)
    if held == pl.Boolean:
        return text in ("true", "false")
    if held == pl.Date:
        return _DATE.fullmatch(text) is not None
    if held.is_numeric():
        return _texts(pl.Series([text]).cast(held, strict=False)).to_list() == [text]
    return True


def _has_texts(dtype: pl.DataType) -> bool:
    return not dtype.is_nested() and dtype not in (pl.Duration, pl.Object)


def _texts(column: pl.Series) -> pl.Series:
    """The text of each value as the hash of an online key has it; an id that became a float is the integer it was."""
    if column.dtype == pl.Binary:
        return pl.Series([_utf8(value) for value in column], dtype=pl.String)
    if column.dtype.is_decimal():
        return column.cast(pl.String).str.replace(r"\.0+$|(\.\d*[1-9])0+$", "${1}")
    if not column.dtype.is_float():
        return column.cast(pl.String)
    value = pl.col(column.name)
    is_whole = (value == value.floor()) & (value.abs() <= _EXACT)
    whole = pl.when(is_whole).then(value).cast(pl.Int64).cast(pl.String)
    return column.to_frame().select(pl.coalesce(whole, value.cast(pl.String))).to_series()


def _utf8(value: bytes | None) -> str | None:
    """The text of bytes; None of such as are none."""
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None
