"""A full build: ranges of time that follow from the version's files alone, each evaluated by the same kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mlforge.build.rows import Layout, evaluate, pieces_of
from mlforge.build.tasks import TaskFigures
from mlforge.core import time_model
from mlforge.core.values import TimeRange
from mlforge.engines import Engine, Events
from mlforge.engines.base import rows_at_once
from mlforge.engines.carry import in_ranges
from mlforge.store import TablePiece

Told = Callable[[TaskFigures], None]


@dataclass(frozen=True, slots=True)
class BuildRange:
    """A range of a full build, and the events to evaluate it by."""

    times: TimeRange
    events: Events

    @property
    def events_read(self) -> int:
        """How many events are read for it at most."""
        windows = self.events.windows_since(self.times.start)
        seen = time_model.events_seen(self.times, windows) if windows else self.times
        return self.events.rows_within(seen)

    def evaluated(self, engine: Engine, layout: Layout, told: Told) -> Iterator[TablePiece]:
        """The range's rows in pieces; told: called with the figures once they are known."""
        rows = evaluate(engine, self.events, self.times)
        told(TaskFigures(self.times, self.events_read, rows.height, int(rows.estimated_size())))
        yield from pieces_of(rows, layout, self.events.spec.timestamp)


@dataclass(frozen=True)
class FullBuild:
    """All rows of a timed feature, from its events."""

    engine: Engine
    events: Events
    layout: Layout

    def ranges(self) -> Iterator[BuildRange]:
        """The ranges, which together cover all of time."""
        at_once = self.layout.chunk_rows or rows_at_once(self.events.spec)
        for times, events in in_ranges(self.events, at_once):
            yield BuildRange(times, events)

    def pieces(self, told: Told) -> Iterator[TablePiece]:
        """The pieces of the table, evaluated in this process one range after the other."""
        for part in self.ranges():
            yield from part.evaluated(self.engine, self.layout, told)
