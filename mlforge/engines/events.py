"""A version's events: what every evaluation reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import polars as pl

from mlforge import frames, timemodel
from mlforge.compilers.base import TIME
from mlforge.engines import at_rest, lines, tiles
from mlforge.engines.at_rest import Laid
from mlforge.engines.tiles import Tiles
from mlforge.manifest import Partial
from mlforge.schema import Schema, dtypes
from mlforge.spec import FeatureSpec
from mlforge.store import places
from mlforge.store.places import Lot
from mlforge.values import BEGINNING, END, TimeRange


@dataclass(frozen=True)
class Events:
    """A version's events: stored partials, the schema that they share, and what they mean.

    `where` gives what to read for partials; `laid` where tiles of a kind are at rest, by the file whose they
    are. Both are asked when they are first read.
    """

    spec: FeatureSpec
    schema: Schema
    partials: tuple[Partial, ...]
    where: Callable[[Sequence[Partial]], Sequence[Lot]]
    laid: Callable[[str], Mapping[Path, Path]] | None = None

    def within(self, times: TimeRange | None) -> Events:
        """Only the partials that hold an event in the range."""
        if times is None:
            return self
        start, end = times.start, times.end  # as `overlaps`, which thousands of calls would slow
        kept = [p for p in self.partials if (t := p.times) and t.start <= end and start <= t.end]
        return replace(self, partials=tuple(kept))

    def rows_within(self, times: TimeRange | None) -> int:
        """How many rows of files are read for the range, at most."""
        return sum([lot.rows for lot in self.lots_within(times)])

    @cached_property
    def lots(self) -> Sequence[Lot]:
        """What is read for all of them."""
        return self.where(self.partials)

    def lots_within(self, times: TimeRange | None) -> Sequence[Lot]:
        """What is read for a range of time."""
        return self.lots if times is None else [lot for lot in self.lots if lot.overlaps(times)]

    def scan(
        self,
        columns: Sequence[str] | None = None,
        times: TimeRange | None = None,
        among: pl.DataFrame | None = None,
    ) -> pl.LazyFrame:
        """The events, lazily: some columns, those of a time range and of some entities, in no particular order."""
        return self._scan(self.lots_within(times), columns, times, among)

    def traces(
        self, times: TimeRange | None = None, among: pl.DataFrame | None = None
    ) -> pl.LazyFrame:
        """Keys and times of the events, lazily; where tiles are at rest, those of the tiles.

        Of those the starts of intervals are held against the range.
        """
        laid, others = self._parted(times)
        if not laid:
            return self.scan(self.spec.identity, times, among)
        assert self.spec.timestamp is not None
        time = pl.col(TIME).cast(frames.UTC_INSTANT).alias(self.spec.timestamp)
        rows = pl.scan_parquet([one.path for one in laid], glob=False).select(*self.spec.keys, time)
        rest = self._scan(others, self.spec.identity, times, among)
        return pl.concat([self._chosen(rows, times, among), rest])

    def tiles(self, times: TimeRange, among: pl.DataFrame | None = None) -> Tiles | None:
        """The tiles of a range and of some entities; None where not most events have theirs at rest.

        The range begins and ends where intervals do.
        """
        laid, others = self._parted(times)
        if not laid:
            return None
        inside, given = pl.col(TIME).is_between(times.start, times.end), dtypes(self.schema)
        found = [
            replace(each, rows=frames.of_entities(each.rows.filter(inside), among, self.spec.keys))
            for each in at_rest.scanned(laid, given)
        ]
        if others:
            rest = lines.of_events(self._scan(others, self.spec.needed(), times, among), self.spec)
            found.append(tiles.made(rest, self.spec, given))
        return tiles.together(found, given)

    def are_tiled(self, times: TimeRange) -> bool:
        """Whether tiles at rest make every metric over a range, but for what little has none."""
        laid, _ = self._parted(times)
        return bool(laid) and at_rest.makes(laid, self.spec, dtypes(self.schema))

    def ranges(self, rows: int) -> list[TimeRange]:
        """All of time, cut where about so many events came since the cut before.

        None is shorter than the longest window: each range needs the events of one before it, which
        must not outweigh its own.
        """
        reach = timemodel.reach(self.spec.windows) if self.spec.windows else TimeRange(0, 0)
        timed = sorted((p.times.end, p.rows) for p in self.partials if p.times)
        begun = min((p.times.start for p in self.partials if p.times), default=0)
        cuts, gathered = [BEGINNING], 0
        for end, count in timed[:-1]:
            gathered += count
            if gathered >= rows and end - begun >= reach.end - reach.start:
                cuts.append(end + 1)
                begun, gathered = end + 1, 0
        return [TimeRange(a, b - 1) for a, b in pairwise([*cuts, END])]

    def _scan(
        self,
        lots: Sequence[Lot],
        columns: Sequence[str] | None,
        times: TimeRange | None,
        among: pl.DataFrame | None,
    ) -> pl.LazyFrame:
        wanted = tuple(c for c in self.schema if columns is None or c.name in columns)
        since = BEGINNING if times is None else times.start
        return self._chosen(places.scan(lots, wanted, since=since), times, among)

    def _chosen(
        self, found: pl.LazyFrame, times: TimeRange | None, among: pl.DataFrame | None
    ) -> pl.LazyFrame:
        if times is not None and self.spec.timestamp is not None:
            start, end = frames.instant(times.start), frames.instant(times.end)
            found = found.filter(pl.col(self.spec.timestamp).is_between(start, end))
        return frames.of_entities(found, among, self.spec.keys)

    def _parted(self, times: TimeRange | None) -> tuple[list[Laid], Sequence[Lot]]:
        """The tiles at rest within a range, and what has none; no tiles unless they are of most events."""
        lots = self.lots_within(times)
        found = [(lot, self._at_rest(lot)) for lot in lots] if self._places else []
        laid = [one for _, one in found if one is not None]
        tiled = sum([lot.rows for lot, one in found if one is not None])
        others = [lot for lot, one in found if one is None]
        return (laid, others) if tiled > sum([lot.rows for lot in others]) else ([], lots)

    def _at_rest(self, lot: Lot) -> Laid | None:
        path = self._places.get(lot.path) if lot.numbers is None else None
        laid = None if path is None else at_rest.look(path, lot.path)
        return None if laid is None or laid.summary is None else laid

    @cached_property
    def _places(self) -> Mapping[Path, Path]:
        kind = at_rest.kind_of(self.spec, self.schema)
        return {} if self.laid is None or kind is None else self.laid(kind)
