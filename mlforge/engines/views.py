"""Views: a version's events as of an instant; and the events that one or two of them see, gathered in memory once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import polars as pl

from mlforge.core import time_model
from mlforge.core.list_diff import replaced_partials
from mlforge.core.manifest import Partial
from mlforge.core.values import BEGINNING, FIRST_INSTANT, TimeRange
from mlforge.engines.evaluation import active_times
from mlforge.engines.events import Events
from mlforge.engines.tiles.totals import Totals
from mlforge.frames import polars_schema
from mlforge.frames.entity_times import EntityTimes
from mlforge.frames.shared_results import ByIdentity, once
from mlforge.store.integrity import intact

_NOWHEN = TimeRange(BEGINNING, BEGINNING)
_ACTIVE = ("__active", "__active_before")


@dataclass(frozen=True)
class AsOfView:
    """A version's events as of an instant, None for an untimed feature or before there are events."""

    events: Events
    as_of: int | None

    @property
    def seen(self) -> TimeRange | None:
        """The event times that values may depend on; None where events have none."""
        spec = self.events.spec
        if spec.timestamp is None:
            return None
        if self.as_of is None:
            return _NOWHEN
        if not spec.columns:
            return TimeRange(BEGINNING, self.as_of)
        at = time_model.point(self.as_of, spec.interval)
        return time_model.events_seen(TimeRange(at, at), spec.windows)

    @property
    def is_active(self) -> pl.Expr:
        """Whether an event gives its entity a value."""
        time, ranges = pl.col(str(self.events.spec.timestamp)), []
        for times in active_times(self.events.spec, self.as_of):
            if times is None:
                return pl.lit(True)
            first, last = map(polars_schema.instant, (times.start, times.end))
            ranges.append(time.is_between(first, last))
        return pl.any_horizontal(ranges) if ranges else pl.lit(False)


@dataclass(frozen=True)
class HeldEvents(Events):
    """Events in memory.

    older: all events, among which those of a range that begins before the instant `since` are; None where all that anybody asks for are here.
    """

    frame: pl.DataFrame = field(kw_only=True)
    older: Events | None = field(default=None, kw_only=True)
    since: int = field(default=BEGINNING, kw_only=True)

    @cached_property
    def content(self) -> Hashable:
        """A key of this very frame, as no partials name its events."""
        return self.spec.keys, self.spec.timestamp, self.schema, ByIdentity(self.frame)

    def rows_within(self, times: TimeRange | None) -> int:
        """All of them, whatever the range."""
        return self.frame.height

    def within(self, times: TimeRange | None) -> Self:
        """All of them, whatever the range."""
        return self

    def scan(
        self,
        columns: Sequence[str] | None = None,
        times: TimeRange | None = None,
        among: pl.DataFrame | None = None,
    ) -> pl.LazyFrame:
        """From memory, but for a range that begins before what is held."""
        if self.older is not None and (times is None or times.start < self.since):
            return self.older.scan(columns, times, among)
        rows = self.frame.lazy()
        if columns is not None:
            names = {*columns, *self.spec.entity}
            rows = rows.select(name for name in self.frame.columns if name in names)
        return self.chosen(rows, times, among)

    def entities(
        self, ranges: Sequence[TimeRange | None], among: pl.DataFrame | None = None
    ) -> pl.DataFrame:
        """Distinct keys; never those that were found among other events."""
        return self._entities(ranges, among)


@dataclass(frozen=True, slots=True)
class _Frames:
    """Events that all views see, those that each has alone, and all that the first sees."""

    shared: pl.DataFrame
    own: Sequence[pl.DataFrame]
    seen: pl.DataFrame


@dataclass(frozen=True, slots=True)
class OnlineRows:
    """Keys and values of the entities that have a value, by an engine; and how many of these and others had one before."""

    engine: str
    rows: pl.DataFrame
    had: int


@dataclass(frozen=True)
class OfFunction:
    """The events that values of all features of one function follow from, through the windows of any, and the rows that may change."""

    gathered: Gathered
    rows: EntityTimes

    def estimated_size(self) -> int:
        """The bytes of the events."""
        frames = self.gathered.frames
        return sum(int(frame.estimated_size()) for frame in (frames.seen, *frames.own[1:]))


@dataclass(frozen=True)
class Gathered:
    """Events in memory of one view or two: of files that both have, and of files that each has alone.

    among: keys of the entities that they are of, None for all. times: a range in which all events of theirs are here, None where only
    those are that the views see. online: the rows of the first view, where they were evaluated beside others. totals: of older events
    of theirs, which both views see, in memory; None where no older event is seen. changed: keys of the entities whose events differ
    between the views, where that is known. beside: the events for all features of the function that the job serves, these among them;
    None where there are no others.
    """

    views: Sequence[AsOfView]
    among: pl.DataFrame | None
    times: TimeRange | None
    frames: _Frames
    online: OnlineRows | None = None
    totals: Totals | None = None
    changed: pl.DataFrame | None = None
    beside: OfFunction | None = None

    @property
    def events(self) -> HeldEvents:
        """The events that the first view sees."""
        of, frame = self.views[0].events, self.frames.seen
        held = HeldEvents(
            of.spec, of.schema, (), of.plan_files, known_totals=(self.totals,), frame=frame
        )
        if self.totals is None or self.times is None:
            return held
        return replace(held, older=of, since=self.times.start)

    def has_all_of(self, rows: EntityTimes) -> bool:
        """Whether all events that rows of these entities see are here."""
        if self.times is None or rows.hull is None:
            return False
        windows = self.events.windows_since(rows.hull.start)
        seen = time_model.events_seen(rows.hull, windows) if windows else rows.hull
        # A window over all time begins so long before each point, and no event lies before the first instant.
        return self.times.start <= max(seen.union(rows.hull).start, FIRST_INSTANT)

    def active_entities(self) -> tuple[pl.DataFrame, int]:
        """Keys of the entities that have a value in the first view, and how many have one in the second."""
        spec, ends = (
            self.views[0].events.spec,
            [active_times(v.events.spec, v.as_of) for v in self.views],
        )
        key = spec.entity, spec.timestamp, tuple(map(tuple, ends))
        older = self._older_entities
        frames = self.frames.shared, *self.frames.own, *older
        return once("active entities", lambda: key, lambda: self._active_entities(older), *frames)

    @property
    def _older_entities(self) -> list[pl.DataFrame]:
        """Keys of the entities that totals stand for, each of which has a value in all views; nothing without totals."""
        if self.totals is None:
            return []
        keys = self.totals.tiles.rows.select(self.totals.spec.entity)
        return [polars_schema.in_memory(keys)]

    def _active_entities(self, older: Sequence[pl.DataFrame]) -> tuple[pl.DataFrame, int]:
        keys, first, second = list(self.views[0].events.spec.entity), self.views[0], self._second
        seen_by: list[tuple[pl.DataFrame, tuple[AsOfView | None, AsOfView | None]]] = [
            (self.frames.shared, (first, second)),
            (self.frames.own[0], (first, None)),
            *((frame, (None, second)) for frame in self.frames.own[1:]),
        ]
        rows = [
            frame.lazy().select(
                *keys,
                *(
                    (view.is_active if view else pl.lit(False)).alias(flag)
                    for view, flag in zip(views, _ACTIVE, strict=True)
                ),
            )
            for frame, views in seen_by
        ]
        flags = [pl.lit(True).alias(flag) for flag in _ACTIVE]
        rows += [frame.lazy().select(*keys, *flags) for frame in older]
        entities = polars_schema.in_memory(
            pl.concat(rows).group_by(keys).agg(pl.col(_ACTIVE).any())
        )
        in_first, in_second = (entities[flag] for flag in _ACTIVE)
        return entities[keys][in_first.arg_true()], int(in_second.sum())

    @property
    def _second(self) -> AsOfView | None:
        return self.views[1] if len(self.views) > 1 else None


def gather(
    views: Sequence[AsOfView],
    among: pl.DataFrame | None = None,
    part: pl.Expr | None = None,
    within: TimeRange | None = None,
) -> Gathered:
    """The events that one view sees, or two of a feature, of some entities; events that both see are read once.

    among: keys of the entities, None for all. part: whether an event is wanted, too. within: a range that holds what two views
    see, of which all events are wanted, seen or not. Raises IntegrityError where stored events are missing or damaged.
    """
    events, times = views[0].events, [view.seen for view in views]
    spec, union = events.spec, within or _shared(times)
    columns = spec.needed() if spec.columns else None
    own_partials = [view.events.partials for view in views]
    common: tuple[Partial, ...] = ()
    if union is not _NOWHEN:
        went, came = replaced_partials(own_partials[1], own_partials[0])
        common, own_partials = _without(own_partials[1], went), [tuple(came), tuple(went)]
        times = [union, union]

    def scanned(partials: tuple[Partial, ...], when: TimeRange | None) -> pl.LazyFrame:
        rows = replace(events, partials=partials).scan(columns, when, among)
        return rows if part is None else rows.filter(part)

    def collected() -> list[pl.DataFrame]:
        scans = [scanned(common, union)]
        scans += [scanned(own, when) for own, when in zip(own_partials, times, strict=True) if own]
        engine = polars_schema.engine_for(events.rows_within(times[0]))
        shared, *others = pl.collect_all(scans, engine=engine)
        own_frames = [others.pop(0) if own else shared.clear() for own in own_partials]
        return [shared, *own_frames, pl.concat([shared, own_frames[0]])]

    def key() -> Hashable:
        contents = tuple(view.events.content for view in views)
        return columns, tuple(times), contents, among is None, within

    of = () if among is None else (among,)
    with intact(spec.name):
        frames = collected() if part is not None else once("held events", key, collected, *of)
    shared, *own, seen = frames
    return Gathered(views, among, within, _Frames(shared, own, seen))


def distinct(frames: Sequence[pl.DataFrame], keys: Sequence[str]) -> pl.DataFrame:
    """The distinct entities of some frames."""

    def compute() -> pl.DataFrame:
        together = pl.concat([frame.lazy().select(keys) for frame in frames])
        return polars_schema.in_memory(together.unique())

    return once("distinct entities", lambda: tuple(keys), compute, *frames)


def _without(partials: tuple[Partial, ...], some: Sequence[Partial]) -> tuple[Partial, ...]:
    """The partials but for some of them, each as often as it is listed."""
    if not some:
        return partials
    counts = Counter(partial.hash for partial in some)
    others = []
    for partial in partials:
        if counts[partial.hash] > 0:
            counts[partial.hash] -= 1
        else:
            others.append(partial)
    return tuple(others)


def _shared(times: Sequence[TimeRange | None]) -> TimeRange | None:
    """The range to read for the events that two views share: it covers both ranges, unless they are disjoint."""
    if len(times) < 2:
        return _NOWHEN
    first, second = times
    if first is None or second is None:
        return None
    return first.union(second) if first.overlaps(second) else _NOWHEN
