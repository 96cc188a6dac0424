"""The scan of a version's events: which partials, what is read for them, and their rows, lazily."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Self

import polars as pl

from mlforge.core import time_model
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.list_diff import replaced_partials
from mlforge.core.manifest import Manifest, Partial, digest_of
from mlforge.core.schema import Schema
from mlforge.core.time_model import Window
from mlforge.core.values import BEGINNING, END, TimeRange
from mlforge.frames import polars_schema
from mlforge.frames.entity_times import EntityTimes, entities_and_hull
from mlforge.store import file_tasks
from mlforge.store.base import Store
from mlforge.store.entity_index import EntityIndex, EntityIndexes
from mlforge.store.file_tasks import FileScanTask
from mlforge.store.resident import Resident


@dataclass(frozen=True)
class EventScan:
    """A scan of a version's events: its partials, their common schema, and the feature's spec.

    `plan_files` plans scan tasks for partials; it is called at the first read, for all of them: or, where it `fetches` their files,
    at each, for those alone that hold an event in the range. `resident`: events that are in memory, of these partials or
    of others, so that no files need be planned and read for them. `version`: the one whose events these are, or some of them.
    """

    spec: FeatureSpec
    schema: Schema
    partials: tuple[Partial, ...]
    plan_files: Callable[[Sequence[Partial]], Sequence[FileScanTask]]
    fetches: bool = field(default=False, kw_only=True)
    resident: Resident | None = field(default=None, kw_only=True)
    by_entity: EntityIndexes | None = field(default=None, kw_only=True)
    version: Manifest | None = field(default=None, kw_only=True, repr=False, compare=False)

    def within(self, times: TimeRange | None) -> Self:
        """Only the partials that hold an event in the range."""
        if times is None:
            return self
        start, end = times.start, times.end  # as `overlaps`, which thousands of calls would slow
        kept = [p for p in self.partials if (t := p.times) and t.start <= end and start <= t.end]
        return replace(self, partials=tuple(kept))

    def rows_within(self, times: TimeRange | None) -> int:
        """How many rows are read for the range, at most."""
        if times is not None and self.resident is not None and self.is_resident(times):
            _, newer = self._beside_resident
            beside = [p.rows for p in newer if p.times and p.times.overlaps(times)]
            return self.resident.many(times) + sum(beside)
        if self.fetches:
            return sum([partial.rows for partial in self.within(times).partials])
        return sum([task.rows for task in self.tasks_within(times)])

    @cached_property
    def tasks(self) -> Sequence[FileScanTask]:
        """Scan tasks for all partials."""
        return self.plan_files(self.partials) if self.partials else ()

    def tasks_within(self, times: TimeRange | None) -> Sequence[FileScanTask]:
        """Scan tasks for a range of time."""
        if times is None:
            return self.tasks
        if not self.fetches:
            return [task for task in self.tasks if task.overlaps(times)]
        held = self.within(times).partials
        return self._planned(held)

    def scan(
        self,
        columns: Sequence[str] | None = None,
        times: TimeRange | None = None,
        among: pl.DataFrame | None = None,
    ) -> pl.LazyFrame:
        """The events, lazily: some columns, those of a time range and of some entities, in no particular order."""
        chosen, resident = self._columns(columns), self.resident
        if resident is None or times is None or not self._is_resident(chosen, times):
            looked_up = self._looked_up(columns, times, among)
            if looked_up is not None:
                return looked_up
            return self.scan_tasks(self.tasks_within(times), columns, times, among)
        gone, newer = self._beside_resident
        held = resident.held(gone, times, among).select(column.name for column in chosen)
        rows = polars_schema.with_entities(held, self.spec)
        tasks = self._planned([p for p in newer if p.times and p.times.overlaps(times)])
        return pl.concat([rows, self.scan_tasks(tasks, columns, times, among)]) if tasks else rows

    def is_resident(self, times: TimeRange | None) -> bool:
        """Whether the columns that evaluation needs are in memory for a range, but for those of newer files."""
        return self._is_resident(self._columns(self.spec.needed()), times)

    @property
    def has_index(self) -> bool:
        """Whether an index of entities is stored."""
        return self._index is not None

    def looks_up(self, times: TimeRange, among: pl.DataFrame, most: int) -> bool:
        """Whether the index of entities gives the columns that evaluation needs of some entities, in at most so many events."""
        index = self._index
        if index is None:
            return False
        columns = self._columns(self.spec.needed())
        places = index.places_of(self.partials, columns, times, among)
        return places is not None and places.many <= most

    def rows(
        self, columns: Sequence[str] | None, within: TimeRange | EntityTimes | None
    ) -> pl.LazyFrame:
        """The events of a range of time, or of some entities within a range of their own; otherwise as `scan`."""
        among, times = entities_and_hull(within)
        rows = self.scan(columns, times, among)
        if self.spec.timestamp is None or not isinstance(within, EntityTimes):
            return rows
        return within.rows(rows, polars_schema.microseconds(self.spec.timestamp))

    def ranges(self, rows: int, windows: Iterable[Window] | None = None) -> list[TimeRange]:
        """Ranges that together cover all of time, each with about this many events.

        None is shorter than the longest window, by default of all the feature's: each range needs the events of one before
        it, which must not outweigh its own.
        """
        longest = time_model.longest(self.spec.windows if windows is None else windows)
        timed = sorted((p.times.end, p.rows) for p in self.partials if p.times)
        begun = min((p.times.start for p in self.partials if p.times), default=0)
        cuts, gathered = [BEGINNING], 0
        for end, count in timed[:-1]:
            gathered += count
            if gathered >= rows and end - begun >= longest:
                cuts.append(end + 1)
                begun, gathered = end + 1, 0
        return [TimeRange(a, b - 1) for a, b in pairwise([*cuts, END])]

    def scan_tasks(
        self,
        tasks: Sequence[FileScanTask],
        columns: Sequence[str] | None,
        times: TimeRange | None,
        among: pl.DataFrame | None,
    ) -> pl.LazyFrame:
        """The events of some of the scan's tasks, lazily; otherwise as `scan`."""
        chosen = self._columns(columns)
        since = BEGINNING if times is None else times.start
        return self.chosen(file_tasks.scan(tasks, chosen, since=since), times, among)

    def chosen(
        self, rows: pl.LazyFrame, times: TimeRange | None, among: pl.DataFrame | None
    ) -> pl.LazyFrame:
        """The rows of a time range and of some entities."""
        if times is not None and self.spec.timestamp is not None:
            start, end = polars_schema.instant(times.start), polars_schema.instant(times.end)
            rows = rows.filter(pl.col(self.spec.timestamp).is_between(start, end))
        rows = polars_schema.with_entities(rows, self.spec)
        return polars_schema.of_entities(rows, among, self.spec.entity)

    def _looked_up(
        self, columns: Sequence[str] | None, times: TimeRange | None, among: pl.DataFrame | None
    ) -> pl.LazyFrame | None:
        """The events of some entities by the index of entities; None without one, or where it does not pay."""
        index = self._index if among is not None else None
        if index is None or among is None or self.spec.timestamp is None:
            return None
        chosen = self._columns(columns)
        looked = index.looked_up(self.partials, chosen, times, among, self.spec.timestamp)
        if looked is None:
            return None
        rows = looked.rows.lazy().select(column.name for column in chosen)
        others = replace(self, partials=tuple(looked.others), by_entity=None)
        tasks = others.within(times).tasks
        return pl.concat([rows, others.scan_tasks(tasks, columns, times, among)]) if tasks else rows

    @property
    def _index(self) -> EntityIndex | None:
        return self.by_entity.stored if self.by_entity is not None else None

    def _columns(self, names: Sequence[str] | None) -> Schema:
        chosen = tuple(c for c in self.schema if names is None or c.name in names)
        return chosen or self.schema[:1]  # rows without a column would be none

    def _is_resident(self, columns: Schema, times: TimeRange | None) -> bool:
        if self.resident is None or not self.resident.holds(columns, times):
            return False
        if 2 * len(self.partials) <= len(self.resident.partials):
            return False  # whichever they are, as many are gone
        gone, _ = self._beside_resident
        return 2 * len(gone) < len(self.resident.partials)  # else few rows there are the scan's

    @cached_property
    def content(self) -> Hashable:
        """A key of the events: equal for scans of the same events, whatever feature asks and whatever files they lie in."""
        version = self.version
        if version is not None and version.partials is self.partials:
            digest = version.sums.digest  # of very many files it is known by now
        else:
            digest = digest_of(self.partials)
        return self.spec.keys, self.spec.timestamp, self.schema, digest

    def _planned(self, partials: Sequence[Partial]) -> Sequence[FileScanTask]:
        return self.plan_files(partials) if partials else ()

    @cached_property
    def _beside_resident(self) -> tuple[Sequence[Partial], Sequence[Partial]]:
        """The partials that are resident and not the scan's, and those of the scan that are not resident."""
        return replaced_partials(self.resident.partials if self.resident else (), self.partials)


def event_scan(
    store: Store, manifest: Manifest, partials: Sequence[Partial] | None = None
) -> EventScan:
    """The scan of a version's events, or of some of its partials."""
    chosen = manifest.partials if partials is None else partials
    return EventScan(
        manifest.spec,
        manifest.events,
        tuple(chosen),
        partial(store.plan_files, manifest.name),
        fetches=store.fetches_files,
        resident=store.resident(manifest),
        by_entity=EntityIndexes(store, manifest.spec, manifest.events),
        version=manifest,
    )
