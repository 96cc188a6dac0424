"""A version's table: rows evaluated, laid out in parts that are ranges of time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from mlforge.core import time_model
from mlforge.core.manifest import Part
from mlforge.core.schema import Schema
from mlforge.core.values import Duration, TimeRange
from mlforge.engines import POINT, Engine, Events
from mlforge.engines.base import rows_at_once
from mlforge.engines.carry import in_ranges
from mlforge.engines.derived import derived_values
from mlforge.errors import DataError
from mlforge.frames import polars_schema
from mlforge.frames.entity_times import FIRST, LAST, EntityTimes, entities_and_hull
from mlforge.store import TablePiece, Transaction
from mlforge.store.changes import EventDiff


@dataclass(frozen=True, slots=True)
class Layout:
    """The sizes by which a table is cut into parts; small in tests, so that seams are crossed.

    part_rows: the most rows in a part. chunk_rows: roughly how many events a full build evaluates at
    a time, by default what takes about 2 GiB; each chunk also reads the longest window before it, and
    no part lies in two chunks.
    """

    part_rows: int = 1_000_000
    chunk_rows: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A written table: its parts, and how many rows had to be evaluated."""

    parts: tuple[Part, ...]
    recomputed: int


def evaluate(
    engine: Engine,
    events: Events,
    within: TimeRange | EntityTimes | None = None,
) -> pl.DataFrame:
    """The table's rows: all of them, those of a range of time, or of some entities within a range of their own."""
    rows, spec = _plain_rows(engine, events, within), events.spec
    if not spec.derived:
        return rows
    return rows.hstack(derived_values(spec, events.schema, rows, spec.timestamp))


def _plain_rows(
    engine: Engine, events: Events, within: TimeRange | EntityTimes | None
) -> pl.DataFrame:
    """The rows without derived columns."""
    spec = events.spec.plain
    columns = spec.output(events.schema)
    if not spec.columns:
        rows = events.rows(None, within)
        return _ordered(
            polars_schema.select_typed(
                rows, {c.name: c.dtype for c in events.schema}, columns
            ).collect(),
            events,
        )
    if spec.interval is None:
        return engine.rows(events, within)
    return _at_boundaries(engine, events, spec.interval, within)


def _at_boundaries(
    engine: Engine,
    events: Events,
    interval: Duration,
    within: TimeRange | EntityTimes | None,
) -> pl.DataFrame:
    """Values at the end of each interval that holds an event."""
    spec = events.spec
    assert spec.timestamp is not None
    among, times = entities_and_hull(within)
    event_times = None if times is None else TimeRange(times.start - interval.us, times.end)
    source = events.cache.identities(events, event_times, among)
    time = polars_schema.microseconds(spec.timestamp)
    points = source.select(
        *spec.entity, (time - time.mod(interval.us) + interval.us).alias(POINT)
    ).unique()
    if times is not None:
        points = points.filter(pl.col(POINT).is_between(times.start, times.end))
    if isinstance(within, EntityTimes):
        points = within.rows(points, pl.col(POINT))
    at = (
        points.with_columns(pl.col(POINT).cast(polars_schema.UTC_INSTANT))
        .sort(POINT, *spec.entity)
        .collect()
    )
    values = engine.values(events, at)
    return at.select(*spec.keys, pl.col(POINT).alias(spec.timestamp)).hstack(values)


@dataclass(frozen=True)
class TableWriter:
    """Writes one version's table through its transaction."""

    engine: Engine
    events: Events
    tx: Transaction
    layout: Layout

    def write(self, mode: str, before: Sequence[Part], diff: EventDiff | None) -> Table:
        """Write the table in a mode of `mode_of`; before: as in `changed`."""
        if mode == "full" or diff is None:
            return self.full()
        return self.changed(diff, before) if diff.rows else self.shared(before)

    def full(self) -> Table:
        """Evaluate all rows and write them, one range of time after the other.

        Raises DataError where an untimed feature has two rows of a key.
        """
        if self.events.spec.timestamp is None:
            rows = evaluate(self.engine, self.events)
            _check_unique(rows, self.events)
            return Table(self._write([rows]), rows.height)
        at_once = self.layout.chunk_rows or rows_at_once(self.events.spec)
        ranges = in_ranges(self.events, at_once)
        chunks = (evaluate(self.engine, events, times) for times, events in ranges)
        parts = self._write(chunks)
        return Table(parts, sum(part.rows for part in parts))

    def changed(self, diff: EventDiff, before: Sequence[Part]) -> Table:
        """Evaluate the rows that changed events touch; parts without such rows are shared, not written.

        before: the parts of the served version, in the order of time.
        """
        spec, own = self.events.spec, self._touched(diff.own_times)
        touched = own.hull
        if touched is None or spec.timestamp is None:
            return self.full()
        fresh = evaluate(self.engine, self.events, own)
        earlier, dirty, later = _split(before, touched, fresh.height, self.layout.part_rows)
        old = self._read(dirty)
        time = polars_schema.microseconds(spec.timestamp)
        stale = time.is_between(touched.start, touched.end)
        kept = own.others(polars_schema.with_entities(old.filter(stale), spec), time)
        rows = pl.concat([old.filter(~stale), kept.select(old.columns), fresh])
        rows = _ordered(rows, self.events)
        # A long stretch before the touched rows gets a part of its own: the next drop may touch this
        # time again, and need not write that stretch again.
        head = rows.filter(time < touched.start).height
        cut = head if head > 2 * (rows.height - head) else 0
        parts = self._write([rows.head(cut), rows.slice(cut)], earlier, later)
        return Table(parts, fresh.height)

    def _touched(self, events: EntityTimes) -> EntityTimes:
        """The rows that may change, appear or vanish with changed events, for each entity from its own events."""
        spec = self.events.spec
        if events.hull is None or not spec.columns:
            return events
        first, last = events.frame[FIRST], events.frame[LAST]
        return events.moved(*time_model.touched_ends(first, last, spec.windows, spec.interval))

    def shared(self, before: Sequence[Part]) -> Table:
        """The served version's table once more, without writing a byte of it."""
        return Table(self.tx.write_table((), before), 0)

    def _write(
        self,
        chunks: Iterable[pl.DataFrame],
        earlier: Sequence[Part] = (),
        later: Sequence[Part] = (),
    ) -> tuple[Part, ...]:
        """Write rows, given in the order of time, between parts that are shared; at least one part."""
        pieces = self._pieces(chunks, may_be_none=bool(earlier or later))
        return self.tx.write_table(pieces, earlier, later)

    def _pieces(self, chunks: Iterable[pl.DataFrame], *, may_be_none: bool) -> Iterator[TablePiece]:
        empty = None if may_be_none else polars_schema.empty(self._columns)
        for chunk in chunks:
            for rows in _slices(chunk, self.layout.part_rows):
                empty = None
                yield TablePiece(rows, _times(rows, self.events.spec.timestamp))
        if empty is not None:
            yield TablePiece(empty, None)

    def _read(self, parts: Sequence[Part]) -> pl.DataFrame:
        """The rows of parts of the served version."""
        if not parts:
            return polars_schema.empty(self._columns)
        names = [column.name for column in self._columns]
        return self.tx.scan_served(parts).select(names).collect()

    @property
    def _columns(self) -> Schema:
        return self.events.spec.output(self.events.schema)


def _split(
    parts: Sequence[Part], touched: TimeRange, fresh: int, part_rows: int
) -> tuple[Sequence[Part], Sequence[Part], Sequence[Part]]:
    """The parts before, within and after the range that is written anew.

    Written anew are those that may hold a touched row, and small neighbours. A neighbour joins
    while it is at most twice what is written anyway, so the sizes of those left grow geometrically:
    many small drops leave few parts, and each row is rewritten a logarithmic number of times.
    """
    start = sum(1 for part in parts if part.times and part.times.end < touched.start)
    stop = len(parts) - sum(1 for part in parts if part.times and part.times.start > touched.end)
    rows = fresh + sum(part.rows for part in parts[start:stop])

    def joins(neighbour: Part) -> bool:
        return neighbour.rows <= 2 * rows and neighbour.rows + rows <= part_rows

    while start > 0 and joins(parts[start - 1]):
        start -= 1
        rows += parts[start].rows
    while stop < len(parts) and joins(parts[stop]):
        rows += parts[stop].rows
        stop += 1
    return parts[:start], parts[start:stop], parts[stop:]


def _slices(rows: pl.DataFrame, most: int) -> Iterator[pl.DataFrame]:
    """Slices of about one size: a full part that takes one row more becomes two halves."""
    if not rows.is_empty():
        count = -(-rows.height // most)
        yield from rows.iter_slices(-(-rows.height // count))


def _ordered(rows: pl.DataFrame, events: Events) -> pl.DataFrame:
    """By timestamp, then keys, then the remaining columns, nulls first."""
    order = events.spec.order
    other_columns = (
        () if events.spec.columns else (name for name in rows.columns if name not in order)
    )
    return rows.sort(*order, *other_columns, nulls_last=False)


def _check_unique(rows: pl.DataFrame, events: Events) -> None:
    keys = list(events.spec.keys)
    if not keys and rows.height > 1:
        raise DataError(
            f"{events.spec.name}: {rows.height} rows, and no keys; without a timestamp the whole source has one row: "
            "give keys= or timestamp=, or make the function keep one"
        )
    if not keys:
        return
    twice = rows.filter(pl.struct(keys).is_duplicated()).head(1)
    if not twice.is_empty():
        entity = ", ".join(f"{key}={twice[key][0]!r}" for key in keys)
        raise DataError(
            f"{events.spec.name}: two rows of {entity}; without a timestamp a key has one row: "
            "give timestamp=, or make the function keep one"
        )


def _times(rows: pl.DataFrame, timestamp: str | None) -> TimeRange | None:
    if timestamp is None or rows.is_empty():
        return None
    micros = rows[timestamp].to_physical()
    return TimeRange(int(micros[0]), int(micros[-1]))
