"""The rows to put online: keys and values of the entities that have a value at an instant.

The events in their windows are read once and then evaluated at several instants, for as many entities at
a time as the memory limit allows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import polars as pl

from mlforge.core import time_model
from mlforge.core.list_diff import replaced_partials
from mlforge.core.manifest import Partial
from mlforge.core.values import BEGINNING, TimeRange
from mlforge.engines import POINT, Engine, Events, evaluation
from mlforge.frames import polars_schema
from mlforge.frames.shared_results import once
from mlforge.store.integrity import intact

EVENTS_HELD = 250_000
"""About how many events to have in memory at a time."""
ENTITIES_HELD = 50_000
"""How many entities' tiles to have in memory at a time."""
_NOWHEN = TimeRange(BEGINNING, BEGINNING)


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

    def active_entities(self) -> pl.DataFrame:
        """Keys of the entities that have a value."""
        return evaluation.active_entities(self.events, self.as_of)


@dataclass(frozen=True)
class Batch:
    """Keys and values of some entities that have a value, and how many of these had a value before."""

    rows: pl.DataFrame
    had: int


@dataclass(frozen=True)
class EntitySubset:
    """The entities to evaluate, None for all, and about which share of all they are."""

    among: pl.DataFrame | None = None
    share: float = 1.0

    def parts(self, view: AsOfView) -> int:
        """The number of batches that the entities are to be cut into."""
        count = sum(partial.rows for partial in view.events.within(view.seen).partials)
        return max(1, -(-int(count * min(1.0, self.share)) // EVENTS_HELD))


def distinct(frames: Sequence[pl.DataFrame], keys: Sequence[str]) -> pl.DataFrame:
    """The distinct entities of some frames."""

    def compute() -> pl.DataFrame:
        together = pl.concat([frame.lazy().select(keys) for frame in frames])
        return polars_schema.in_memory(together.unique())

    return once("distinct entities", lambda: tuple(keys), compute, *frames)


def cut(
    engine: Engine,
    now: AsOfView,
    subset: EntitySubset = EntitySubset(),
    before: AsOfView | None = None,
) -> Iterator[Batch]:
    """The subset's entities in disjoint batches, with their values at `now`.

    before: an earlier view, of which each batch says how many entities had a value. Raises IntegrityError as
    `values_at` does.
    """
    if now.seen is not None and now.events.covers(now.seen):
        yield from _of_tiles(engine, now, subset, before)
        return
    views = [now] if before is None else [now, before]
    parts = subset.parts(now)
    for number in range(parts):
        held = _held(views, subset.among, _part_of(now.events.spec.entity, number, parts))
        alive = held[0].active_entities()
        rows = _rows(engine, held[0], alive)
        yield Batch(rows, sum(view.active_entities().height for view in held[1:]))


def _rows(engine: Engine, now: _HeldView, alive: pl.DataFrame) -> pl.DataFrame:
    """The keys and values of entities as of a view whose events are in memory."""
    events = now.events
    points = alive.with_columns(polars_schema.instant(now.as_of).alias(POINT))
    return once(
        "values",
        lambda: (type(engine), events.schema, events.spec.evaluated),
        lambda: alive.hstack(evaluation.values_at(engine, events, points, of_t=False)),
        *(events.frame, points),
    )


def _of_tiles(
    engine: Engine, now: AsOfView, subset: EntitySubset, before: AsOfView | None
) -> Iterator[Batch]:
    """The same where tiles are stored, which are few enough to be read for each question."""
    had = (
        0
        if before is None
        else evaluation.active_entities(before.events, before.as_of, subset.among).height
    )
    alive = evaluation.active_entities(now.events, now.as_of, subset.among)
    for some in alive.iter_slices(ENTITIES_HELD) if alive.height else [alive]:
        points = some.with_columns(polars_schema.instant(now.as_of).alias(POINT))
        yield Batch(some.hstack(evaluation.values_at(engine, now.events, points, of_t=False)), had)
        had = 0


@dataclass(frozen=True)
class _Held(Events):
    """Events in memory."""

    frame: pl.DataFrame = field(kw_only=True)

    def rows_within(self, times: TimeRange | None) -> int:
        return self.frame.height

    def within(self, times: TimeRange | None) -> Self:
        return self

    def scan(
        self,
        columns: Sequence[str] | None = None,
        times: TimeRange | None = None,
        among: pl.DataFrame | None = None,
    ) -> pl.LazyFrame:
        rows = self.frame.lazy()
        if columns is not None:
            names = {*columns, *self.spec.entity}
            rows = rows.select(name for name in self.frame.columns if name in names)
        return self.chosen(rows, times, among)

    def entities(
        self, ranges: Sequence[TimeRange | None], among: pl.DataFrame | None = None
    ) -> pl.DataFrame:
        of = (self.frame,) if among is None else (self.frame, among)
        return once(
            "held entities",
            lambda: (self.spec.keys, self.spec.timestamp, tuple(ranges)),
            lambda: self._entities(ranges, among),
            *of,
        )

    def _entities(
        self, ranges: Sequence[TimeRange | None], among: pl.DataFrame | None
    ) -> pl.DataFrame:
        rows, timestamp = self.frame.lazy(), self.spec.timestamp
        if timestamp is not None and None not in ranges:
            time = pl.col(timestamp)
            within = (
                time.is_between(polars_schema.instant(r.start), polars_schema.instant(r.end))
                for r in ranges
                if r is not None
            )
            rows = rows.filter(pl.any_horizontal(within))
        keys = list(self.spec.entity)
        rows = rows.select(keys).unique()
        rows = rows if among is None else rows.join(among.lazy(), on=keys, how="semi")
        return polars_schema.in_memory(rows)


@dataclass(frozen=True)
class _HeldView(AsOfView):
    """A view whose events are in memory."""

    events: _Held


def _part_of(keys: Sequence[str], number: int, parts: int) -> pl.Expr | None:
    return None if parts == 1 else pl.struct(keys).hash() % parts == number


def _held(
    views: Sequence[AsOfView], among: pl.DataFrame | None, part: pl.Expr | None
) -> list[_HeldView]:
    """The views, restricted to these entities and with their events in memory; shared events are read once."""
    events, times = views[0].events, [view.seen for view in views]
    spec, union = events.spec, _shared(times)
    columns = spec.needed() if spec.columns else None
    own_partials = [view.events.partials for view in views]
    common: tuple[Partial, ...] = ()
    if union is not _NOWHEN:
        went, came = replaced_partials(own_partials[1], own_partials[0])
        common, own_partials = _without(own_partials[1], went), [tuple(came), tuple(went)]

    def gathered(partials: tuple[Partial, ...], when: TimeRange | None) -> pl.LazyFrame:
        rows = replace(events, partials=partials).scan(columns, when, among)
        return rows if part is None else rows.filter(part)

    def collected() -> list[pl.DataFrame]:
        scans = [gathered(some, when) for some, when in zip(own_partials, times, strict=True)]
        engine = polars_schema.engine_for(events.rows_within(times[0]))
        shared, *own_frames = pl.collect_all([gathered(common, union), *scans], engine=engine)
        return [pl.concat([shared, frame]) for frame in own_frames]

    with intact(spec.name):
        frames = (
            collected()
            if part is not None
            else once(
                "held events",
                lambda: (
                    columns,
                    tuple(times),
                    tuple(v.events.content for v in views),
                    among is None,
                ),
                collected,
                *(() if among is None else (among,)),
            )
        )
    return [
        _HeldView(_Held(spec, events.schema, (), events.where, frame=frame), view.as_of)
        for view, frame in zip(views, frames, strict=True)
    ]


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
