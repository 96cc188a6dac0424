"""A version's events with the cache of their tiles: the input of every evaluation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Self

import polars as pl

from mlforge.core import clock, time_model
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.manifest import Manifest, Partial
from mlforge.core.metrics import MetricColumn
from mlforge.core.time_model import Window
from mlforge.core.values import FIRST_INSTANT, TimeRange
from mlforge.engines.tiles.ahead import TilesAhead
from mlforge.engines.tiles.build import PARTS_OF, are_dense, is_rounded
from mlforge.engines.tiles.by_entity import is_index_due, write_index
from mlforge.engines.tiles.cache import TileCache
from mlforge.engines.tiles.held import kept
from mlforge.engines.tiles.sets import SetCache, needed
from mlforge.engines.tiles.totals import Totals, are_totals_due, write_totals
from mlforge.frames import polars_schema
from mlforge.frames.shared_results import once
from mlforge.store import Store
from mlforge.store.changes import EventDiff
from mlforge.store.entity_index import EntityIndexes
from mlforge.store.scan import EventScan


@dataclass(frozen=True)
class Events(EventScan):
    """A scan of a version's events that knows where their tiles are cached: in `store`, if any.

    whole: the feature with all its columns, whose tiles those are, where `spec` has only some; None where it has all.
    known_totals: the totals of older events, or None for none, once these are not to be looked for in the store. filed: whether no value may
    tell what this machine has cached or holds in memory. dealt: into how many shares of about equally many events the entities are dealt of
    which those of one are evaluated. are_dense: whether tiles take the place of events that are filed.
    """

    store: Store | None = None
    whole: FeatureSpec | None = None
    known_totals: tuple[Totals | None, ...] = ()
    filed: bool = False
    dealt: int = 1
    are_dense: bool = False

    def with_totals(self, totals: Totals | None) -> Events:
        """The same events with these totals, or without any, whatever is stored."""
        return replace(self, known_totals=(totals,))

    @cached_property
    def as_filed(self) -> Events:
        """The same events as their files have them, where values are rounded: no cache of this machine has a part in their last bits."""
        if not is_rounded(self.spec):
            return self
        return replace(self, filed=True, resident=None, by_entity=None, known_totals=(None,))

    def with_tiles(self, many: int, times: TimeRange | None) -> Events:
        """The same events; of those that are filed, files alone tell whether so many tiles are to take the place of those of a range."""
        if not self.filed:
            return self
        events = sum([partial.rows for partial in self.within(times).partials]) // self.dealt
        return replace(self, are_dense=are_dense(events, many))

    def restricted(self, columns: Collection[str]) -> Events:
        """The same events, of which only some value columns are evaluated, and columns that these depend on."""
        return replace(self, spec=self.spec.restricted(columns), whole=self.tiled)

    def of_metrics(self, metrics: Sequence[MetricColumn]) -> Self:
        """The same events, of which just these metrics are evaluated, whether the feature has them or not."""
        return replace(self, spec=replace(self.spec, columns=tuple(metrics), derived=()))

    @property
    def tiled(self) -> FeatureSpec:
        """The feature whose tiles are cached."""
        return self.whole or self.spec

    @cached_property
    def cache(self) -> TileCache:
        """The cache of the events' tiles."""
        return TileCache(self.store, self.tiled, self.schema)

    @cached_property
    def sets(self) -> SetCache:
        """The cache of the sets that stand for the events where tiles do not."""
        return SetCache(None if self.filed else self.store, self.tiled, self.schema)

    @cached_property
    def totals(self) -> Totals | None:
        """The totals of older events, if they are known or stored and some window is over all time."""
        for totals in self.known_totals:
            return totals
        return Totals.find(
            self if self.whole is None else replace(self, spec=self.whole), self.store
        )

    def covers(self, times: TimeRange) -> bool:
        """Whether tiles or totals are stored, so that a range of time costs few events."""
        totals = self.totals
        return self.tiles_cover(times) or (totals is not None and totals.serve(times.end))

    def tiles_cover(self, times: TimeRange) -> bool:
        """Whether tiles of intervals, and sets, are stored in the place of all but few events of a range of time."""
        sets = self.sets.stored(self, times)
        others = [metric for metric in self.spec.columns if needed(metric) not in sets]
        return self.cache.covers(self, times, others)

    def are_tiled(self, times: TimeRange) -> bool:
        """Whether tiles take the place of all but few events of a range of time."""
        if self.filed:
            return self.are_dense and all(m.aggregation in PARTS_OF for m in self.spec.columns)
        return self.cache.covers(self, times, self.spec.columns)

    def reads_all(self, first_point: int) -> bool:
        """Whether some metric over all time reads all events of an entity at a point or later: no totals stand for them."""
        by_totals = self.totals.metrics(first_point) if self.totals else ()
        endless = (m for m in self.spec.columns if m.window.is_endless and kept(m))
        return any(metric not in by_totals for metric in endless)

    def windows_since(self, first_point: int) -> tuple[Window, ...]:
        """The windows that need events before the totals at a point, or at any later one."""
        by_totals = self.totals.metrics(first_point) if self.totals else ()
        return tuple({m.window: None for m in self.spec.columns if m not in by_totals})

    def entities(
        self, ranges: Sequence[TimeRange | None], among: pl.DataFrame | None = None
    ) -> pl.DataFrame:
        """Distinct keys of the events in any of some ranges, at least one; None is all of time.

        The ranges are in order and do not overlap. among: keys of the entities to keep.
        """
        frames = () if among is None else (among,)
        return once(
            "entities",
            lambda: (self.content, tuple(ranges), among is None),
            lambda: self._entities(ranges, among),
            *frames,
        )

    def _entities(
        self, ranges: Sequence[TimeRange | None], among: pl.DataFrame | None
    ) -> pl.DataFrame:
        keys, (first, last) = list(self.spec.entity), (ranges[0], ranges[-1])
        scans = [self._identities(times, among).select(keys) for times in ranges]
        hull = first.union(last) if first and last else None
        engine = polars_schema.engine_for(self.rows_within(hull))
        return pl.concat(scans).unique().collect(engine=engine)

    def _identities(self, times: TimeRange | None, among: pl.DataFrame | None) -> pl.LazyFrame:
        is_since_ever = times is not None and times.start < FIRST_INSTANT
        if (
            times is not None
            and is_since_ever
            and self.totals
            and times.end >= self.totals.until - 1
        ):
            return self.totals.identities(self, times.end, among)
        return self.cache.identities(self, times, among)


def events_of(
    store: Store, manifest: Manifest, partials: Sequence[Partial] | None = None
) -> Events:
    """The events of a version, or of some of its partials."""
    chosen = manifest.partials if partials is None else partials
    return Events(
        manifest.spec,
        manifest.events,
        tuple(chosen),
        partial(store.plan_files, manifest.name),
        store,
        fetches=store.fetches_files,
        resident=store.resident(manifest),
        by_entity=EntityIndexes(store, manifest.spec, manifest.events),
        version=manifest,
    )


def cache_tiles(
    store: Store, manifest: Manifest, diff: EventDiff | None, ahead: TilesAhead | None = None
) -> None:
    """Cache the tiles of the events on which the rows that a diff touches depend; of all without a diff.

    ahead: some that are built already. Call with the feature's lock held. Raises StoreError where they cannot be written.
    """
    spec, times = manifest.spec, None
    if spec.has_endless:
        events = events_of(store, manifest)
        write_totals(events, store, manifest.reached(clock.now()), overdue=True)
        write_index(events, store, overdue=True)
    if spec.interval is None or (diff is not None and diff.times is None):
        return
    if diff is not None and diff.times is not None:
        touched = time_model.rows_touched(diff.times, spec.windows, spec.interval)
        times = time_model.events_seen(touched, spec.windows)
    events = events_of(store, manifest)
    tasks = events.tasks_within(times)
    events.cache.write(tasks, ahead.of_kind if ahead is not None else None)
    events.sets.write(tasks)


def keep_all_time(store: Store, latest: Manifest) -> None:
    """Bring up to date what windows over all time need of the served version, behind its push: totals, the index of entities.

    Raises StoreError where it cannot be written.
    """
    if not latest.spec.has_endless:
        return
    events, newest = events_of(store, latest), latest.reached(clock.now())
    if not are_totals_due(events, store, newest) and not is_index_due(events, store):
        return
    with store.lock(latest.name):
        served = store.latest(latest.name)
        if served is not None:
            events = events_of(store, served)
            write_totals(events, store, served.reached(clock.now()))
            write_index(events, store)
