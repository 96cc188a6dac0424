"""Tiles that follow from files of events alone, to the last bit: the same on a machine that has cached them and on one that has not.

Sums of squares are rounded, so their last bits tell which events were added up together. Here those of an entity and an interval are, whatever
file they lie in: cached tiles stand for the intervals in which no other file has events, and the events of all others are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import polars as pl

from mlforge.compilers.base import TIME
from mlforge.core.values import TimeRange
from mlforge.engines import timeline
from mlforge.engines.tiles.build import Tiles, build_tiles, concat_tiles
from mlforge.engines.tiles.cache import CachedTiles, TileCache, scanned
from mlforge.frames import polars_schema
from mlforge.store.file_tasks import FileScanTask
from mlforge.store.scan import EventScan

_AT_ONCE = 2_000_000
"""About how many events are held in memory while tiles are built of them."""
_Looked = Sequence[tuple[FileScanTask, CachedTiles | None]]


def tiles_as_filed(
    cache: TileCache, scan: EventScan, times: TimeRange, among: pl.DataFrame | None
) -> Tiles:
    """The tiles of a range of time and of some entities: one of each entity and interval. The range begins and ends where intervals do."""
    dtypes, looked_up = cache.spec.value_dtypes(cache.schema), cache.looked_up(scan, times)
    tiles = _tiles(cache, scan, times, among, looked_up)
    if any(tiles.summary.scale(name, dtypes[name]) is None for name in tiles.summary.extents):
        # Of the events in the range alone, where a file may hold others, sums may have a scale.
        tiles = _tiles(cache, scan, times, among, [(task, None) for task, _ in looked_up])
    return tiles


def _tiles(
    cache: TileCache, scan: EventScan, times: TimeRange, among: pl.DataFrame | None, files: _Looked
) -> Tiles:
    """The tiles of some files, as `tiles_as_filed` gives them. files: each with what the cache has of it."""
    spec, dtypes = cache.spec, cache.spec.value_dtypes(cache.schema)
    assert spec.interval is not None
    tasks, cached = [task for task, _ in files], [tiles for _, tiles in files if tiles is not None]
    shared = Intervals.shared(files, spec.interval.us)
    alone = pl.col(TIME).is_between(times.start, times.end) & ~shared.hold(pl.col(TIME))
    several = []
    for each in scanned(cached, dtypes):
        rows = polars_schema.of_entities(each.rows.filter(alone), among, spec.entity)
        several.append(replace(each, rows=rows))
    for stretch in _stretches(scan.within(times), times, spec.interval.us):
        if own := shared.within(stretch):
            read = [task for task in tasks if task.times and own.overlap(task.times)]
            rows = scan.scan_tasks(read, spec.needed(), own.hull, among)
            events = timeline.of_events(rows, spec).filter(own.hold(pl.col(TIME)))
            several.append(build_tiles(events, spec, dtypes, in_order=True))
    if not several:
        nothing = timeline.of_events(scan.scan(spec.needed(), times, among), spec)
        several.append(build_tiles(nothing, spec, dtypes))
    return concat_tiles(several, dtypes)


def _stretches(scan: EventScan, times: TimeRange, interval_us: int) -> Iterator[TimeRange]:
    """A range in stretches of whole intervals, of about _AT_ONCE events."""
    begins = [r.start - r.start % interval_us for r in scan.ranges(_AT_ONCE, ())]
    inside = [begin for begin in begins if times.start < begin <= times.end]
    for begin, end in zip([times.start, *inside], [*inside, times.end + 1], strict=True):
        if begin < end:
            yield TimeRange(begin, end - 1)


@dataclass(frozen=True, slots=True)
class Intervals:
    """Stretches of whole intervals. edges: where each begins, and the next instant after it, in order."""

    edges: tuple[int, ...]

    @classmethod
    def shared(
        cls, files: Iterable[tuple[FileScanTask, CachedTiles | None]], interval_us: int
    ) -> Intervals:
        """The intervals in which several files may have events, or one whose tiles are not cached."""
        steps: Counter[int] = Counter()
        for task, tiles in files:
            if task.times is not None:
                weight = 1 if tiles is not None else 2
                steps[task.times.start // interval_us] += weight
                steps[task.times.end // interval_us + 1] -= weight
        edges, weight = [], 0
        for number in sorted(steps):
            before, weight = weight, weight + steps[number]
            if (before > 1) != (weight > 1):
                edges.append(number * interval_us)
        return cls(tuple(edges))

    def __bool__(self) -> bool:
        return bool(self.edges)

    @property
    def hull(self) -> TimeRange:
        """From the first instant to the last; there is at least one stretch."""
        return TimeRange(self.edges[0], self.edges[-1] - 1)

    def hold(self, time: pl.Expr) -> pl.Expr:
        """Whether an instant lies in one of them."""
        edges = pl.lit(pl.Series(self.edges, dtype=pl.Int64))
        return edges.search_sorted(time, side="right").mod(2) == 1

    def within(self, times: TimeRange) -> Intervals:
        """The parts of them that lie in a range."""
        parts = (
            (max(begin, times.start), min(end, times.end + 1)) for begin, end in self._stretches
        )
        return Intervals(tuple(edge for part in parts if part[0] < part[1] for edge in part))

    def overlap(self, times: TimeRange) -> bool:
        """Whether a range has an instant in one of them."""
        return bool(self.within(times))

    @property
    def _stretches(self) -> Iterable[tuple[int, int]]:
        return zip(self.edges[::2], self.edges[1::2], strict=True)
