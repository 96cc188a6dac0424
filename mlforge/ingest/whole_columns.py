"""Columns of files that a function sees as one: which of them it reads, and those that files may lack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import polars as pl
from polars.io.plugins import register_io_source

from mlforge.errors import MlforgeError, SourceError
from mlforge.features.feature import Function
from mlforge.frames import polars_schema
from mlforge.ingest.intake import FUNCTION_FAULTS
from mlforge.ingest.transform import FileRows, Transform


def without_stray(
    transform: Transform, frames: Mapping[str, pl.DataFrame]
) -> tuple[dict[str, pl.DataFrame], dict[str, list[str]]]:
    """The frames without columns that most files lack, and that the function reads, does not hand on, and does without.

    One file with a further column would set all others aside where the function goes by all columns, as `unique()` does.
    Returns these columns, too, each with the paths of the files that have it.
    """
    having_rows = [frame for frame in frames.values() if frame.height]
    holders = Counter(name for frame in having_rows for name in frame.columns)
    rare = [name for name, files in holders.items() if 2 * files <= len(having_rows)]
    if not rare:
        return dict(frames), {}
    columns = WholeColumns.of(transform, frames)
    stray = [name for name in rare if columns.is_read_alone(name)]
    if not stray or not columns.are_dispensable(stray):
        return dict(frames), {}
    paths = {name: [path for path, f in frames.items() if name in f.columns] for name in stray}
    return {path: frame.drop(stray, strict=False) for path, frame in frames.items()}, paths


@dataclass(frozen=True)
class WholeColumns:
    """The columns of all files, and the columns that the function reads; None where those are unknown."""

    transform: Transform
    union: pl.Schema
    used: set[str] | None

    @classmethod
    def of(cls, transform: Transform, frames: Mapping[str, pl.DataFrame]) -> WholeColumns:
        """The columns of these frames, by path."""
        columns = {name: dtype for frame in frames.values() for name, dtype in frame.schema.items()}
        union = pl.Schema(columns)
        return cls(transform, union, _columns_read(transform.call, union))

    def is_read_alone(self, name: str) -> bool:
        """Whether the function reads a column, but neither hands it on nor must have it."""
        is_read = self.used is None or name in self.used
        return (
            is_read and name not in self.output and name not in self.transform.feature.spec.needed()
        )

    def are_dispensable(self, names: Collection[str]) -> bool:
        """Whether the function takes rows without these columns."""
        try:
            self._output(
                pl.DataFrame(schema={n: d for n, d in self.union.items() if n not in names})
            )
        except FUNCTION_FAULTS:
            return False
        return True

    @cached_property
    def output(self) -> list[str]:
        """The function's columns, given all of the files'; none if it fails without rows."""
        try:
            return self._output(pl.DataFrame(schema=self.union))
        except FUNCTION_FAULTS:
            return []

    def lacking(self, path: str, frame: pl.DataFrame) -> MlforgeError | None:
        """The reason why a file may not lack columns that other files have; None if nulls can stand in for them.

        The function is called with no rows of the file's own columns. What it reads but does not hand on
        must be there, as nothing tells what it makes of nulls.
        """
        absent = [name for name in self.union if name not in frame.columns]
        read = [name for name in absent if self.used is None or name in self.used]
        transform, spec = self.transform, self.transform.feature.spec
        for name in read:
            if name not in self.output or name in spec.needed():
                dtype = polars_schema.dtype_text(self.union[name])
                return SourceError(
                    f"{path}: no column {name!r}, which other files have as {dtype}{transform.hint}"
                )
        if not read:
            return None
        try:
            self._output(frame.clear())
        except pl.exceptions.ColumnNotFoundError as error:
            return transform.no_column(error, FileRows(frame, path))
        except FUNCTION_FAULTS:
            return None  # for want of rows, perhaps
        return None

    def _output(self, frame: pl.DataFrame) -> list[str]:
        rows: pl.DataFrame | pl.LazyFrame = self.transform.call(frame)
        return rows.collect_schema().names()


def _columns_read(function: Function, schema: pl.Schema) -> set[str] | None:
    """The columns that the function's plan reads from frames of this schema; None where they are unknown."""
    requested: list[list[str] | None] = []

    def source(columns: list[str] | None, *_: object) -> Iterator[pl.DataFrame]:
        requested.append(columns)
        yield pl.DataFrame(schema=schema).select(columns or pl.all())

    try:
        plan = function(register_io_source(source, schema=schema))
        if requested or not isinstance(plan, pl.LazyFrame):
            return None
        plan.collect()
    except FUNCTION_FAULTS:
        return None
    return None if None in requested else {name for columns in requested for name in columns or ()}
