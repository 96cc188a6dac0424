"""Writing the entity index: for windows over all time that neither merged numbers nor held values serve.

It is made of all events once. What came since becomes a run of its own, with those runs before it that are not much larger, an amount
of events at a time. Rows of partials that are gone stay in a run, and do not count, until it is made anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

from mlforge.core.manifest import Partial
from mlforge.core.schema import Schema
from mlforge.engines.tiles import build
from mlforge.engines.tiles.totals import Totals
from mlforge.frames import polars_schema
from mlforge.frames.entity_times import in_shares
from mlforge.store import Store
from mlforge.store.entity_index import (
    LEVELS,
    EntityIndexes,
    Run,
    index_notes,
    lists,
    may_have,
)
from mlforge.store.file_tasks import TileWrite, mark_of
from mlforge.store.numbered import numbered_scans
from mlforge.store.resident import NUMBER
from mlforge.store.scan import EventScan

AT_ONCE = 2_000_000
"""About how many events are held in memory while an index is made."""
STALE, OVERDUE = 32, 8
"""A run is written once one event in so many has come since, or gone from one: behind a push, and by a refresh that found none to do so."""
MERGED = 4
"""A run is merged into a newer one that has at least one in so many of its rows."""
_MANY = "__many"


class NextRun(NamedTuple):
    """The run to be written: its level, the stored run that it grows from, if there is one, and its partials."""

    level: int
    before: Run | None
    partials: Sequence[Partial]


def is_index_due(events: EventScan, store: Store) -> bool:
    """Whether enough has come or gone for `write_index` to be called behind a push."""
    return _next_run(events, store, STALE) is not None


def write_index(events: EventScan, store: Store, *, overdue: bool = False) -> None:
    """Store the entity index of a version's events if a window needs it, unless the stored one will do.

    overdue: only if that should have been done behind an earlier push. Call with the feature's lock held. Raises StoreError where it cannot
    be written.
    """
    following = _next_run(events, store, OVERDUE if overdue else STALE)
    if following is None:
        return
    indexes = EntityIndexes(store, events.spec, events.schema)
    making = _Making(events, store, indexes.columns)
    numbered, frames = making.frames(following.before, following.partials)
    keys, kind = events.spec.keys, indexes.kind(following.level)
    known = store.tiles(events.spec.name, kind)
    batches = (lists(frame, keys) for frame in _in_batches(frames, keys))
    write = TileWrite(_beside(events, known, numbered), batches, index_notes(numbered))
    store.write_tiles(events.spec.name, kind, [write])


def _next_run(events: EventScan, store: Store, stale: int) -> NextRun | None:
    """The run that is to be written for a version's events; None where no window needs it, or those stored will do."""
    if not may_have(events.spec) or not _is_needed(events, store):
        return None
    partials = [*{partial.hash: partial for partial in events.partials}.values()]
    if _rows(partials) < max(1, build.FEWEST):
        return None
    index = EntityIndexes(store, events.spec, events.schema).stored
    runs = index.runs if index is not None else ()
    return next_run([run for run in runs if _is_kept(run, events)], partials, stale)


def next_run(runs: Sequence[Run], partials: Sequence[Partial], stale: int) -> NextRun | None:
    """The run that is to be written beside stored ones for some partials, none of them twice; None where these will do.

    runs: in the order of their levels. stale: one event in how many has to have come, or gone from a run.
    """
    levels, came = _levels(runs, partials)
    worn = (n for n, level in enumerate(levels) if level.is_worn(stale))
    first_worn, many = next(worn, len(levels)), _rows(came)
    is_small = many * stale <= min(_rows(partials), AT_ONCE * STALE // 2)
    if first_worn == len(levels) and is_small:
        return None
    new = len(levels)
    while new and (new > first_worn or new == LEVELS or levels[new - 1].rows <= MERGED * many):
        new -= 1
        many += levels[new].rows
    merged = [partial for level in levels[new:] for partial in level.partials]
    return NextRun(new, levels[new].run if new < len(levels) else None, [*merged, *came])


@dataclass(frozen=True, slots=True)
class _Level:
    """The run of a level, if there is one, and those of some partials that it holds."""

    run: Run | None = None
    partials: Sequence[Partial] = ()

    @property
    def rows(self) -> int:
        """How many events that is."""
        return _rows(self.partials)

    def is_worn(self, stale: int) -> bool:
        """Whether one row in so many of the run is of others, or nothing is stored."""
        return self.run is None or (self.run.rows - self.rows) * stale > self.run.rows


def _levels(
    runs: Sequence[Run], partials: Sequence[Partial]
) -> tuple[list[_Level], Sequence[Partial]]:
    """Each level with its part of some partials, and the partials that are stored at none. A run that was merged into one before it holds none."""
    levels: list[_Level] = []
    for run in runs:
        _, others = run.beside(partials)
        rest = {partial.hash for partial in others}
        own = [partial for partial in partials if partial.hash not in rest]
        levels += [_Level()] * (run.level + 1 - len(levels))
        if own and not levels[run.level].partials:
            levels[run.level], partials = _Level(run, own), others
    while levels and not levels[-1].partials:
        levels.pop()
    return levels, partials


@dataclass(frozen=True)
class _Making:
    """The events that go into an index. columns: of them."""

    events: EventScan
    store: Store
    columns: Schema

    def frames(
        self, stored: Run | None, partials: Sequence[Partial]
    ) -> tuple[Sequence[Partial], Iterator[pl.DataFrame]]:
        """The partials in the order of their numbers, and their rows, those of some entities at a time."""
        gone, came = ([], partials) if stored is None else stored.beside(partials)
        if (
            stored is None
            or not stored.is_of(gone)
            or _rows(came) > AT_ONCE
            or not stored.is_readable
        ):
            return partials, self.from_scratch(partials)
        by_mark = {mark_of(partial.hash): partial for partial in partials}
        partials = [*(by_mark[mark] for mark in stored.marks if mark in by_mark), *came]
        return partials, self.grown(stored, partials, came)

    def from_scratch(self, partials: Sequence[Partial]) -> Iterator[pl.DataFrame]:
        """The rows of partials, those of some entities at a time."""
        keys, scans = list(self.events.spec.keys), pl.concat(self._scans(partials, 0))
        counts = scans.group_by(keys).agg(pl.len().cast(pl.Int64).alias(_MANY))
        shares = in_shares(counts.collect(engine="streaming"), _MANY, AT_ONCE)
        for share in shares:
            among = share.select(keys) if len(shares) > 1 else None
            rows = polars_schema.of_entities(scans, among, keys)
            yield rows.collect(engine=polars_schema.engine_for(_rows(partials)))

    def grown(
        self, stored: Run, partials: Sequence[Partial], came: Sequence[Partial]
    ) -> Iterator[pl.DataFrame]:
        """The rows of a stored run whose partials are still here, with those that came since.

        partials: all, with the numbers that they get: first those of the run, then those that came.
        """
        keys, first = list(self.events.spec.keys), len(partials) - len(came)
        numbers = [stored.number_by_mark[mark_of(partial.hash)] for partial in partials[:first]]
        scans = self._scans(came, first)
        newer = pl.concat(pl.collect_all(scans)) if scans else None
        for frame in stored.frames():
            rows = frame
            if len(numbers) < len(stored.marks):
                now = pl.Series(numbers, dtype=pl.UInt32)
                number = pl.col(NUMBER).replace_strict(
                    now, range(first), default=None, return_dtype=pl.UInt32
                )
                rows = rows.with_columns(number).drop_nulls(NUMBER)
            if newer is not None:
                own = newer.join(frame, on=keys, how="semi")
                newer = newer.join(frame, on=keys, how="anti")
                rows = pl.concat([rows, own.select(rows.columns)])
            yield rows
        if newer is not None:
            yield newer.select(frame.columns)

    def _scans(self, partials: Sequence[Partial], first: int) -> list[pl.LazyFrame]:
        """The rows of partials, numbered from a number on."""
        if not partials:
            return []
        tasks = self.events.plan_files(partials)
        places = self.store.locate(self.events.spec.name, [partial.hash for partial in partials])
        return numbered_scans(tasks, dict(enumerate(places, first)), self.columns)


def _in_batches(frames: Iterator[pl.DataFrame], keys: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Frames of entities of their own as such of about AT_ONCE rows, at least one."""
    gathered: list[pl.DataFrame] = []
    for frame in frames:
        gathered.append(frame)
        if sum([each.height for each in gathered]) >= AT_ONCE:
            yield from _split(pl.concat(gathered), keys)
            gathered = []
    if gathered:
        yield pl.concat(gathered)


def _split(rows: pl.DataFrame, keys: Sequence[str]) -> Iterator[pl.DataFrame]:
    """The rows, in shares of entities where they are many more than AT_ONCE."""
    if rows.height < 2 * AT_ONCE:
        yield rows
        return
    counts = rows.group_by(keys).agg(pl.len().cast(pl.Int64).alias(_MANY))
    for share in in_shares(counts, _MANY, AT_ONCE):
        yield rows.join(share, on=list(keys), how="semi")


def _is_needed(events: EventScan, store: Store) -> bool:
    """Whether a window over all time has a metric that no tile gives and whose values it does not pay to hold."""
    totals = Totals.stored(events, store)
    served = totals.spec.columns if totals is not None else ()
    return any(
        metric.window.is_endless
        and metric.aggregation not in build.PARTS_OF
        and metric not in served
        for metric in events.spec.columns
    )


def _is_kept(stored: Run, events: EventScan) -> bool:
    """Whether it lies beside a file of these events; else that was replaced, and goes with them."""
    return events.fetches or any(task.file == stored.of for task in events.tasks)


def _beside(events: EventScan, known: Collection[str], partials: Sequence[Partial]) -> str:
    """The file of events beside which a run is kept, and with which it goes: that of one before, else the largest.

    known: the files beside which there are runs of its level, of which one may be damaged.
    """
    if not events.fetches:
        return max(events.tasks, key=lambda task: (task.file in known, task.rows)).file
    if known:
        return min(known)
    largest = max(partials, key=lambda partial: partial.rows)
    return events.plan_files([largest])[0].file  # one is fetched, not all


def _rows(partials: Sequence[Partial]) -> int:
    return sum([partial.rows for partial in partials])
