"""A full build: ranges of time, and buckets of entities, that follow from the version's files alone, each evaluated by the same kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from mlforge.build.buckets import buckets_of, together
from mlforge.build.rows import Layout, evaluate, pieces_of
from mlforge.build.tasks import TaskFigures
from mlforge.core import time_model
from mlforge.core.disk import system_number
from mlforge.core.scratch import scratch_folder
from mlforge.core.side_by_side import each_ahead
from mlforge.core.values import TimeRange
from mlforge.engines import Engine, Events
from mlforge.engines.base import rows_at_once
from mlforge.engines.carry import in_ranges
from mlforge.errors import DataError, StoreUnavailable
from mlforge.frames.entity_times import EntityTimes
from mlforge.store import TablePiece

Told = Callable[[TaskFigures], None]


@dataclass(frozen=True, slots=True)
class BuildRange:
    """A range of a full build, or one of the buckets into which its entities are dealt, and the events to evaluate it by.

    entities: those of the bucket, None for all. bucket, buckets: its number, from 1 on, and how many there are.
    """

    times: TimeRange
    events: Events
    entities: EntityTimes | None
    bucket: int = 1
    buckets: int = 1

    @property
    def events_read(self) -> int:
        """How many events are read for it at most."""
        return self.events.rows_within(self._seen)

    @property
    def is_light(self) -> bool:
        """Whether tiles that are cached stand for its events: two such ranges take no more memory than one of events."""
        events = self.events
        return self.buckets == 1 and events.cache.covers(events, self._seen, events.spec.columns)

    def evaluated(self, engine: Engine) -> tuple[pl.DataFrame, TaskFigures]:
        """The range's rows, and the figures of their evaluation."""
        events = replace(self.events, dealt=self.buckets)
        rows = evaluate(engine, events, self.entities or self.times)
        size = int(rows.estimated_size())
        return rows, TaskFigures(
            self.times, self.events_read, rows.height, size, self.bucket, self.buckets
        )

    @property
    def _seen(self) -> TimeRange:
        windows = self.events.windows_since(self.times.start)
        return time_model.events_seen(self.times, windows) if windows else self.times


@dataclass(frozen=True)
class FullBuild:
    """All rows of a timed feature, from its events."""

    engine: Engine
    events: Events
    layout: Layout

    @cached_property
    def at_once(self) -> int:
        """How many stored rows a range should have."""
        return self.layout.chunk_rows or rows_at_once(self.events.spec)

    def ranges(self) -> Iterator[BuildRange]:
        """The ranges, which together cover all of time; one that has buckets comes once for each."""
        for times, events in in_ranges(self.events.as_filed, self.at_once):
            dealt: Sequence[EntityTimes | None] = buckets_of(events, times, self.at_once) or [None]
            for number, entities in enumerate(dealt, 1):
                yield BuildRange(times, events, entities, number, len(dealt))

    def pieces(self, told: Told) -> Iterator[TablePiece]:
        """The pieces of the table, evaluated in this process; told: called with the figures of each range, in their order."""
        spec = self.events.spec
        with ExitStack() as stack:
            spool: Path | None = None
            files: list[Path] = []
            for part, (rows, figures) in self._evaluated():
                told(figures)
                if part.buckets == 1:
                    yield from pieces_of(rows, self.layout, spec.timestamp)
                    continue
                spool = spool or stack.enter_context(_spool(spec.name))
                files.append(spool / f"{part.bucket}.parquet")
                self._spooled(rows, files[-1])
                if part.bucket == part.buckets:
                    yield from self.together(files)
                    files = []

    def _evaluated(self) -> Iterator[tuple[BuildRange, tuple[pl.DataFrame, TaskFigures]]]:
        """Each range with its rows and figures; of those that take little memory two are evaluated side by side."""
        for are_light, some in groupby(self.ranges(), key=lambda part: part.is_light):
            make = partial(each_ahead, ahead=1) if are_light else map
            yield from make(lambda part: (part, part.evaluated(self.engine)), some)

    def _spooled(self, rows: pl.DataFrame, file: Path) -> None:
        """Write a bucket's rows; StoreUnavailable where there is no room for them, DataError where parquet cannot hold them."""
        try:
            rows.write_parquet(file, compression="lz4")
        except (OSError, PolarsError) as error:
            name = self.events.spec.name
            if system_number(error) is not None:
                raise _no_room(name, error) from error
            raise DataError(
                f"{name}: parquet cannot hold rows of a build ({error}); cast their columns in the feature's function"
            ) from error

    def together(self, files: Sequence[Path]) -> Iterator[TablePiece]:
        """The pieces of a range whose buckets' rows lie in files."""
        return together(files, self.events, self.layout, self.at_once)


@contextmanager
def _spool(feature: str) -> Iterator[Path]:
    """A folder in the system's for temporary files, which is gone once the block ends."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(scratch_folder("build"))
        except OSError as error:
            raise _no_room(feature, error) from error
        yield folder


def _no_room(feature: str, error: Exception) -> StoreUnavailable:
    return StoreUnavailable(
        f"{feature}: rows of a build cannot be put aside in the folder for temporary files ({error}); make room there, or set "
        "TMPDIR to a folder with more"
    )
