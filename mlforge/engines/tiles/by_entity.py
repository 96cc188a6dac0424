"""Writing the entity index: for windows over all time that neither merged numbers nor held values serve.

It is made of all events once, then of itself and what came since, an amount of events at a time. Rows of partials that are gone stay
in it, and do not count, until it is made anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from mlforge.core.manifest import Partial
from mlforge.core.schema import Schema
from mlforge.engines.tiles import build
from mlforge.engines.tiles.totals import Totals
from mlforge.frames import polars_schema
from mlforge.frames.entity_times import in_shares
from mlforge.store import Store
from mlforge.store.entity_index import (
    EntityIndex,
    EntityIndexes,
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
STALE = 32
"""An index is made anew once one event in so many has come or gone since."""
_MANY = "__many"


def write_index(events: EventScan, store: Store) -> None:
    """Store the entity index of a version's events if a window needs it, unless the stored one will do.

    Call with the feature's lock held. Raises StoreError where it cannot be written.
    """
    if not may_have(events.spec) or not _is_needed(events, store):
        return
    partials = [*{partial.hash: partial for partial in events.partials}.values()]
    many = sum([partial.rows for partial in partials])
    if not many or many < build.FEWEST:
        return
    indexes = EntityIndexes(store, events.spec, events.schema)
    stored = indexes.stored
    if stored is not None and not _is_worn(stored, partials) and _is_kept(stored, events):
        return
    making = _Making(events, store, indexes.columns)
    numbered, frames = making.frames(stored, partials)
    keys, known = events.spec.keys, store.tiles(events.spec.name, indexes.kind)
    batches = (lists(frame, keys) for frame in _in_batches(frames, keys))
    beside = _beside(events, stored, known, numbered)
    write = TileWrite(beside, batches, index_notes(numbered))
    store.write_tiles(events.spec.name, indexes.kind, [write])


@dataclass(frozen=True)
class _Making:
    """The events that go into an index. columns: of them."""

    events: EventScan
    store: Store
    columns: Schema

    def frames(
        self, stored: EntityIndex | None, partials: Sequence[Partial]
    ) -> tuple[Sequence[Partial], Iterator[pl.DataFrame]]:
        """The partials in the order of their numbers, and their rows, those of some entities at a time."""
        gone, came = ([], partials) if stored is None else stored.beside(partials)
        is_other = stored is not None and 2 * len(gone) > len(stored.marks)
        if stored is None or is_other or _rows(came) > AT_ONCE or not stored.is_readable:
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
        self, stored: EntityIndex, partials: Sequence[Partial], came: Sequence[Partial]
    ) -> Iterator[pl.DataFrame]:
        """The rows of a stored index whose partials are still here, with those that came since.

        partials: all, with the numbers that they get: first those of the index, then those that came.
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
        tasks = self.events.where(partials)
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


def _is_worn(stored: EntityIndex, partials: Sequence[Partial]) -> bool:
    """Whether much has come or gone since an index was made."""
    _, came = stored.beside(partials)
    gone = stored.rows - (_rows(partials) - _rows(came))
    return (gone + _rows(came)) * STALE > stored.rows or 2 * _rows(came) > AT_ONCE


def _is_kept(stored: EntityIndex, events: EventScan) -> bool:
    """Whether it lies beside a file of these events; else that was replaced, and goes with them."""
    return events.fetches or any(task.file == stored.of for task in events.tasks)


def _beside(
    events: EventScan,
    stored: EntityIndex | None,
    known: Collection[str],
    partials: Sequence[Partial],
) -> str:
    """The file of events beside which an index is kept, and with which it goes: that of one before, else the largest.

    known: the files beside which there are indexes, of which one may be damaged.
    """
    if not events.fetches:
        return max(events.tasks, key=lambda task: (task.file in known, task.rows)).file
    if stored is not None:
        return stored.of
    largest = max(partials, key=lambda partial: partial.rows)
    return events.where([largest])[0].file  # one is fetched, not all


def _rows(partials: Sequence[Partial]) -> int:
    return sum([partial.rows for partial in partials])
