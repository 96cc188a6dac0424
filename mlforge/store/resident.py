"""Resident events: what windows see, in memory by time and by entity, so that a drop reads no file for it.

Only a cache. A scan says of which partials it is: rows of others are left out, and what is not here is read from files.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import polars as pl

from mlforge.core.forgotten import is_rewritten
from mlforge.core.list_diff import replaced_partials
from mlforge.core.manifest import Manifest, Partial
from mlforge.core.schema import Column, Schema
from mlforge.core.values import TimeRange
from mlforge.frames import polars_schema

NUMBER = "__of"
"""The column that tells of which partial a row is, by its place among them."""
_PLACES = "__places"
_FEW = 4
"""Entities are looked up where they are at most one in so many; else all rows are gone through."""
_STALE = 8
"""Resident events are gathered anew once one row in so many has come, gone or left all windows since."""


def columns_of(manifest: Manifest) -> Schema:
    """The columns of a version's events that its values follow from."""
    needed = manifest.spec.needed()
    return tuple(column for column in manifest.events if column.name in needed)


@dataclass(frozen=True)
class Resident:
    """The events of a version from an instant on, in some columns.

    partials: all of the version's, none twice. columns: those that are here. since: the instant, in UTC microseconds.
    rows: the events in the order of time, each with the NUMBER of its partial.
    """

    partials: tuple[Partial, ...]
    columns: Schema
    keys: tuple[str, ...]
    time: str
    since: int
    rows: pl.DataFrame

    @classmethod
    def of(cls, manifest: Manifest, columns: Schema, since: int) -> Self:
        """A version's events, before any row is there. A partial that it names twice is here once."""
        spec, by_hash = manifest.spec, {partial.hash: partial for partial in manifest.partials}
        assert spec.timestamp is not None
        is_alone = len(by_hash) == len(manifest.partials)
        partials = manifest.partials if is_alone else tuple(by_hash.values())
        rows = polars_schema.empty((*columns, Column(NUMBER, "UInt32")))
        return cls(partials, columns, spec.keys, spec.timestamp, since, rows)

    def with_rows(self, rows: pl.DataFrame) -> Self:
        """The resident events with all rows of `partials_since` since the instant, given in any order."""
        if not rows[self.time].is_sorted():
            rows = rows.sort(self.time)
        resident = replace(self, rows=rows.rechunk())
        _ = resident._places  # made now, while nobody waits
        return resident

    @property
    def partials_since(self) -> dict[int, Partial]:
        """The partials that may hold an event from the instant on, by their numbers."""
        numbered = enumerate(self.partials)
        return {n: p for n, p in numbered if p.times and p.times.end >= self.since}

    def newer(self, partials: Sequence[Partial]) -> list[Partial]:
        """The partials of a version that are not here although they may hold an event from the instant on."""
        _, came = replaced_partials(self.partials, partials)
        return [p for p in came if p.times and p.times.end >= self.since]

    def is_of(self, manifest: Manifest) -> bool:
        """Whether it has events of a version, be it another feature's: of the same files, function, keys and timestamp.

        A partial's hash says so; beside it the digest of the rows is compared, since a hash is of one feature.
        """
        if (manifest.spec.keys, manifest.spec.timestamp) != (self.keys, self.time):
            return False
        known = self._number_by_hash
        shared = [partial for partial in manifest.partials if partial.hash in known]
        same = (self.partials[known[partial.hash]].digest == partial.digest for partial in shared)
        return bool(shared) and all(same)

    def holds(self, columns: Sequence[Column], times: TimeRange | None) -> bool:
        """Whether all events of its partials within a range are here, with these columns as they are asked for."""
        if times is None or times.start < self.since:
            return False
        return all(self._dtypes.get(column.name) == column.dtype for column in columns)

    def is_worn(self, manifest: Manifest, columns: Schema, since: int) -> bool:
        """Whether another version, or a later instant, is better served by gathering its events anew.

        It is once a partial was rewritten without forgotten rows, which must not stay here either.
        """
        if since < self.since or columns != self.columns:
            return True
        return self._is_far_from(manifest, since, stale=bisect_left(self._times, since))

    def serves(self, manifest: Manifest, since: int) -> bool:
        """Whether a version of another feature need not keep its events from an instant on: almost all of them are here."""
        return self.reaches(manifest, since) and not self._is_far_from(manifest, since)

    def reaches(self, manifest: Manifest, since: int) -> bool:
        """Whether a version's events from an instant on are here with the columns that it needs, be they another feature's, but for those of newer files."""
        has_all = since >= self.since and set(columns_of(manifest)) <= set(self.columns)
        return has_all and self.is_of(manifest)

    def _is_far_from(self, manifest: Manifest, since: int, stale: int = 0) -> bool:
        """Whether many rows differ from a version's, or one must not be here any more. stale: rows that no window needs."""
        went, came = replaced_partials(self.partials, manifest.partials)
        if any(is_rewritten(partial.hash) for partial in came):
            return True
        changed = sum(p.rows for p in (*went, *came) if p.times and p.times.end >= since)
        return (changed + stale) * _STALE > self.rows.height

    def many(self, times: TimeRange) -> int:
        """How many rows lie in a range of time."""
        first, behind = self._run(times)
        return behind - first

    def held(
        self, gone: Collection[Partial], times: TimeRange, among: pl.DataFrame | None
    ) -> pl.LazyFrame:
        """The rows of a range of time, and of some entities, in the order of time; with numbers only where some do not count.

        gone: partials whose rows do not count. among: keys of entities, None for all.
        """
        first, behind = self._run(times)
        numbers = [self._number_by_hash[each.hash] for each in gone if _overlaps(each, times)]
        held = self.rows if numbers else self._without_numbers
        places = self._looked_up(among)
        if places is None:
            rows = held.lazy().slice(first, behind - first)
            rows = self._of_entities(rows, among)
        else:
            places = places.sort()
            start, end = bisect_left(places, first), bisect_left(places, behind)
            rows = held[places.slice(start, max(0, end - start))].lazy()
        return rows.filter(~pl.col(NUMBER).is_in(numbers)) if numbers else rows

    def _run(self, times: TimeRange) -> tuple[int, int]:
        """The place of the first row in a range of time, and that behind the last."""
        first, behind = bisect_left(self._times, times.start), bisect_right(self._times, times.end)
        return first, max(first, behind)

    def _of_entities(self, rows: pl.LazyFrame, among: pl.DataFrame | None) -> pl.LazyFrame:
        if among is None or self.keys:
            return polars_schema.of_entities(rows, among, self.keys)
        return rows if among.height else rows.clear()  # without keys all rows are of one entity

    def _looked_up(self, among: pl.DataFrame | None) -> pl.Series | None:
        """The places of the rows of some entities; None where going through all rows costs less."""
        index = self._places
        if among is None or index is None or among.height * _FEW > index.height:
            return None
        chosen = polars_schema.of_entities(index.lazy(), among, self.keys)
        return polars_schema.in_memory(chosen.select(pl.col(_PLACES).explode())).to_series()

    @cached_property
    def _number_by_hash(self) -> dict[str, int]:
        return {partial.hash: number for number, partial in enumerate(self.partials)}

    @cached_property
    def _dtypes(self) -> dict[str, str]:
        return {column.name: column.dtype for column in self.columns}

    @cached_property
    def _without_numbers(self) -> pl.DataFrame:
        return self.rows.drop(NUMBER)

    @property
    def _times(self) -> memoryview:
        """The rows' instants, as they lie in memory: a look at one of a column of polars takes ten times as long.

        Not kept, as no memory can be pickled.
        """
        times = self.rows[self.time].to_physical().to_arrow()
        values = memoryview(times.buffers()[1] or b"").cast("q")
        return values[times.offset : times.offset + len(times)]

    @cached_property
    def _places(self) -> pl.DataFrame | None:
        """The keys of each entity and the places of its rows; None where entities have no keys."""
        if not self.keys:
            return None
        place = pl.int_range(pl.len(), dtype=pl.UInt32).alias(_PLACES)
        plan = self.rows.lazy().select(*self.keys, place).group_by(self.keys).agg(_PLACES)
        return polars_schema.in_memory(plan)


def partials_since(manifest: Manifest, since: int | None) -> list[Partial]:
    """The partials of a version that may hold an event from an instant on; none for None."""
    if since is None:
        return []
    return [p for p in manifest.partials if p.times and p.times.end >= since]


def _overlaps(partial: Partial, times: TimeRange) -> bool:
    return partial.times is not None and partial.times.overlaps(times)
