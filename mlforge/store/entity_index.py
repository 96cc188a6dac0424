"""The entity index: a version's events once more, by entity, so that what few entities have is read without the history.

Only a cache, beside a file of events as tiles are. A scan says of which partials it is: rows of others are left out, and what is
not here is read from files.
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
_FORMAT = 1
_KIND_LENGTH = (
    22  # of another length than those of tiles, sets and totals, which serve other purposes
)
_PLACE, _LENGTH = "__place", "__length"
_FAULTS = (OSError, pa.ArrowException)


class Looked(NamedTuple):
    """The answer of an index to a scan: the rows of the partials that are here, and the partials that are not."""

    rows: pl.DataFrame
    others: Sequence[Partial]


@dataclass(frozen=True)
class EntityIndex:
    """A stored index.

    columns: of the events, those that evaluation needs. marks: of the partials whose rows are here, in the order of their
    numbers. rows: how many. of: the file of events beside which it is kept.
    """

    file: str
    of: str
    columns: Schema
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

    def looked_up(
        self,
        partials: Sequence[Partial],
        columns: Schema,
        times: TimeRange | None,
        among: pl.DataFrame,
        time: str,
    ) -> Looked | None:
        """The events of some entities; None where columns are missing, or going through all of a range costs less."""
        if not set(columns) <= set(self.columns):
            return None
        gone, others = self.beside(partials)
        if 2 * len(gone) > len(self.marks):
            return None
        scanned = _rows(partials, times) - _rows(others, times)
        if scanned < LEAST:
            return None
        try:
            rows = self._of_entities(among, scanned)
        except _FAULTS:  # it went meanwhile
            return None
        if rows is None:
            return None
        if gone:
            rows = rows.filter(~pl.col(NUMBER).is_in(gone))
        if times is not None:
            start, end = polars_schema.instant(times.start), polars_schema.instant(times.end)
            rows = rows.filter(pl.col(time).is_between(start, end))
        return Looked(rows, others)

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

    def _of_entities(self, among: pl.DataFrame, scanned: int) -> pl.DataFrame | None:
        """The rows of some entities; None where they are not few beside those of a scan."""
        chosen, many = [], 0
        for batch in mapped_rows.mapped_batches(self.file):
            keys = mapped_rows.keys_of(batch)
            known = keys.with_columns(
                mapped_rows.lengths_of(batch).alias(_LENGTH),
                pl.int_range(pl.len(), dtype=pl.UInt32).alias(_PLACE),
            )
            found = polars_schema.in_memory(
                polars_schema.of_entities(known.lazy(), among, keys.columns)
            )
            many += int(found[_LENGTH].sum())
            if many * FEW > scanned:
                return None
            chosen.append((batch, found[_PLACE]))
        return pl.concat(mapped_rows.rows_of(batch, places) for batch, places in chosen)


@dataclass(frozen=True)
class EntityIndexes:
    """The entity index of a feature's events, if one is stored: looked for once."""

    store: Store
    spec: FeatureSpec
    schema: Schema

    @cached_property
    def stored(self) -> EntityIndex | None:
        """The stored index; of several the one of the most rows."""
        spec, columns = self.spec, self.columns
        if not may_have(spec):
            return None
        files = self.store.tiles(spec.name, self.kind).items()
        known = (self._read(file, of, columns) for of, file in files)
        return max((e for e in known if e is not None), key=lambda e: e.rows, default=None)

    def look_up(self) -> None:
        """Look for the index now: whether a file is whole is found out once in a process, by reading all of it."""
        _ = self.stored

    @property
    def columns(self) -> Schema:
        """The event columns that are in the index."""
        return tuple(column for column in self.schema if column.name in self.spec.needed())

    @property
    def kind(self) -> str:
        """A hash of all that the index depends on besides events."""
        columns = [(column.name, column.dtype) for column in self.columns]
        document = [_FORMAT, "by entity", list(self.spec.keys), self.spec.timestamp, columns]
        return hashlib.sha256(json.dumps(document).encode()).hexdigest()[:_KIND_LENGTH]

    def _read(self, file: str, of: str, columns: Schema) -> EntityIndex | None:
        notes = self.store.tile_notes(self.spec.name, file, of)
        if notes is None:
            return None
        return EntityIndex(file, of, columns, tuple(notes["covers"]), notes["rows"])


def _rows(partials: Sequence[Partial], times: TimeRange | None) -> int:
    """How many events a scan of partials goes through for a range of time."""
    return sum([p.rows for p in partials if times is None or (p.times and p.times.overlaps(times))])


def may_have(spec: FeatureSpec) -> bool:
    """Whether a feature may have an index: windows over all time look at all that an entity ever had."""
    endless = any(metric.window.is_endless for metric in spec.columns)
    return endless and bool(spec.keys) and spec.timestamp is not None


def index_notes(partials: Sequence[Partial]) -> dict[str, Any]:
    """The notes of an index of some partials, none listed twice."""
    marks = [mark_of(partial.hash) for partial in partials]
    return {"covers": marks, "rows": sum([partial.rows for partial in partials])}


def lists(rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Rows as a list for each entity, as `mapped_rows` takes them."""
    fields = [name for name in rows.columns if name not in keys]
    return rows.group_by(keys).agg(pl.struct(fields).alias(mapped_rows.ROWS))
