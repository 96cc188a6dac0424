"""Events computed from the raw files by the feature's function alone, without engines and stored events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl
from polars.exceptions import PolarsError

from mlforge.core import reference
from mlforge.core.manifest import Manifest
from mlforge.core.reference import Row
from mlforge.errors import FunctionError, IntegrityError, SourceError
from mlforge.features.feature import Feature
from mlforge.frames import polars_schema, validate
from mlforge.frames.common_form import in_common_form
from mlforge.frames.forgotten import without
from mlforge.frames.milliseconds import in_microseconds
from mlforge.ingest.intake import FUNCTION_FAULTS
from mlforge.ingest.null_columns import NullColumns
from mlforge.ingest.side_tables import SideTables
from mlforge.ingest.transform import Transform
from mlforge.ingest.whole_columns import without_stray
from mlforge.maintenance.sampling import Entity, Sample, by_entity
from mlforge.sources.damage import DAMAGE
from mlforge.sources.parquet_reader import read
from mlforge.sources.row_source import RowSource
from mlforge.store import Store
from mlforge.store.file_tasks import read_place


@dataclass(frozen=True, slots=True)
class RawFile:
    """A source file by its content, and the partial that a version has of it, if any."""

    path: str
    hash: str
    partial: str | None


@dataclass(frozen=True)
class RawEvents:
    """Sampled entities' events; `unknown` are the entities with events in files that are `gone` from the source."""

    by_entity: dict[Entity, list[Row]]
    unknown: set[Entity] = field(default_factory=set)
    gone: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RawReader:
    """Reads a version's files anew. max_bytes: memory that one file may take; a larger one counts as gone."""

    feature: Feature
    source: RowSource
    store: Store
    manifest: Manifest
    max_bytes: int | None
    tables: SideTables

    def read(self, files: Iterable[RawFile], sample: Sample) -> RawEvents:
        """The sampled entities' events of the files, by path.

        Raises FunctionError where the function fails, IntegrityError where a file is gone and its stored events,
        which tell whose they were, cannot be read.
        """
        events = RawEvents(defaultdict(list))
        whole: dict[str, pl.DataFrame] = {}
        for file in sorted(files, key=lambda file: file.path):
            frame = self._content(file)
            if frame is None:
                events.gone.append(file.path)
                events.unknown.update(self._entities_of(file, sample))
            elif frame.is_empty():
                continue
            elif self.manifest.rowwise:
                self._add(self._apply(frame, file.path), sample, events)
            else:
                whole[file.path] = in_microseconds(self.feature.spec, frame, file.path)
        if whole and not events.gone:
            alike = in_common_form(whole, self.feature.spec.timestamp)
            frames, _ = without_stray(self._transform, alike)
            self._add(
                self._apply(_together([*frames.values()]), "the whole source"), sample, events
            )
        return events

    @cached_property
    def _transform(self) -> Transform:
        """The function, to be asked which columns it goes by."""
        return Transform(self.feature, (), self.tables, None, None, self.store.forgotten())

    @cached_property
    def _nulls(self) -> NullColumns:
        """The dtypes that columns without a value take."""
        return NullColumns(self.store.file_states(self.feature.name))

    @cached_property
    def _rows_of(self) -> dict[str, int]:
        """The number of events of each partial, by its hash: one without any may lack the columns of keys."""
        return {partial.hash: partial.rows for partial in self.manifest.partials}

    @cached_property
    def _paths(self) -> dict[str, list[str]]:
        """The paths where each content was last seen, by its hash."""
        paths: dict[str, list[str]] = defaultdict(list)
        for path, state in self.store.file_states(self.feature.name).items():
            paths[state.hash].append(path)
        return paths

    def _content(self, file: RawFile) -> pl.DataFrame | None:
        """The bytes that the version was made from; None if the source does not hold them any more."""
        for path in dict.fromkeys([file.path, *self._paths.get(file.hash, ())]):
            try:
                content = read(self.source.file(path), self.max_bytes)
            except (SourceError, OSError):
                continue
            if content.hash == file.hash:
                return self._nulls.mended(content.frame)
        return None

    def _entities_of(self, file: RawFile, sample: Sample) -> set[Entity]:
        """Sampled entities of a file that is gone, as its stored events name them."""
        if file.partial is None or not self._rows_of.get(file.partial):
            return set()
        if not sample.keys:
            return {()}
        [place] = self.store.locate(self.feature.name, [file.partial])
        try:
            keys = sample.of_frame(read_place(place, sample.keys))
        except DAMAGE as error:
            raise IntegrityError(
                f"{self.feature.name}: {file.path} is gone, and its stored events cannot be read "
                f"({type(error).__name__}); 'mlforge verify' says what is damaged"
            ) from error
        return set(by_entity(keys, sample.keys))

    def _apply(self, frame: pl.DataFrame, where: str) -> pl.DataFrame:
        """The function's rows that its validators let through."""
        try:
            rows = self._called(frame)
        except FUNCTION_FAULTS as error:
            raise FunctionError(
                f"{self.feature.name}: its function failed on {where} in an audit: "
                f"{type(error).__name__}: {error}"
            ) from error
        rows = without(rows, self.store.forgotten())[0]
        kept = validate.check(self.feature.validators, rows, f"{self.feature.name}: {where}").kept
        return self._widened(kept)

    def _widened(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows with their numbers in the types that the version has them in, which hold those of all its files.

        But for columns that no value follows from: what those types do not hold counts as null.
        """
        dtypes = polars_schema.polars_schema(self.manifest.events)
        return rows.with_columns(
            pl.col(name).cast(dtypes[name], strict=False)
            for name, dtype in rows.schema.items()
            if name in dtypes and dtype.is_numeric() and dtypes[name].is_numeric()
        )

    def _called(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The function's rows of a frame as it is; lazily, as builds call most, if it takes no other."""
        tables = self.tables.frames
        try:
            rows = self.feature.function(frame, **tables)
        except Exception:  # noqa: BLE001 - then the second call tells
            further = {name: table.lazy() for name, table in tables.items()}
            rows = self.feature.function(frame.lazy(), **further)
        return rows.collect() if isinstance(rows, pl.LazyFrame) else rows

    def _add(self, rows: pl.DataFrame, sample: Sample, events: RawEvents) -> None:
        timestamp = self.feature.spec.timestamp
        for entity, entity_rows in by_entity(sample.of_frame(rows), sample.keys, timestamp).items():
            timed = [row for row in entity_rows if timestamp is None or row[timestamp] is not None]
            if timed:
                events.by_entity[entity] += map(reference.clean, timed)


def _together(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The rows of several files; without the columns for which these have no dtype in common: no value follows from those."""
    by_name: dict[str, list[pl.DataFrame]] = defaultdict(list)
    for frame in frames:
        for name in frame.columns:
            by_name[name].append(frame.select(name).clear())
    unlike = [name for name, heads in by_name.items() if not _go_together(heads)]
    return pl.concat([frame.drop(unlike, strict=False) for frame in frames], how="diagonal_relaxed")


def _go_together(frames: Sequence[pl.DataFrame]) -> bool:
    try:
        pl.concat(frames, how="vertical_relaxed")
    except PolarsError:
        return False
    return True
