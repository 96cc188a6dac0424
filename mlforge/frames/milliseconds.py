"""Instants in milliseconds, of which microseconds of 64 bits cannot hold all: those that they cannot would wrap around."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import polars as pl

from mlforge.errors import DataError
from mlforge.frames import nested_values
from mlforge.frames.polars_schema import dtype_text
from mlforge.frames.time_units import unit_us

if TYPE_CHECKING:
    from mlforge.core.feature_spec import FeatureSpec

_HELD = -(2**63 // 1000), (2**63 - 1) // 1000


def is_coarse(dtype: pl.DataType) -> bool:
    """Whether a dtype has instants that microseconds cannot hold."""
    return isinstance(dtype, pl.Datetime) and unit_us(dtype) > 1


def held(name: str) -> pl.Expr:
    """A column of milliseconds, null where microseconds cannot hold the instant."""
    return pl.when(pl.col(name).to_physical().is_between(*_HELD)).then(pl.col(name)).alias(name)


def check_held(columns: Iterable[pl.Series], where: str) -> None:
    """Refuse instants that microseconds cannot hold, also within lists and structs. Raises DataError."""
    for column in columns:
        for values in nested_values.leaves(column, is_coarse):
            instants = values.to_physical()
            beyond = instants.filter(~instants.is_between(*_HELD))
            if not beyond.is_empty():
                raise no_time(column.name, beyond[0], values.dtype, where)


def no_time(name: str, value: int, dtype: pl.DataType, where: str) -> DataError:
    """The error of a column with a value that is no time."""
    return DataError(
        f"{where}: column {name!r} holds {value:,} ({dtype_text(dtype)}), which is no time "
        "between the years 1 and 9999; check the unit that it was made with"
    )


def in_microseconds(spec: FeatureSpec, frame: pl.DataFrame, where: str) -> pl.DataFrame:
    """A file's rows with all instants in microseconds: files of one source may store a column in several units.

    Null where microseconds cannot hold an instant of a column that a feature with metrics does not need. Raises DataError for one that the
    feature needs.
    """
    times = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Datetime)]
    coarse = [name for name in times if is_coarse(frame.schema[name])]
    check_held((frame[name] for name in coarse if not spec.columns or name in spec.needed()), where)
    frame = frame.with_columns(map(held, coarse))
    return frame.with_columns(pl.col(name).dt.cast_time_unit("us") for name in times)
