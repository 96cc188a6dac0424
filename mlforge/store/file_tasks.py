"""Locations of partials, each in a file of its own or many in a pack, and the scans that read them.

A file is named by a text that polars can scan: a path, or the URL of an object.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import polars as pl

from mlforge.core.forgotten import origin
from mlforge.core.manifest import Partial
from mlforge.core.schema import Column, Schema, dtypes
from mlforge.core.values import BEGINNING, TimeRange
from mlforge.frames import polars_schema

NUMBER = "__partial"
"""The column of a pack that tells whose a row is."""
_MARK = "__mark"
_NEVER = 1 << 63


class PartialLocation(NamedTuple):
    """The file that holds a partial; in a pack its rows carry its number, one of `among`."""

    file: str
    number: int | None = None
    among: int = 1

    @property
    def mark(self) -> str:
        """The text that `scan` marks its rows with."""
        return self.file if self.number is None else f"{self.file}#{self.number}"


class PartialWrite(NamedTuple):
    """A partial to be stored: its description and its events."""

    partial: Partial
    events: pl.DataFrame


def mark_of(partial_hash: str) -> str:
    """The name of a partial among those that tiles cover, under "covers" in their notes.

    One that was rewritten without forgotten rows has a name of its own: tiles that hold those rows do not cover it.
    """
    return f"{partial_hash[:24]}{partial_hash[len(origin(partial_hash)) :]}"


@dataclass(frozen=True, slots=True)
class TileWrite:
    """Tiles to be stored: the file of partials that they follow from, and notes that JSON can hold.

    rows: in one frame; or, for a file that is mapped into memory, lists of rows in frames that come one after another.
    """

    of: str
    rows: pl.DataFrame | Iterator[pl.DataFrame]
    notes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kept:
    """Cached rows of a file: some columns, from an instant on."""

    rows: pl.DataFrame
    since: int = BEGINNING


@dataclass(frozen=True, slots=True)
class FileScanTask:
    """A unit of reading: one file, all of it or the rows of some numbers."""

    file: str
    schema: Schema
    times: TimeRange | None
    packed: bool = False
    numbers: tuple[int, ...] | None = None
    rows: int = 0
    """How many there may be at most."""
    kept: Kept | None = None

    def overlaps(self, times: TimeRange) -> bool:
        """Whether it may hold an event in the range."""
        return self.times is not None and self.times.overlaps(times)

    def stored(self, columns: Collection[str]) -> list[str]:
        """The requested columns that the file has, and the number column of a pack."""
        names = [c.name for c in self.schema if c.name in columns and c.dtype != "Null"]
        return [*names, NUMBER] if self.packed else names

    def in_memory(self, columns: Collection[str], since: int) -> tuple[str, ...]:
        """The cached frame's columns if it holds these columns from the instant on; else empty."""
        if self.kept is None or self.kept.since > max(since, BEGINNING):
            return ()
        kept = self.kept.rows.columns
        return tuple(kept) if set(self.stored(columns)).issubset(kept) else ()


Told = Callable[[FileScanTask], object]
"""Called with the task of a file that is about to be written, whose rows are in memory."""


class _Alike(NamedTuple):
    """The key of tasks that are read in one go; the schema by identity: comparing takes longer than reading."""

    schema: int
    packed: bool
    numbers: tuple[int, ...] | None
    kept: tuple[str, ...]


@dataclass(slots=True)
class _PackUses:
    """How often each partial of a pack is to be read, by its number."""

    file: str
    schema: Schema
    among: int
    rows: int = 0
    start: int = _NEVER
    end: int = -_NEVER
    uses: dict[int, int] = field(default_factory=dict)

    def plan_files(self) -> Iterable[FileScanTask]:
        times = TimeRange(self.start, self.end) if self.start <= self.end else None
        for nth in range(1, max(self.uses.values()) + 1):
            numbers = tuple(sorted(n for n, uses in self.uses.items() if uses >= nth))
            whole = len(numbers) == self.among
            yield FileScanTask(
                self.file, self.schema, times, True, None if whole else numbers, self.rows
            )


def whole_pack(file: str, partials: Sequence[Partial]) -> FileScanTask:
    """The scan task that reads all of a pack, of which these are the partials."""
    times = [partial.times for partial in partials if partial.times is not None]
    covered = (
        TimeRange(min([each.start for each in times]), max([each.end for each in times]))
        if times
        else None
    )
    rows = sum([partial.rows for partial in partials])
    return FileScanTask(file, partials[0].schema, covered, packed=True, rows=rows)


def plan_files(
    partials: Sequence[Partial], places: Sequence[PartialLocation]
) -> tuple[FileScanTask, ...]:
    """Scan tasks that together read these partials; a partial listed twice is read twice."""
    alone: list[FileScanTask] = []
    # By the identity of the file's name, which the places of a pack share.
    packs: dict[int, _PackUses] = {}
    for partial, place in zip(partials, places, strict=True):
        if place.number is None:
            alone.append(FileScanTask(place.file, partial.schema, partial.times, rows=partial.rows))
            continue
        pack = packs.get(id(place.file))
        if pack is None:
            pack = packs[id(place.file)] = _PackUses(place.file, partial.schema, place.among)
        uses = pack.uses
        uses[place.number] = uses.get(place.number, 0) + 1
        pack.rows += partial.rows
        times = partial.times
        if times is not None:
            pack.start = min(pack.start, times.start)
            pack.end = max(pack.end, times.end)
    return (*alone, *(task for pack in packs.values() for task in pack.plan_files()))


def scan(
    tasks: Iterable[FileScanTask], schema: Schema, mark: str | None = None, since: int = BEGINNING
) -> pl.LazyFrame:
    """Their rows, lazily, in no particular order; `mark` names a column for the marks of places.

    since: rows before this instant may be missing.
    """
    names = {column.name for column in schema}
    together: dict[_Alike, list[FileScanTask]] = defaultdict(list)
    for task in tasks:
        kept = () if mark else task.in_memory(names, since)
        together[_Alike(id(task.schema), task.packed, task.numbers, kept)].append(task)
    columns = (*schema, Column(mark, "String")) if mark else schema
    scans = []
    for shared, alike in together.items():
        if shared.kept:
            rows = pl.concat([task.kept.rows for task in alike if task.kept]).lazy()
        else:
            files = [task.file for task in alike]
            rows = pl.scan_parquet(files, glob=False, include_file_paths=_MARK if mark else None)
        present = dtypes(alike[0].schema)
        if shared.numbers is not None:
            rows = rows.filter(_among(shared.numbers))
        if mark:
            row_numbers = [pl.lit("#"), pl.col(NUMBER)] if shared.packed else []
            rows = rows.with_columns(pl.concat_str(pl.col(_MARK), *row_numbers).alias(mark))
            present = {**present, mark: "String"}
        scans.append(polars_schema.select_typed(rows, present, columns))
    return pl.concat(scans) if scans else polars_schema.empty(columns).lazy()


def read_place(place: PartialLocation, columns: Sequence[str]) -> pl.DataFrame:
    """Columns of one partial's rows."""
    rows = pl.scan_parquet(place.file, glob=False)
    if place.number is not None:
        rows = rows.filter(_among([place.number]))
    return rows.select(columns).collect()


def read_file(place: PartialLocation) -> list[pl.DataFrame]:
    """The events of every partial in the file of a place, by their numbers; raises what polars does."""
    rows = pl.read_parquet(place.file, glob=False)
    if place.number is None:
        return [rows]
    by_number = rows.partition_by(NUMBER, as_dict=True, include_key=False)
    none = rows.drop(NUMBER).clear()
    return [by_number.get((number,), none) for number in range(place.among)]


def by_file(places: Mapping[str, PartialLocation]) -> list[dict[str, PartialLocation]]:
    """The places of partials, by their hashes, those of one file together."""
    files: dict[str, dict[str, PartialLocation]] = {}
    for hash_, place in places.items():
        files.setdefault(place.file, {})[hash_] = place
    return [*files.values()]


def read_together(places: Mapping[str, PartialLocation]) -> dict[str, pl.DataFrame]:
    """The events of partials that lie in one file, by their hashes; raises what polars does."""
    frames = read_file(next(iter(places.values())))
    return {hash_: frames[place.number or 0] for hash_, place in places.items()}


def _among(numbers: Sequence[int]) -> pl.Expr:
    first, last = numbers[0], numbers[-1]
    if last - first + 1 == len(numbers):
        return pl.col(NUMBER).is_between(first, last)
    return pl.col(NUMBER).is_in(list(numbers))
