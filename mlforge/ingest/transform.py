"""From a file's rows to events: the user's function, validators, and the normal form."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import Any, NoReturn

import polars as pl

from mlforge.core import clock
from mlforge.core.dropped import rows_in_words
from mlforge.core.forgotten import REASON as FORGOTTEN
from mlforge.core.forgotten import Forgotten
from mlforge.errors import (
    ColumnNotFound,
    DefinitionError,
    FunctionError,
    MlforgeError,
    ValidationError,
    near_hint,
)
from mlforge.features.feature import Feature
from mlforge.features.file_reads import files_in_code, files_read
from mlforge.features.proofs import doubt
from mlforge.frames import normalize, validate
from mlforge.frames.forgotten import rows_of, without
from mlforge.frames.future import future_warning
from mlforge.frames.normalize import EventFrame
from mlforge.frames.polars_schema import row_by_row, times_of
from mlforge.ingest.calling import (
    FunctionFaultError,
    ReadsFilesError,
    TooLargeError,
    among_several,
    collected,
    collected_each,
    size_of,
)
from mlforge.ingest.function_process import FunctionProcess, NotThisCodeError
from mlforge.ingest.intake import FAULTS, FUNCTION_FAULTS, NotProvenError
from mlforge.ingest.returned import described
from mlforge.ingest.side_tables import SideTables
from mlforge.sources import sandbox

_LACKING = re.compile(r'unable to find column "(.+?)"; valid columns')
_LONG_ROWS = 8_192  # of a file, on average: so many need not lie in one piece with those of others


@dataclass(frozen=True, slots=True)
class FileRows:
    """A function's input: rows, which file they are of, and the columns that the file has and they lack."""

    frame: pl.DataFrame
    where: str
    left_out: Mapping[str, str] = field(default_factory=dict)
    files: int = 1


@dataclass(frozen=True, slots=True)
class Transformed:
    """Normalised events, the rows left out by reason, what to warn of, and the columns that were Enums."""

    events: pl.DataFrame
    dropped: dict[str, int]
    warnings: tuple[str, ...]
    listed: frozenset[str]


class Transform:
    """A feature's function with its validators.

    max_bytes: memory that the function's result for one file may take. hive: the columns that only the source's
    folder names hold. tables: the function's further arguments
    besides its rows. process: where a function that is not proven row-wise is bounded. forgotten: entities whose rows
    are left out.
    """

    def __init__(
        self,
        feature: Feature,
        hive: Collection[str],
        tables: SideTables,
        max_bytes: int | None,
        process: FunctionProcess | None,
        forgotten: Forgotten,
    ) -> None:
        self.forgotten = forgotten
        self.feature, self._max_bytes, self._process = feature, max_bytes, process
        self._hive, self._tables = ", ".join(sorted(hive)), tables
        self._checked: set[tuple[tuple[str, pl.DataType], ...]] = set()  # schemas

    def run(self, rows: FileRows, *, alone: bool) -> Transformed:
        """The events of a file's rows. alone: refuse a function that must see the whole source.

        Raises one of FAULTS for rows that do not do, NotProvenError if `alone` is not to be had.
        """
        return self.finish(rows, self.apply(rows, alone=alone))

    def finish(self, rows: FileRows, returned: pl.DataFrame) -> Transformed:
        """The events of the rows that the function returned for a file's. Raises one of FAULTS."""
        feature, where = self.feature, rows.where
        returned, left_out = without(returned, self.forgotten)
        try:
            report = validate.check(feature.validators, returned, f"{feature.name}: {where}")
            if report.failed:
                hint = self.hint if any(failure.lacking for failure in report.failures) else ""
                raise ValidationError(f"{feature.name}: {where}: {report.text()}{hint}")
            normal = normalize.normalise(feature.spec, report.kept, f"{feature.name}: {where}")
        except ColumnNotFound as error:
            raise ColumnNotFound(f"{error}{_left_out(rows)}{self.hint}") from error
        events = normal.frame
        dropped = {**asdict(normal.dropped), FORGOTTEN: left_out}
        if report.dropped:
            dropped["validators"] = report.dropped
        warnings = [f"{where}: {report.text()}"] if report.failures else []
        if report.kept.height and not events.height:
            warnings += [f"{where}: none of its rows counts: {rows_in_words(dropped)}"]
        if (times := times_of(events, feature.spec)) is not None:
            timestamp = str(feature.spec.timestamp)
            ahead = future_warning(times.end, clock.now(), where, normal.naive, timestamp)
            warnings += [ahead] if ahead else []
        return Transformed(events, dropped, tuple(warnings), normal.listed)

    def finish_together(self, returned: Sequence[pl.DataFrame]) -> EventFrame | None:
        """The events of several files of one schema, one file's behind the other's, as `finish` gives each file's.

        None where `finish` would refuse, leave out, change or warn of anything in a file.
        """
        feature = self.feature
        try:
            frame, heights = pl.concat(returned), [each.height for each in returned]
            if rows_of(frame, self.forgotten) is not None:
                return None
            if validate.check(feature.validators, frame, feature.name).failures:
                return None
            normal = normalize.normalise_together(feature.spec, frame, heights, feature.name)
        except MlforgeError:
            return None
        if normal is None:
            return None
        times = times_of(normal.frame, feature.spec)
        if times and future_warning(times.end, clock.now(), "", normal.naive):
            return None
        return normal

    @property
    def tables(self) -> SideTables:
        """The function's further arguments."""
        return self._tables

    def call(self, frame: pl.DataFrame | pl.LazyFrame) -> Any:
        """The function's result for a frame, with its tables as frames of the same kind."""
        lazy = isinstance(frame, pl.LazyFrame)
        tables = self._tables.frames
        further = {name: table.lazy() for name, table in tables.items()} if lazy else tables
        return self.feature.function(frame, **further)

    @property
    def hint(self) -> str:
        """The end of a sentence that names the columns found in folder names only."""
        if not self._hive:
            return ""
        return f"; folders' names hold {self._hive}, files do not: write it into the files"

    def apply(self, rows: FileRows, *, alone: bool) -> pl.DataFrame:
        """The function's rows. The lazy plan that is proven is the one that runs. Raises as `run` does."""
        feature, frame = self.feature, rows.frame
        most = None if self._max_bytes is None else self._max_bytes * rows.files
        lazy = alone and feature.incremental is None
        if (reads := files_in_code(feature.function, feature.code_hash)) is not None:
            self._refuse(reads)
        unproven = self._doubt(frame) if lazy else None
        if unproven or not lazy:
            self._check_reads(frame)
        if not lazy:
            return self._returned(rows, frame, most)
        if unproven:
            self._returned(rows, frame, most)
            # The function takes this file, so it is the function that is not row-wise, not the file that is bad.
            raise NotProvenError(unproven)
        if frame.height == 1 and not feature.tables:  # a join may add rows
            with suppress(MlforgeError):  # which is told of the row alone
                return self._returned(rows, among_several(frame).lazy(), most).head(1)
        return self._returned(rows, frame.lazy(), most)

    def apply_each(self, files: Sequence[FileRows]) -> Iterator[pl.DataFrame | MlforgeError]:
        """The function's rows of each of several files of one schema, or why the file is refused: as `apply`, alone.

        Raises NotProvenError.
        """
        together = self._applied_together(files) if len(files) > 1 else None
        yield from map(self._applied, files) if together is None else together

    def _applied(self, rows: FileRows) -> pl.DataFrame | MlforgeError:
        try:
            return self.apply(rows, alone=True)
        except FAULTS as error:
            return error

    def _applied_together(self, files: Sequence[FileRows]) -> list[pl.DataFrame] | None:
        """The function's rows of each file, by one call where that can be; None where files must be tried one by one.

        A proven function without tables adds no row, so a call with the rows of all files tells which are whose if it
        leaves none out. Else it is called for each file, and its plans run together.
        """
        feature, frames = self.feature, [rows.frame for rows in files]
        if feature.incremental is not None or feature.tables:
            return None
        if files_in_code(feature.function, feature.code_hash) or self._doubt(frames[0]):
            return None
        heights = [frame.height for frame in frames]
        try:
            if not _has_categories(frames[0].schema) and sum(heights) > 1:
                are_short = sum(heights) < _LONG_ROWS * len(frames)
                rows = row_by_row(pl.concat(frames, rechunk=are_short))
                returned = collected(feature.function, rows.lazy(), {}, self._max_bytes)
                if returned.height == sum(heights):
                    return _cut(returned, heights)
            return collected_each(feature.function, frames, self._max_bytes)
        except FUNCTION_FAULTS:
            return None

    def _returned(
        self, rows: FileRows, frame: pl.DataFrame | pl.LazyFrame, most: int | None
    ) -> pl.DataFrame:
        """The function's rows, or its fault as the error that names it."""
        name, where = self.feature.name, rows.where
        try:
            returned = self._bounded(frame, most, where)
        except ReadsFilesError as error:
            self._refuse(str(error))
        except DefinitionError:
            raise
        except pl.exceptions.ColumnNotFoundError as error:
            raise self.no_column(error, rows) from error
        except TooLargeError as error:
            raise FunctionError(
                f"{name}: its function {error}; have it make less, split the file, or raise the limit: all of {where}"
            ) from None
        except FunctionFaultError as fault:
            raise FunctionError(f"{name}: its function {fault}") from None
        except MemoryError:
            raise  # the machine is short of it: no fault of a file that would be set aside for it
        except FUNCTION_FAULTS as error:
            raise FunctionError(
                f"{name}: its function failed on {where}: {type(error).__name__}: {_first_line(error)}"
                f"{_without_dtype(rows)}"
            ) from error
        if not isinstance(returned, pl.DataFrame):
            raise FunctionError(f"{name}: its function returned {described(returned)}")
        return returned

    def _bounded(self, frame: pl.DataFrame | pl.LazyFrame, most: int | None, where: str) -> Any:
        """The function's result for a frame; for rows as they are in a process of its own, where there is one.

        A function of such rows may take any memory on the way to its result. A worker calls it here at first, where
        too much of it ends the job's process, and in a process of its own when the job is tried again.
        """
        function, tables, process = self.feature.function, self._tables.frames, self._process
        if process is None or most is None or isinstance(frame, pl.LazyFrame):
            return collected(function, frame, tables, most)
        if not process.at_once:
            with suppress(MemoryError), sandbox.at_most(most + size_of(frame)):
                return collected(function, frame, tables, most)
        try:
            return process.call(self.feature.code_hash, frame, tables, most, where)
        except NotThisCodeError:
            return collected(function, frame, tables, most)

    def _doubt(self, frame: pl.DataFrame) -> str | None:
        """Why the function is not proven to treat each row of such a frame alone; None if it is."""
        feature, tables = self.feature, self._tables.schemas
        return doubt(feature.function, feature.code_hash, frame.schema, tables)

    def _check_reads(self, frame: pl.DataFrame) -> None:
        """Refuse a function that reads files by itself: changes of those files would go unnoticed."""
        schema = tuple(frame.schema.items())
        if schema in self._checked:
            return
        reads = files_read(
            self.feature.function, frame.schema, self._tables.schemas, self.feature.code_hash
        )
        if reads:
            self._refuse(reads)
        self._checked.add(schema)

    def _refuse(self, reads: str) -> NoReturn:
        name = self.feature.name
        raise DefinitionError(
            f"{name}: its function reads files by itself ({reads}), whose changes would go unnoticed; "
            f"name them: @feature(..., tables={{'merchants': 'dim/merchants.parquet'}}) with "
            f"def {name}(df, merchants): ..., or read them into a constant of the module"
        )

    def no_column(self, error: BaseException, rows: FileRows) -> MlforgeError:
        """The error for a column that the function asks for and the file lacks."""
        there = sorted(rows.frame.columns)
        return ColumnNotFound(
            f"{self.feature.name}: its function asks for a column that is not there{_which(error, there)}; "
            f"the source has {', '.join(there)}{_left_out(rows)}{self.hint}"
        )


def _which(error: BaseException, there: Sequence[str]) -> str:
    """The column that polars did not find, with near ones that there are; its own words where they name none."""
    told = _first_line(error)
    lacking = _LACKING.match(told)
    return f", {lacking[1]!r}{near_hint(lacking[1], there)}" if lacking else f" ({told})"


def _has_categories(schema: pl.Schema) -> bool:
    """Whether a column holds categories: how they are held depends on those of the rows beside them."""
    return any("Categorical" in str(dtype) for dtype in schema.dtypes())


def _cut(frame: pl.DataFrame, heights: Sequence[int]) -> list[pl.DataFrame]:
    """The runs of so many rows of which a frame consists."""
    starts = accumulate(heights, initial=0)
    return [frame.slice(start, height) for start, height in zip(starts, heights, strict=False)]


def _left_out(rows: FileRows) -> str:
    """Which columns of the file are not in its rows, and why, as the end of a sentence."""
    if not rows.left_out:
        return ""
    columns = "; ".join(f"{name!r}: {reason}" for name, reason in sorted(rows.left_out.items()))
    return f"; left out of the frame: {columns}"


def _without_dtype(rows: FileRows) -> str:
    """Which columns have no value in any file, and so no dtype, as the end of a sentence."""
    names = [name for name, dtype in rows.frame.schema.items() if dtype == pl.Null]
    if not names:
        return ""
    cast = f"pl.col({names[0]!r}).cast(pl.String)"
    return f"; no file has a value of {', '.join(map(repr, names))}, so it has no type yet: cast it first, as in {cast}"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")
