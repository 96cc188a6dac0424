"""A common form of columns that files hold in several forms: frames that are read as one must agree before a function sees them.

Where a function treats each row alone, its results are brought into the form of events file by file, so zones, categories and
units of time may differ from file to file. Here the same is done to the rows of several files beforehand, column by column, where they do differ.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import polars as pl

from mlforge.frames import milliseconds, nested_values
from mlforge.frames.normalize import as_utc
from mlforge.frames.polars_schema import UTC_INSTANT


def in_common_form(
    frames: Mapping[str, pl.DataFrame], time: str | None = None
) -> dict[str, pl.DataFrame]:
    """The frames, each column of which files hold in several dtypes in the form of events: instants in UTC, categories as strings.

    A column of one dtype stays as it is, a time zone included, and so do floats. frames: by path. time: a column whose dates count as
    their midnights. Raises DataError for an instant that microseconds cannot hold.
    """
    mixed = _mixed(frames)
    return {path: _in_form(frame, mixed, time, path) for path, frame in frames.items()}


def _mixed(frames: Mapping[str, pl.DataFrame]) -> set[str]:
    """The columns that have values of several dtypes."""
    dtypes: dict[str, set[pl.DataType]] = defaultdict(set)
    for frame in frames.values():
        for column in frame.get_columns():
            if column.null_count() < len(column):
                dtypes[column.name].add(column.dtype)
    return {name for name, several in dtypes.items() if len(several) > 1}


def _in_form(frame: pl.DataFrame, mixed: set[str], time: str | None, where: str) -> pl.DataFrame:
    columns = [column for column in frame.get_columns() if column.name in mixed]
    milliseconds.check_held(columns, where)
    return frame.with_columns(_formed(each.name, each.dtype, each.name == time) for each in columns)


def _formed(name: str, dtype: pl.DataType, is_time: bool) -> pl.Expr:
    column = pl.col(name)
    if is_time and dtype == pl.Date:
        return as_utc(column, dtype)
    return nested_values.in_form(column, dtype, _plain, _has_other_form).alias(name)


def _plain(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Datetime):
        return as_utc(value, dtype)
    return value.cast(pl.String) if isinstance(dtype, (pl.Categorical, pl.Enum)) else value


def _has_other_form(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.Datetime):
        return dtype != UTC_INSTANT
    return isinstance(dtype, (pl.Categorical, pl.Enum))
