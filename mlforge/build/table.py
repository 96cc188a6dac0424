"""A version's table: rows evaluated, laid out in parts that are ranges of time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from mlforge.build.distribution import Distribution
from mlforge.build.full import FullBuild
from mlforge.build.rows import Layout, check_unique, evaluate, ordered, pieces_of, with_derived
from mlforge.build.tasks import TaskFigures
from mlforge.core.manifest import Part
from mlforge.core.schema import Schema
from mlforge.core.values import TimeRange
from mlforge.engines import Engine, Events
from mlforge.engines.one_pass import rows_and_online
from mlforge.engines.views import Gathered
from mlforge.frames import polars_schema
from mlforge.frames.entity_times import EntityTimes
from mlforge.frames.shared_results import once
from mlforge.store import TablePiece, Transaction
from mlforge.store.changes import EventDiff
from mlforge.store.transaction import Piece


@dataclass(frozen=True, slots=True)
class Table:
    """A written table: its parts, how many rows had to be evaluated, the tasks of a full build, and what its owner is to be told.

    gathered: events for the push behind it, with its rows where these were evaluated, too.
    """

    parts: tuple[Part, ...]
    recomputed: int
    tasks: tuple[TaskFigures, ...] = ()
    warnings: tuple[str, ...] = ()
    gathered: Gathered | None = None


@dataclass(frozen=True)
class TableWriter:
    """Writes one version's table through its transaction.

    distribution: who takes part in a full build; None where this process does it alone. gathered: events that are in memory. on_gathered:
    called with these once they are all that the push needs, before the table is written.
    """

    engine: Engine
    events: Events
    tx: Transaction
    layout: Layout
    distribution: Distribution | None = None
    gathered: Gathered | None = None
    on_gathered: Callable[[Gathered], object] | None = None

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
            check_unique(rows, self.events)
            return Table(self._write([rows]), rows.height)
        build = FullBuild(self.engine, self.events, self.layout)
        tasks: list[TaskFigures] = []
        warnings: list[str] = []
        spread = self.distribution
        pieces: Iterator[Piece]
        if spread is not None and spread.takes(self.events):
            pieces = spread.pieces(build, tasks.append, warnings.append)
        else:
            pieces = build.pieces(tasks.append)
        parts = self.tx.write_table(self._at_least_one(pieces))
        recomputed = sum(part.rows for part in parts)
        return Table(parts, recomputed, tuple(tasks), tuple(warnings))

    def changed(self, diff: EventDiff, before: Sequence[Part]) -> Table:
        """Evaluate the rows that changed events touch; parts without such rows are shared, not written.

        before: the parts of the served version, in the order of time.
        """
        spec = self.events.spec
        own = diff.own_times.touched(spec)
        touched = own.hull
        if touched is None or spec.timestamp is None:
            return self.full()
        fresh, gathered = self._evaluated(own)
        earlier, dirty, later = _split(before, touched, fresh.height, self.layout.part_rows)
        chunks = once(
            "rewritten rows",
            lambda: (tuple(part.hash for part in dirty), spec.evaluated, self._columns),
            lambda: self._rewritten(dirty, fresh, own),
            *(fresh, own.frame),
        )
        parts = self._write(chunks, earlier, later)
        return Table(parts, fresh.height, gathered=gathered)

    def _rewritten(
        self, dirty: Sequence[Part], fresh: pl.DataFrame, own: EntityTimes
    ) -> list[pl.DataFrame]:
        """The rows of parts of the served version with fresh ones among them, in chunks that no part crosses."""
        timestamp, touched = str(self.events.spec.timestamp), own.hull
        assert touched is not None
        rows = self._with_fresh(self._read(dirty), fresh, own)
        # A long stretch before the touched rows gets a part of its own: the next drop may touch this
        # time again, and need not write that stretch again.
        head = bisect_left(rows[timestamp].cast(pl.Int64), touched.start)
        is_long = head > 2 * (rows.height - head)
        return [rows.head(head), rows.slice(head)] if is_long else [rows]

    def _evaluated(self, own: EntityTimes) -> tuple[pl.DataFrame, Gathered | None]:
        """The rows within some entities' own times; and the gathered events, with the rows to put online if both were evaluated.

        `on_gathered` is called with the events first, and may have a thread work on them while rows are evaluated.
        """
        gathered = self._seen_by(own)
        together = rows_and_online(self.engine, gathered, own) if gathered else None
        if together is None:
            self._hand_on(self.gathered)
            events = gathered.events if gathered else self.events
            return evaluate(self.engine, events, own), self.gathered
        rows, with_online = together
        self._hand_on(with_online)
        return with_derived(rows, self.events), with_online

    def _hand_on(self, gathered: Gathered | None) -> None:
        if gathered is not None and self.on_gathered is not None:
            self.on_gathered(gathered)

    def _with_fresh(self, old: pl.DataFrame, fresh: pl.DataFrame, own: EntityTimes) -> pl.DataFrame:
        """Rows of the served version with fresh ones in the place of those of some entities' own times, in order."""
        timestamp, touched = str(self.events.spec.timestamp), own.hull
        assert touched is not None
        times = old[timestamp].cast(pl.Int64)
        first, behind = bisect_left(times, touched.start), bisect_right(times, touched.end)
        if first == old.height:
            return pl.concat([old, fresh])  # as after most drops: nothing of it lies where they do
        stale = polars_schema.with_entities(old.slice(first, behind - first), self.events.spec)
        places = own.places(stale, polars_schema.microseconds(timestamp))
        stale = stale.select(old.columns)
        within = self._replaced(stale, places, fresh)
        return pl.concat([old.head(first), within, old.slice(behind)])

    def _replaced(
        self, stale: pl.DataFrame, places: pl.Series, fresh: pl.DataFrame
    ) -> pl.DataFrame:
        """Ordered rows with fresh ones in the stead of those at some places, in order."""
        identity, many = self.events.spec.order, stale.height
        if stale[places].select(identity).equals(fresh.select(identity)):
            # Rows of the same instants and keys, as after an amendment, come where those were.
            chosen = pl.int_range(many, dtype=pl.Int64, eager=True)
            newer = pl.int_range(many, many + fresh.height, dtype=pl.Int64, eager=True)
            return pl.concat([stale, fresh])[chosen.scatter(places, newer)]
        is_kept = pl.Series([True]).new_from_index(0, many).scatter(places, False)
        return ordered(pl.concat([stale.filter(is_kept), fresh]), self.events)

    def _seen_by(self, own: EntityTimes) -> Gathered | None:
        """The gathered events, if all that rows see are among them."""
        gathered = self.gathered
        return gathered if gathered is not None and gathered.has_all_of(own) else None

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
        timestamp = self.events.spec.timestamp
        pieces = (piece for rows in chunks for piece in pieces_of(rows, self.layout, timestamp))
        if not earlier and not later:
            return self.tx.write_table(self._at_least_one(pieces))
        return self.tx.write_table(pieces, earlier, later)

    def _at_least_one(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """The pieces, or one without rows where there are none."""
        empty = True
        for piece in pieces:
            empty = False
            yield piece
        if empty:
            yield TablePiece(polars_schema.empty(self._columns), None)

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
