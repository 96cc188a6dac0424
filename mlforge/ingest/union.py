"""The rows of several files as one frame: the union of their columns, in dtypes that hold the values of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import polars as pl

from mlforge.core.manifest import Partial
from mlforge.core.schema import Schema, dtypes, shared
from mlforge.frames import polars_schema
from mlforge.ingest.fit import Fit


def shape(path: str, frame: pl.DataFrame) -> Partial:
    """A file's columns in the form in which partials are fit together; null throughout is no dtype."""
    columns = polars_schema.schema_of_values(frame)
    schema = shared(
        tuple(
            replace(column, dtype="Null")
            if frame.height and frame[column.name].null_count() == frame.height
            else column
            for column in columns
        )
    )
    return Partial(path, frame.height, None, schema, {}, 0)


def alike(
    frames: Mapping[str, pl.DataFrame], shapes: Mapping[str, Partial], fitted: Fit
) -> dict[str, pl.DataFrame]:
    """The frames with the columns and dtypes that fit all, null where a file lacks a column. shapes: theirs, by path."""
    known = {polars_schema.dtype_text(dtype): dtype for dtype in _dtypes(frames.values())}
    # A column that is null throughout all files has the dtype that they give it.
    declared = {column.name: column for frame in frames.values() for column in _declared(frame)}
    schema = tuple(
        declared.get(column.name, column) if column.dtype == "Null" else column
        for column in fitted.schema
    )
    return {
        path: polars_schema.select_typed(
            frame.lazy(), dtypes(shapes[path].schema), schema, known
        ).collect()
        for path, frame in frames.items()
    }


def _dtypes(frames: Iterable[pl.DataFrame]) -> set[pl.DataType]:
    return {dtype for frame in frames for dtype in frame.dtypes}


def _declared(frame: pl.DataFrame) -> Schema:
    """The frame's columns of a dtype, whether they hold a value or not."""
    return tuple(
        column for column in polars_schema.schema_of_values(frame) if column.dtype != "Null"
    )
