"""A version's events and the tiles of them that are stored: what every evaluation reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import polars as pl

from mlforge.compilers.base import TIME
from mlforge.core import time_model
from mlforge.core.manifest import Manifest, Partial
from mlforge.core.schema import dtypes
from mlforge.core.values import TimeRange
from mlforge.engines import timeline
from mlforge.engines.tiles import build, cache
from mlforge.engines.tiles.build import Tiles
from mlforge.engines.tiles.cache import CachedTiles
from mlforge.frames import polars_schema
from mlforge.store import Store
from mlforge.store.changes import EventDiff
from mlforge.store.file_tasks import FileScanTask
from mlforge.store.scan import EventScan


@dataclass(frozen=True)
class Events(EventScan):
    """A version's events, of which the store may have tiles.

    store: the store to ask for tiles when they are first read; None where there are none.
    """

    store: Store | None = None

    def traces(
        self, times: TimeRange | None = None, among: pl.DataFrame | None = None
    ) -> pl.LazyFrame:
        """Keys and times of the events, lazily; where tiles are at rest, those of the tiles.

        Of those the starts of intervals are held against the range.
        """
        laid, others = self._parted(times)
        if not laid:
            return self.scan(self.spec.identity, times, among)
        assert self.spec.timestamp is not None
        time = pl.col(TIME).cast(polars_schema.UTC_INSTANT).alias(self.spec.timestamp)
        rows = pl.scan_parquet([one.file for one in laid], glob=False).select(*self.spec.keys, time)
        rest = self._scan(others, self.spec.identity, times, among)
        return pl.concat([self._chosen(rows, times, among), rest])

    def tiles(self, times: TimeRange, among: pl.DataFrame | None = None) -> Tiles | None:
        """The tiles of a range and of some entities; None where not most events have theirs at rest.

        The range begins and ends where intervals do.
        """
        laid, others = self._parted(times)
        if not laid:
            return None
        inside, given = pl.col(TIME).is_between(times.start, times.end), dtypes(self.schema)
        found = [
            replace(
                each,
                rows=polars_schema.of_entities(each.rows.filter(inside), among, self.spec.keys),
            )
            for each in cache.scanned(laid, given)
        ]
        if others:
            rest = timeline.of_events(
                self._scan(others, self.spec.needed(), times, among), self.spec
            )
            found.append(build.made(rest, self.spec, given))
        return build.together(found, given)

    def are_tiled(self, times: TimeRange) -> bool:
        """Whether tiles at rest make every metric over a range, but for what little has none."""
        laid, _ = self._parted(times)
        return bool(laid) and cache.makes(laid, self.spec, dtypes(self.schema))

    def _parted(self, times: TimeRange | None) -> tuple[list[CachedTiles], Sequence[FileScanTask]]:
        """The tiles at rest within a range, and what has none; no tiles unless they are of most events."""
        tasks = self.tasks_within(times)
        found = [(task, self._at_rest(task)) for task in tasks] if self._places else []
        laid = [one for _, one in found if one is not None]
        tiled = sum([task.rows for task, one in found if one is not None])
        others = [task for task, one in found if one is None]
        return (laid, others) if tiled > sum([task.rows for task in others]) else ([], tasks)

    def _at_rest(self, task: FileScanTask) -> CachedTiles | None:
        tiles = self._places.get(task.file) if task.numbers is None else None
        if self.store is None or tiles is None:
            return None
        cached = CachedTiles.read(self.store, self.spec.name, tiles, task.file)
        return None if cached is None or cached.summary is None else cached

    @cached_property
    def _places(self) -> Mapping[str, str]:
        kind = cache.kind_of(self.spec, self.schema)
        return {} if self.store is None or kind is None else self.store.tiles(self.spec.name, kind)


def events_of(store: Store, manifest: Manifest, of: Sequence[Partial] | None = None) -> Events:
    """A manifest's events, or some of its partials."""
    chosen = manifest.partials if of is None else of
    return Events(
        manifest.spec,
        manifest.events,
        tuple(chosen),
        partial(store.plan_files, manifest.name),
        store,
    )


def lay_tiles(store: Store, manifest: Manifest, changes: EventDiff | None) -> None:
    """See that tiles are at rest of what the rows that these changes touch depend on; of all where it is None.

    Call with the lock held. Raises StoreError where they cannot be written.
    """
    spec, times = manifest.spec, None
    if spec.interval is None or (changes is not None and changes.times is None):
        return
    if changes is not None and changes.times is not None:
        touched = time_model.rows_touched(changes.times, spec.windows, spec.interval)
        times = time_model.events_seen(touched, spec.windows)
    cache.lay(store, spec, manifest.events, events_of(store, manifest).tasks_within(times))
