"""The rows of a frame that are of forgotten entities."""

from __future__ import annotations

import polars as pl

from mlforge.core.forgotten import Forgotten

_EXACT = 2.0**53


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
        if key not in frame.columns or frame[key].dtype.is_nested():
            continue
        texts = _texts(frame[key])
        known = [text for text in texts.unique().drop_nulls() if forgotten.holds(key, text)]
        if known:
            hits = texts.is_in(known).fill_null(value=False)
            together = hits if together is None else together | hits
    return together


def _texts(column: pl.Series) -> pl.Series:
    """The text of each value as the hash of an online key has it; an id that became a float is the integer it was."""
    if column.dtype == pl.Binary:
        return column.cast(pl.String, strict=False)
    if not column.dtype.is_float():
        return column.cast(pl.String)
    value = pl.col(column.name)
    is_whole = (value == value.floor()) & (value.abs() <= _EXACT)
    whole = pl.when(is_whole).then(value).cast(pl.Int64).cast(pl.String)
    return column.to_frame().select(pl.coalesce(whole, value.cast(pl.String))).to_series()
