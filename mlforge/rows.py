"""A version's table: rows evaluated, laid out in parts that are ranges of time."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import polars as pl

from mlforge import frames, timemodel
from mlforge.engines import POINT, Engine, Events
from mlforge.errors import DataError
from mlforge.manifest import Part
from mlforge.partials import Changes
from mlforge.schema import Schema
from mlforge.store import files
from mlforge.store.local import DATA
from mlforge.values import TimeRange

_ROW_GROUP = 131_072
_BEGINNING, _END = -(1 << 62), 1 << 62


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table is cut. Small in tests, so that seams are crossed.

    part_rows: what a part holds at most. chunk_rows: about how many events a full build evaluates at
    a time, which bounds its memory; each chunk also reads the longest window before it.
    """

    part_rows: int = 1_000_000
    chunk_rows: int = 4_000_000


@dataclass(frozen=True, slots=True)
class Table:
    """What was written: the parts, and how many rows had to be evaluated."""

    parts: tuple[Part, ...]
    recomputed: int


def evaluate(
    engine: Engine,
    events: Events,
    among: pl.DataFrame | None = None,
    times: TimeRange | None = None,
) -> pl.DataFrame:
    """Stored rows: all of them, or those of some entities within a range of their time."""
    spec = events.spec
    columns = spec.output(events.schema)
    if not spec.columns:
        found = events.scan(times=times)
        if among is not None:
            found = found.join(among.lazy(), on=list(spec.keys), how="semi")
        return _ordered(
            frames.select_typed(found, {c.name: c.dtype for c in events.schema}, columns).collect(),
            events,
        )
    assert spec.timestamp is not None
    seen = times
    if times is not None and spec.interval is not None:
        seen = TimeRange(times.start - spec.interval.us, times.end)
    source = events.scan(spec.identity, seen)
    if among is not None:
        source = source.join(among.lazy(), on=list(spec.keys), how="semi")
    time = frames.microseconds(spec.timestamp)
    if spec.interval is not None:
        time = time - time.mod(spec.interval.us) + spec.interval.us
    points = source.select(*spec.keys, time.alias(POINT)).unique()
    if times is not None:
        points = points.filter(pl.col(POINT).is_between(times.start, times.end))
    at = (
        points.with_columns(pl.col(POINT).cast(frames.UTC_INSTANT))
        .sort(POINT, *spec.keys)
        .collect()
    )
    values = engine.values(events, at)
    return at.select(*spec.keys, pl.col(POINT).alias(spec.timestamp)).hstack(values)


@dataclass(frozen=True)
class TableWriter:
    """Writes one version's table into its staging folder."""

    engine: Engine
    events: Events
    into: Path
    layout: Layout

    def full(self) -> Table:
        """Evaluate everything and write it, a range of time after the other."""
        if self.events.spec.timestamp is None:
            rows = evaluate(self.engine, self.events)
            _check_unique(rows, self.events)
            return Table(self._write([rows], []), rows.height)
        chunks = (evaluate(self.engine, self.events, times=times) for times in self._ranges())
        parts = self._write(chunks, [])
        return Table(parts, sum(part.rows for part in parts))

    def _ranges(self) -> list[TimeRange]:
        """All of time, cut after about so many events each."""
        timed = sorted((p.times.end, p.rows) for p, _ in self.events.partials if p.times)
        cuts, gathered = [_BEGINNING], 0
        for end, rows in timed[:-1]:
            gathered += rows
            if gathered >= self.layout.chunk_rows and end >= cuts[-1]:
                cuts.append(end + 1)
                gathered = 0
        return [TimeRange(a, b - 1) for a, b in pairwise([*cuts, _END])]

    def changed(self, changes: Changes, before: Sequence[Part], folder: Path) -> Table:
        """Evaluate what the changed events touch; parts that hold none of it are linked, not written.

        before, folder: the parts of the version before, and where they lie.
        """
        spec = self.events.spec
        if changes.times is None or spec.timestamp is None:
            return self.full()
        touched = changes.times
        if spec.columns:
            touched = timemodel.rows_touched(touched, spec.windows, spec.interval)
        fresh = evaluate(self.engine, self.events, changes.entities, touched)
        dirty, clean = _gathered(
            *_split(before, touched), before=touched.start, fresh=fresh.height, layout=self.layout
        )
        old = _read(dirty, folder, spec.output(self.events.schema))
        stale = pl.col(spec.timestamp).is_between(
            frames.instant(touched.start), frames.instant(touched.end)
        )
        changed = old.filter(stale).join(changes.entities, on=list(spec.keys), how="anti")
        rows = _ordered(pl.concat([old.filter(~stale), changed, fresh]), self.events)
        return Table(
            self._write([rows], [(part, folder / part.file) for part in clean]), fresh.height
        )

    def linked(self, before: Sequence[Part], folder: Path) -> Table:
        """The same table once more, without writing a byte of it."""
        return Table(_place([(part, folder / part.file) for part in before], self.into), 0)

    def _write(
        self, chunks: Iterable[pl.DataFrame], linked: list[tuple[Part, Path]]
    ) -> tuple[Part, ...]:
        """Write rows, given in the order of time, beside parts that are linked."""
        fresh = self.into / ".fresh"
        fresh.mkdir()
        made: list[tuple[Part, Path]] = []
        for chunk in chunks:
            for piece in chunk.iter_slices(self.layout.part_rows):
                if not piece.is_empty():
                    made.append(self._write_part(piece, fresh / f"{len(made)}.parquet"))
        if not made and not linked:
            made = [self._write_part(chunk, fresh / "0.parquet")]
        parts = _place(sorted([*linked, *made], key=lambda pair: _start(pair[0])), self.into)
        shutil.rmtree(fresh)
        return parts

    def _write_part(self, rows: pl.DataFrame, path: Path) -> tuple[Part, Path]:
        rows.write_parquet(path, compression="zstd", row_group_size=_ROW_GROUP)
        times = _times(rows, self.events.spec.timestamp)
        return Part("", rows.height, times, files.hash_file(path)), path


def _split(parts: Iterable[Part], touched: TimeRange) -> tuple[list[Part], list[Part]]:
    """The parts that may hold a touched row, and the others."""
    dirty: list[Part] = []
    clean: list[Part] = []
    for part in parts:
        (dirty if part.times is None or part.times.overlaps(touched) else clean).append(part)
    return dirty, clean


def _gathered(
    dirty: list[Part], clean: list[Part], *, before: int, fresh: int, layout: Layout
) -> tuple[list[Part], list[Part]]:
    """Take small parts just before the touched rows along.

    A part joins while it is at most twice what is to be written anyway, so the sizes of those left
    grow geometrically: many small drops leave few parts, and each row is rewritten a logarithmic
    number of times.
    """
    rows = fresh + sum(part.rows for part in dirty)
    for nearest in reversed([part for part in clean if part.times and part.times.end < before]):
        if nearest.rows > 2 * rows or nearest.rows + rows > layout.part_rows:
            break
        clean = [part for part in clean if part is not nearest]
        dirty = [nearest, *dirty]
        rows += nearest.rows
    return dirty, clean


def _ordered(rows: pl.DataFrame, events: Events) -> pl.DataFrame:
    """By timestamp, then keys, then the remaining columns, nulls first."""
    order = events.spec.order
    rest = () if events.spec.columns else (name for name in rows.columns if name not in order)
    return rows.sort(*order, *rest, nulls_last=False)


def _check_unique(rows: pl.DataFrame, events: Events) -> None:
    keys = list(events.spec.keys)
    twice = rows.filter(pl.struct(keys).is_duplicated()).head(1)
    if not twice.is_empty():
        entity = ", ".join(f"{key}={twice[key][0]!r}" for key in keys)
        raise DataError(
            f"{events.spec.name}: two rows of {entity}; without a timestamp a key has one row: "
            "give timestamp=, or make the function keep one"
        )


def _place(placed: list[tuple[Part, Path]], into: Path) -> tuple[Part, ...]:
    """Link parts under their final names: `data.parquet`, or files in a folder of that name, by time."""
    single = len(placed) == 1
    if not single:
        (into / DATA).mkdir()
    parts = []
    for index, (part, path) in enumerate(placed):
        name = DATA if single else f"{DATA}/{index:06d}-{part.hash[:12]}.parquet"
        files.link_or_copy(path, into / name)
        parts.append(replace(part, file=name))
    return tuple(parts)


def _start(part: Part) -> int:
    return part.times.start if part.times else 0


def _times(rows: pl.DataFrame, timestamp: str | None) -> TimeRange | None:
    if timestamp is None or rows.is_empty():
        return None
    micros = rows[timestamp].to_physical()
    return TimeRange(int(micros[0]), int(micros[-1]))


def _read(parts: list[Part], folder: Path, columns: Schema) -> pl.DataFrame:
    if not parts:
        return frames.empty(columns)
    return (
        pl.scan_parquet([folder / part.file for part in parts], glob=False)
        .select(c.name for c in columns)
        .collect()
    )
