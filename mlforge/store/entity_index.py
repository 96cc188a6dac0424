"""The entity index: a version's events once more, by entity, so that what few entities have is read without the history.

It grows by runs, as a log-structured merge tree does: what came since is a run of its own, merged with those before it once they are of
its size. Only a cache, beside a file of events as tiles are. A scan says of which partials it is: rows of others are left out, and
what is not here is read from files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.manifest import Partial
from mlforge.core.schema import Schema
from mlforge.core.values import TimeRange
from mlforge.frames import polars_schema
from mlforge.store import mapped_rows
from mlforge.store.base import Store
from mlforge.store.file_tasks import mark_of
from mlforge.store.resident import NUMBER

FEW = 4
"""Entities are looked up where they have at most one in so many of the events that a scan would go through."""
LEAST = 50_000
"""For a scan of fewer events nothing is looked up."""
LEVELS = 6
"""How many runs an index has at most."""
_FORMAT = 1
_KIND_LENGTH = 22
"""The length of the first level's kind: tiles, sets, totals and each level have another, as each serves a purpose of its own."""
_PLACE, _LENGTH = "__place", "__length"
_FAULTS = (OSError, pa.ArrowException)


class Looked(NamedTuple):
    """The answer of an index to a scan: the rows of the partials that are here, and the partials that are not."""

    rows: pl.DataFrame
    others: Sequence[Partial]


@dataclass(frozen=True)
class Run:
    """A stored file of an index.

    of: the file of events beside which it is kept. level: its place among the runs. marks: of the partials whose rows are here, in
    the order of their numbers. rows: how many.
    """

    file: str
    of: str
    level: int
    marks: tuple[str, ...]
    rows: int

    @cached_property
    def number_by_mark(self) -> Mapping[str, int]:
        """The number that the rows of each partial have."""
        return {mark: number for number, mark in enumerate(self.marks)}

    def beside(self, partials: Sequence[Partial]) -> tuple[list[int], list[Partial]]:
        """The numbers of the partials that are here and not among these, and those of these that are not here.

        A partial that is listed twice is here once.
        """
        gone = dict(self.number_by_mark)
        others = [p for p in partials if gone.pop(mark_of(p.hash), None) is None]
        return [*gone.values()], others

    def is_of(self, gone: Sequence[int]) -> bool:
        """Whether most of its partials count. gone: the numbers of those that do not."""
        return 2 * len(gone) <= len(self.marks)

    @property
    def is_readable(self) -> bool:
        """Whether the file is still there, on a file system that maps files."""
        try:
            next(mapped_rows.mapped_batches(self.file), None)
        except _FAULTS:
            return False
        return True

    def frames(self) -> Iterator[pl.DataFrame]:
        """All rows, those of some entities at a time, with their NUMBER. Raises OSError."""
        for batch in mapped_rows.mapped_batches(self.file):
            places = pl.int_range(batch.num_rows, dtype=pl.UInt32, eager=True)
            yield mapped_rows.rows_of(batch, places)

    def lists_of(self, among: pl.DataFrame, gone: Sequence[int]) -> Iterator[EntityLists]:
        """The lists of some entities, a batch after another. gone: as in `is_of`. Raises OSError."""
        for batch in mapped_rows.mapped_batches(self.file):
            keys = mapped_rows.keys_of(batch)
            known = keys.with_columns(
                mapped_rows.lengths_of(batch).alias(_LENGTH),
                pl.int_range(pl.len(), dtype=pl.UInt32).alias(_PLACE),
            )
            found = polars_schema.in_memory(
                polars_schema.of_entities(known.lazy(), among, keys.columns)
            )
            yield EntityLists(batch, found[_PLACE], int(found[_LENGTH].sum()), gone)


@dataclass(frozen=True, slots=True)
class EntityLists:
    """Lists of a batch by their places; many: how many rows they have. gone: numbers of partials whose rows do not count."""

    batch: pa.RecordBatch
    places: pl.Series
    many: int
    gone: Sequence[int]

    def rows(self) -> pl.DataFrame:
        """The rows of the lists, beside their keys."""
        rows = mapped_rows.rows_of(self.batch, self.places)
        return rows.filter(~pl.col(NUMBER).is_in(self.gone)) if self.gone else rows


class Places(NamedTuple):
    """Where an index has the rows of some entities; and the partials whose rows it has not."""

    lists: Sequence[EntityLists]
    others: Sequence[Partial]

    @property
    def many(self) -> int:
        """How many rows they are at most."""
        return sum([each.many for each in self.lists])


@dataclass(frozen=True)
class EntityIndex:
    """A stored index: runs of other partials each, of which every newer one is smaller than those before it.

    columns: of the events, those that evaluation needs.
    """

    columns: Schema
    runs: tuple[Run, ...]

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return sum([run.rows for run in self.runs])

    def looked_up(
        self,
        partials: Sequence[Partial],
        columns: Schema,
        times: TimeRange | None,
        among: pl.DataFrame,
        time: str,
    ) -> Looked | None:
        """The events of some entities; None where columns are missing, or going through all of a range costs less."""
        places = self.places_of(partials, columns, times, among)
        if places is None:
            return None
        names = [column.name for column in self.columns]
        rows = pl.concat(each.rows().select(names) for each in places.lists)
        if times is not None:
            start, end = polars_schema.instant(times.start), polars_schema.instant(times.end)
            rows = rows.filter(pl.col(time).is_between(start, end))
        return Looked(rows, places.others)

    def places_of(
        self,
        partials: Sequence[Partial],
        columns: Schema,
        times: TimeRange | None,
        among: pl.DataFrame,
    ) -> Places | None:
        """Where the rows of some entities are; None as `looked_up`."""
        others, chosen = partials, []
        for run in self.runs if set(columns) <= set(self.columns) else ():
            gone, rest = run.beside(others)
            if run.is_of(gone):
                chosen.append((run, gone))
                others = rest
        scanned = _rows(partials, times) - _rows(others, times)
        if not chosen or scanned < LEAST:
            return None
        lists, many = [], 0
        try:
            for run, gone in chosen:
                for each in run.lists_of(among, gone):
                    lists.append(each)
                    many += each.many
                    if many * FEW > scanned:
                        return None
        except _FAULTS:  # it went meanwhile
            return None
        return Places(lists, others)


@dataclass(frozen=True)
class EntityIndexes:
    """The entity index of a feature's events, if one is stored: looked for once."""

    store: Store
    spec: FeatureSpec
    schema: Schema

    @cached_property
    def stored(self) -> EntityIndex | None:
        """The stored index."""
        runs = tuple(self._runs()) if may_have(self.spec) else ()
        return EntityIndex(self.columns, runs) if runs else None

    def look_up(self) -> None:
        """Look for the index now: whether a file is whole is found out once in a process, by reading all of it."""
        _ = self.stored

    @property
    def columns(self) -> Schema:
        """The event columns that are in the index."""
        return tuple(column for column in self.schema if column.name in self.spec.needed())

    def kind(self, level: int) -> str:
        """A hash of all that the run of a level depends on besides events."""
        columns = [(column.name, column.dtype) for column in self.columns]
        document = [_FORMAT, "by entity", list(self.spec.keys), self.spec.timestamp, columns]
        if level:
            document.append(level)
        digits = hashlib.sha256(json.dumps(document).encode()).hexdigest()
        return digits[: _KIND_LENGTH + 2 * level]

    def _runs(self) -> Iterator[Run]:
        """The runs level by level, up to the first that has none; of several of a level the one of the most rows comes first."""
        for level in range(LEVELS):
            files = self.store.tiles(self.spec.name, self.kind(level)).items()
            known = [run for run in (self._read(of, file, level) for of, file in files) if run]
            if not known:
                return
            yield from sorted(known, key=lambda run: run.rows, reverse=True)

    def _read(self, of: str, file: str, level: int) -> Run | None:
        notes = self.store.tile_notes(self.spec.name, file, of)
        if notes is None:
            return None
        return Run(file, of, level, tuple(notes["covers"]), notes["rows"])


def _rows(partials: Sequence[Partial], times: TimeRange | None) -> int:
    """How many events a scan of partials goes through for a range of time."""
    return sum([p.rows for p in partials if times is None or (p.times and p.times.overlaps(times))])


def may_have(spec: FeatureSpec) -> bool:
    """Whether a feature may have an index: windows over all time look at all that an entity ever had."""
    return spec.has_endless and bool(spec.keys) and spec.timestamp is not None


def index_notes(partials: Sequence[Partial]) -> dict[str, Any]:
    """The notes of an index of some partials, none listed twice."""
    marks = [mark_of(partial.hash) for partial in partials]
    return {"covers": marks, "rows": sum([partial.rows for partial in partials])}


def lists(rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Rows as a list for each entity, as `mapped_rows` takes them."""
    fields = [name for name in rows.columns if name not in keys]
    return rows.group_by(keys).agg(pl.struct(fields).alias(mapped_rows.ROWS))
