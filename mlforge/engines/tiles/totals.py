"""Totals: what each entity's events before an instant come to, so that windows over all time need not read them.

Totals are a tile for each entity, of all its events before the month of the newest one. They are built from stored events
and may be deleted at any time. An older event that comes later is read beside them; where one of theirs is gone,
they no longer hold.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import polars as pl

from mlforge.compilers.base import TIME
from mlforge.core.calendar_units import PERIODS
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.manifest import Partial
from mlforge.core.metrics import MetricColumn
from mlforge.core.schema import Schema
from mlforge.core.values import BEGINNING, DAY_US, TimeRange
from mlforge.engines import timeline
from mlforge.engines.tiles import build, held
from mlforge.engines.tiles.build import Tiles, build_tiles, concat_tiles
from mlforge.engines.tiles.cache import CachedTiles, notes_of
from mlforge.engines.tiles.held import (
    REACH,
    Part,
    as_held,
    can_hold,
    held_parts,
    held_rows,
    kept,
    with_held,
)
from mlforge.frames import polars_schema
from mlforge.frames.entity_times import in_shares
from mlforge.store import Store
from mlforge.store.file_tasks import TileWrite, mark_of
from mlforge.store.scan import EventScan

_FORMAT = 1
_SETTLED_US = 2 * DAY_US
"""How long after a month's end its events are still awaited."""
_MONTH_US = 31 * DAY_US
_OVERDUE_US = _MONTH_US
"""For how long totals that are not of the newest month are left to be written behind a push."""
_AT_ONCE = 2_000_000
"""About how many events are held in memory while values are gathered."""
_NEWER, _MANY = "__newer", "__many"
_LATE = 8  # where more than this part of the older events came later, totals are built anew


@dataclass(frozen=True)
class Totals:
    """Stored totals of a version's events.

    tiles: one for each entity, before the instant `until`. spec: the feature with the metrics that they serve alone. late: what holds
    events before `until` that are not in the tiles. held: what they hold for metrics that parts of tiles do not give.
    file: where they are stored. of: the file of events beside which that is.
    """

    spec: FeatureSpec
    tiles: Tiles
    until: int
    late: tuple[Partial, ...]
    held: tuple[Part, ...] = ()
    file: str = ""
    of: str = ""

    @classmethod
    def find(cls, events: EventScan, store: Store | None) -> Totals | None:
        """The stored totals of a version's events that serve some metric; None where there are none that hold."""
        stored = cls.stored(events, store)
        return stored if stored is not None and stored.spec.columns else None

    @classmethod
    def stored(cls, events: EventScan, store: Store | None) -> Totals | None:
        """The stored totals of a version's events, also those that serve no metric, as it did not pay to hold values."""
        spec = served(events.spec, events.schema)
        if spec is None or store is None:
            return None
        known = store.tiles(spec.name, _kind(spec, events)).items()
        whole = (cls._read(events, store, spec, file, of) for of, file in known)
        hold = [totals for totals in whole if totals is not None]
        if len(hold) < 2:
            return hold[0] if hold else None
        return max(hold, key=lambda each: (each.until, not each.is_worn, each.is_kept(events)))

    @classmethod
    def _read(
        cls, events: EventScan, store: Store, spec: FeatureSpec, file: str, of: str
    ) -> Totals | None:
        """The totals in a file; None unless they are whole and hold for these events."""
        notes = store.tile_notes(spec.name, file, of)
        cached = CachedTiles.decoded(file, notes)
        if notes is None or cached is None or cached.summary is None:
            return None
        late = _late(events.partials, Counter(notes["covers"]), notes["until"])
        if late is None:
            return None
        parts = held_parts(spec.columns)
        held = tuple(p for p in parts if p.alias in notes.get("held", ()))
        tiles = Tiles(pl.scan_parquet(file, glob=False), cached.summary)
        return cls(_with(spec, held), tiles, notes["until"], late, held, file, of)

    @property
    def is_worn(self) -> bool:
        """Whether much of what should be in the tiles came later."""
        return sum([partial.rows for partial in self.late]) * _LATE > self.tiles.summary.events

    def will_do(self, newest: int, *, overdue: bool) -> bool:
        """Whether they need not be built anew yet, given the greatest event time; overdue: nor were some time ago."""
        since = newest - _OVERDUE_US if overdue else newest
        return self.until >= _settled(since) and not self.is_worn

    def is_kept(self, events: EventScan) -> bool:
        """Whether they lie beside a file of these events; else that was replaced, and goes with them."""
        # Files of a bucket are fetched to be listed, which is more than totals are worth.
        return events.fetches or any(task.file == self.of for task in events.tasks)

    @property
    def since(self) -> int:
        """The first point at which they serve every such metric."""
        firsts = (metric.window.first_point(self.until - 1) for metric in self.spec.columns)
        return int(max(firsts))

    def metrics(self, first_point: int) -> tuple[MetricColumn, ...]:
        """The metrics whose windows, at a point or any later one, hold all events before `until`."""
        oldest = self.until - 1
        return tuple(m for m in self.spec.columns if m.window.last(first_point) >= oldest)

    def serve(self, first_point: int) -> bool:
        """Whether they do so for every metric over all time that can be had of tiles."""
        return len(self.metrics(first_point)) == len(self.spec.columns)

    def of_entities(self, among: pl.DataFrame) -> Totals:
        """The totals of some entities alone, in memory."""
        rows = polars_schema.of_entities(self.tiles.rows, among, self.spec.entity).collect()
        return replace(self, tiles=replace(self.tiles, rows=rows.lazy()))

    def until_points(
        self, events: EventScan, last: int, among: pl.DataFrame | None, *, in_order: bool
    ) -> Tiles:
        """Tiles of all events up to an instant, of some entities; in_order: as `build_tiles` takes it."""
        spec, dtypes = self.spec, self.spec.value_dtypes(events.schema)
        scans = self._later(events, spec.needed(), last, among)
        newer = build_tiles(
            pl.concat(timeline.of_events(rows, spec) for rows in scans),
            spec,
            dtypes,
            tile_of(self.until),
            in_order=in_order,
        )
        columns = newer.rows.collect_schema().names()
        known = polars_schema.of_entities(self.tiles.rows.select(columns), among, spec.entity)
        return concat_tiles([replace(self.tiles, rows=known), newer], dtypes)

    def held_until_points(
        self, events: EventScan, last: int, among: pl.DataFrame | None
    ) -> pl.LazyFrame:
        """The rows held and the newer events up to an instant, of some entities, as in a timeline with weights.

        Where what is held of an entity does not suffice, all of its events.
        """
        spec, keys = self.spec, list(self.spec.entity)
        scans = self._later(events, spec.needed(), last, among)
        newer = pl.concat(timeline.of_events(rows, spec) for rows in scans).collect()
        known = polars_schema.of_entities(self.tiles.rows, among, keys).collect()
        counts = newer.group_by(keys).agg(pl.len().cast(pl.Int64).alias(_NEWER))
        known = known.join(counts, on=keys, how="left").with_columns(pl.col(_NEWER).fill_null(0))
        is_beyond = (pl.col(_NEWER) > pl.col(REACH)).fill_null(False)
        beyond, known = known.filter(is_beyond).select(keys), known.filter(~is_beyond)
        whole = []
        if beyond.height:
            newer = newer.join(beyond, on=keys, how="anti")
            of_beyond = events.scan(spec.needed(), TimeRange(BEGINNING, last), beyond)
            whole = [as_held(timeline.of_events(of_beyond, spec).collect(), self.held, spec)]
        recent = as_held(newer, self.held, spec)
        known = known.with_columns(pl.col(_NEWER).alias(REACH))
        rows = [*held_rows(known, recent, self.held, spec), recent, *whole]
        return pl.concat(rows, how="diagonal").lazy()

    def identities(self, events: EventScan, last: int, among: pl.DataFrame | None) -> pl.LazyFrame:
        """Keys of the entities with an event up to an instant, some of them several times."""
        keys = list(self.spec.entity)
        known = polars_schema.of_entities(self.tiles.rows, among, keys)
        newer = self._later(events, self.spec.identity, last, among)
        if last < self.until:  # windows that end where the tiles do see no event from then on
            next(newer)
        return pl.concat([known.select(keys), *(rows.select(keys) for rows in newer)])

    def _later(
        self, events: EventScan, columns: Sequence[str], last: int, among: pl.DataFrame | None
    ) -> Iterator[pl.LazyFrame]:
        yield events.scan(columns, TimeRange(self.until, max(self.until, last)), among)
        if self.late:
            beside = replace(events, partials=self.late)
            yield beside.scan(columns, TimeRange(BEGINNING, self.until - 1), among)


def are_totals_due(events: EventScan, store: Store, newest: int | None) -> bool:
    """Whether `write_totals` would write some behind a push."""
    spec = served(events.spec, events.schema)
    if spec is None or newest is None or not _are_many(_before(events, _settled(newest))):
        return False
    stored = Totals.stored(events, store)
    return stored is None or not (stored.will_do(newest, overdue=False) and stored.is_kept(events))


def write_totals(
    events: EventScan, store: Store, newest: int | None, *, overdue: bool = False
) -> None:
    """Store the totals of a version's events before the month of the newest one, unless those stored will do.

    newest: the greatest event time that has come, UTC microseconds; None without events. overdue: only if that should have been done behind an
    earlier push. Call with the feature's lock held. Raises StoreError where they cannot be written.
    """
    spec = served(events.spec, events.schema)
    if spec is None or newest is None:
        return
    until = _settled(newest)
    older = _before(events, until)
    if not _are_many(older):
        return
    stored = Totals.stored(events, store)
    if stored is not None and stored.will_do(newest, overdue=overdue):
        if not stored.is_kept(events):
            _keep(stored, spec, events, store)
        return
    kind, dtypes = _kind(spec, events), spec.value_dtypes(events.schema)
    scan = events.scan(spec.needed(), TimeRange(BEGINNING, until - 1))
    tiles = build_tiles(timeline.of_events(scan, spec), spec, dtypes, tile_of(until))
    frame = tiles.rows.collect()
    notes = notes_of(tiles.summary, frame, spec, dtypes)
    notes |= {"until": until, "covers": [mark_of(partial.hash) for partial in older]}
    parts, many = held_parts(spec.columns), tiles.summary.events
    if parts and frame.height * held.EVENTS <= many:
        recent = _recent(events, spec, until)
        frame, paying = with_held(frame, _shares(events, spec, until), parts, recent, many, spec)
        notes["held"] = [part.alias for part in paying]
    beside = _beside(events, stored)
    store.write_tiles(spec.name, kind, [TileWrite(beside, frame, notes)])


def _before(events: EventScan, until: int) -> list[Partial]:
    """The partials with an event before an instant."""
    return [p for p in events.partials if p.times is not None and p.times.start < until]


def _are_many(partials: Sequence[Partial]) -> bool:
    """Whether they have enough events for totals to pay."""
    return sum([partial.rows for partial in partials]) >= build.FEWEST


def _beside(events: EventScan, stored: Totals | None) -> str:
    """The file of events beside which totals are kept, and with which they go: that of those before, else the largest."""
    before = stored.of if stored is not None else ""
    return max(events.tasks, key=lambda task: (task.file == before, task.rows)).file


def _keep(stored: Totals, spec: FeatureSpec, events: EventScan, store: Store) -> None:
    """Keep totals beside another file of events, once the file that they lie beside was replaced."""
    notes = store.tile_notes(spec.name, stored.file, stored.of)
    if notes is not None:
        rows = pl.read_parquet(stored.file, glob=False)
        kept_beside = TileWrite(_beside(events, stored), rows, notes)
        store.write_tiles(spec.name, _kind(spec, events), [kept_beside])


def _shares(events: EventScan, spec: FeatureSpec, until: int) -> Iterator[pl.DataFrame]:
    """The events before an instant, of some entities at a time."""
    keys, before = list(spec.entity), TimeRange(BEGINNING, until - 1)
    identities = events.scan(spec.identity, before).select(keys)
    counts = identities.group_by(keys).agg(pl.len().cast(pl.Int64).alias(_MANY))
    shares = in_shares(counts.collect(engine="streaming").sort(keys), _MANY, _AT_ONCE)
    for share in shares:
        among = share.select(keys) if len(shares) > 1 else None
        rows = events.scan(spec.needed(), before, among)
        yield timeline.of_events(rows, spec).collect(engine=polars_schema.engine_for(_AT_ONCE))


def _recent(events: EventScan, spec: FeatureSpec, until: int) -> pl.DataFrame:
    """About how many newer events each entity will have: somewhat more than in the month before."""
    rows = events.scan(spec.needed(), TimeRange(until - _MONTH_US, until - 1))
    counts = (
        timeline.of_events(rows, spec)
        .group_by(spec.entity)
        .agg(pl.len().cast(pl.Int64).alias(REACH))
    )
    return counts.with_columns(pl.col(REACH) * 5 // 4).collect()


def tile_of(until: int) -> pl.Expr:
    """The time of an event's tile: older events of an entity share one, others have their own."""
    return pl.max_horizontal(pl.col(TIME), pl.lit(until - 1, pl.Int64))


def _settled(newest: int) -> int:
    """The start of the month of the newest event, before which no event is awaited."""
    return int(PERIODS["1mo"].start(newest - _SETTLED_US))


def merged(spec: FeatureSpec) -> FeatureSpec | None:
    """The feature with the metrics over all time alone that tiles give, its values at any instant; None without such metrics."""
    known = _with(spec, ())
    return known if known.columns else None


def served(spec: FeatureSpec, schema: Schema) -> FeatureSpec | None:
    """The feature with the metrics alone that totals can serve, its values at any instant; None without such metrics."""
    if not spec.has_endless:
        return None
    dtypes = spec.value_dtypes(schema)
    parts = held_parts(m for m in spec.columns if m.window.is_endless)
    known = _with(spec, [part for part in parts if can_hold(dtypes[part.column])])
    return known if known.columns else None


def _with(spec: FeatureSpec, parts: Sequence[Part]) -> FeatureSpec:
    """The feature with the metrics over all time that tiles, and these parts, give."""
    names = {(part.column, part.kind) for part in parts}
    columns = tuple(
        m
        for m in spec.columns
        if m.window.is_endless and (m.aggregation in build.PARTS_OF or (m.value, kept(m)) in names)
    )
    return replace(spec, columns=columns, interval=None, derived=())


def _late(
    partials: Sequence[Partial], covered: Counter[str], until: int
) -> tuple[Partial, ...] | None:
    """The partials with older events that are not covered; None where one that is covered is gone."""
    missing, late = Counter(covered), []
    for partial in partials:
        if partial.times is not None and partial.times.start < until:
            mark = mark_of(partial.hash)
            if missing[mark] > 0:
                missing[mark] -= 1
            else:
                late.append(partial)
    return None if any(missing.values()) else tuple(late)


def kind_of(events: EventScan) -> str | None:
    """The kind of the totals that a version may have; None where no metric of it is served by any."""
    spec = served(events.spec, events.schema)
    return None if spec is None else _kind(spec, events)


def _kind(spec: FeatureSpec, events: EventScan) -> str:
    """A hash of all that totals depend on besides events; longer than those of tiles of intervals."""
    dtypes = spec.value_dtypes(events.schema)
    columns = [(name, dtypes[name], kinds) for name, kinds in build.parts(spec.columns).items()]
    keys = [(key, dtypes[key]) for key in spec.keys]
    values = [[part.column, part.kind, part.numbers] for part in held_parts(spec.columns)]
    # Totals that hold no values are known by what they were before any did.
    of_values = [values, held.FIELDS] if values else []
    document = json.dumps([_FORMAT, keys, spec.timestamp, columns, *of_values])
    return hashlib.sha256(document.encode()).hexdigest()[:20]
