"""The cache of tiles: built once from each file with many events, and read in the file's place from then on.

Tiles can be rebuilt from the file, so they may be deleted at any time; damaged ones are treated as
missing.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce
from itertools import chain, groupby
from typing import Any

import polars as pl

from mlforge.compilers.base import TIME
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.metrics import MetricColumn
from mlforge.core.schema import Schema
from mlforge.core.side_by_side import CORES, each_ahead
from mlforge.core.values import TimeRange
from mlforge.engines import timeline
from mlforge.engines.kernels.fixed_point import Extent, Scale
from mlforge.engines.tiles import build
from mlforge.engines.tiles.build import Summary, Tiles, build_tiles
from mlforge.engines.tiles.held import kept
from mlforge.engines.tiles.merge import Sizes, gives, mean_of
from mlforge.frames import polars_schema
from mlforge.store import Store, file_tasks
from mlforge.store.file_tasks import FileScanTask, TileWrite
from mlforge.store.scan import EventScan

_FORMAT = 1
_FORMAT_IN_ORDER = 2
"""Of tiles with sums of squares: those of an earlier release were added up in any order."""
_AT_ONCE = 2_000_000
"""About how many events of a file are held in memory while tiles are built of them."""
_AT_ONCE_OF_ALL = 6_000_000
"""About how many events of all files that threads work on at a time."""
_MANY = "__many"
MadeTiles = Callable[[str], Mapping[str, TileWrite]]
"""Gives tiles of a kind, by the file that each was built from."""


def kind_of(spec: FeatureSpec, schema: Schema) -> str | None:
    """A hash of all that a feature's tiles depend on besides events; None where it has no tiles.

    Beside sets alone, tiles have no part: they tell which entities and intervals have events.
    """
    parts = {column: kinds for column, kinds in build.parts(spec.columns).items() if kinds}
    if spec.interval is None or not (parts or any(map(kept, spec.columns))):
        return None
    known = spec.value_dtypes(schema)
    columns = [(column, known[column], kinds) for column, kinds in parts.items()]
    keys = [(key, known[key]) for key in spec.keys]
    version = _FORMAT_IN_ORDER if build.is_rounded(spec) else _FORMAT
    document = [version, spec.interval.us, keys, spec.timestamp, columns]
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class CachedTiles:
    """The tiles of one file; no summary where its events are not dense. sizes: by column, for columns with spreads."""

    file: str
    summary: Summary | None
    sizes: Mapping[str, Sizes]

    @classmethod
    def read(cls, store: Store, name: str, tiles: str, of: str) -> CachedTiles | None:
        """The cached tiles of a partial file; None unless they are whole and were built from its present bytes."""
        return cls.decoded(tiles, store.tile_notes(name, tiles, of))

    @classmethod
    def decoded(cls, file: str, notes: Mapping[str, Any] | None) -> CachedTiles | None:
        """The tiles that notes describe; None without any, or where they are those of a release with other scales."""
        try:
            return None if notes is None else cls._decoded(file, notes)
        except (KeyError, TypeError, ValueError):
            return None

    @classmethod
    def _decoded(cls, file: str, notes: Mapping[str, Any]) -> CachedTiles | None:
        if notes["events"] is None:
            return cls(file, None, {})
        extents = {column: Extent(*ends) for column, (_, *ends, _) in notes["sums"].items()}
        summary = Summary(int(notes["events"]), extents)
        for column, (dtype, _, _, bits) in notes["sums"].items():
            scale = summary.scale(column, dtype)
            if bits != (None if scale is None else scale.bits):
                return None  # written by an mlforge with other scales
        sizes = {name: Sizes(Extent(*ends), most) for name, (*ends, most) in notes["sizes"].items()}
        return cls(file, summary, sizes)


@dataclass(frozen=True)
class TileCache:
    """The cached tiles of a feature's files of events, to be read in their place.

    store: None where there is no cache.
    """

    store: Store | None
    spec: FeatureSpec
    schema: Schema

    def tiles(
        self, scan: EventScan, times: TimeRange, among: pl.DataFrame | None = None
    ) -> Tiles | None:
        """The tiles of a range of time and of some entities; None unless the tiles of most events are cached.

        The range begins and ends where intervals do.
        """
        cached, untiled = self._split(scan, times)
        if not cached:
            return None
        inside, column_dtypes = (
            pl.col(TIME).is_between(times.start, times.end),
            self.spec.value_dtypes(self.schema),
        )
        several = [
            replace(
                each,
                rows=polars_schema.of_entities(each.rows.filter(inside), among, self.spec.entity),
            )
            for each in scanned(cached, column_dtypes)
        ]
        if untiled:
            untiled_rows = scan.scan_tasks(untiled, self.spec.needed(), times, among)
            several.append(
                build_tiles(timeline.of_events(untiled_rows, self.spec), self.spec, column_dtypes)
            )
        return build.concat_tiles(several, column_dtypes)

    def identities(
        self, scan: EventScan, times: TimeRange | None, among: pl.DataFrame | None
    ) -> pl.LazyFrame:
        """Keys and times of the events, lazily; a cached tile stands for its events by the start of its interval.

        Those starts are compared with the range.
        """
        cached, untiled = self._split(scan, times)
        names = (*self.spec.entity, *self.spec.times)
        if not cached:
            return scan.scan(self.spec.identity, times, among).select(names)
        assert self.spec.timestamp is not None
        time = pl.col(TIME).cast(polars_schema.UTC_INSTANT).alias(self.spec.timestamp)
        rows = pl.scan_parquet([tiles.file for tiles in cached], glob=False)
        rows = scan.chosen(rows.select(*self.spec.entity, time), times, among)
        events = scan.scan_tasks(untiled, self.spec.identity, times, among)
        return pl.concat([rows, events.select(names)])

    def covers(self, scan: EventScan, times: TimeRange, metrics: Sequence[MetricColumn]) -> bool:
        """Whether cached tiles suffice for some metrics over a range, but for few events."""
        cached, _ = self._split(scan, times)
        return bool(cached) and _give_all(cached, metrics, self.spec.value_dtypes(self.schema))

    def write(self, tasks: Sequence[FileScanTask], made: MadeTiles | None = None) -> None:
        """Build and store tiles of the files that are read whole, have many events and no tiles yet.

        made: gives those of a kind that are built already, by file. A file whose events are not dense is noted as such,
        without tiles; a damaged file is skipped. Raises StoreError where tiles cannot be written.
        """
        kind = kind_of(self.spec, self.schema)
        if self.store is None or kind is None:
            return
        store, name, known = self.store, self.spec.name, self.store.tiles(self.spec.name, kind)
        without = tasks_without(
            tasks,
            lambda file: file in known and CachedTiles.read(store, name, known[file], file),
        )
        if without:
            write_of = partial(_write_of, store=store, spec=self.spec, schema=self.schema)
            known_writes = made(kind) if made is not None else {}
            at_hand = [known_writes[task.file] for task in without if task.file in known_writes]
            others = [task for task in without if task.file not in known_writes]
            store.write_tiles(name, kind, chain(at_hand, _writes(others, write_of)))

    def _split(
        self, scan: EventScan, times: TimeRange | None
    ) -> tuple[list[CachedTiles], Sequence[FileScanTask]]:
        """The cached tiles within a range, and the tasks of files without tiles; neither unless tiles cover most events."""
        looked_up = self.looked_up(scan, times) if self._files else []
        cached = [tiles for _, tiles in looked_up if tiles is not None]
        untiled = [task for task, tiles in looked_up if tiles is None]
        tiled = sum([task.rows for task, tiles in looked_up if tiles is not None])
        return (cached, untiled) if tiled > sum([task.rows for task in untiled]) else ([], ())

    def looked_up(
        self, scan: EventScan, times: TimeRange | None
    ) -> list[tuple[FileScanTask, CachedTiles | None]]:
        """The tasks within a range, each with the tiles that are cached of its file; None where none are, or it is read in part."""
        return [(task, self._cached(task)) for task in scan.tasks_within(times)]

    def _cached(self, task: FileScanTask) -> CachedTiles | None:
        file = self._files.get(task.file) if task.numbers is None else None
        if self.store is None or file is None:
            return None
        tiles = CachedTiles.read(self.store, self.spec.name, file, task.file)
        return None if tiles is None or tiles.summary is None else tiles

    @cached_property
    def _files(self) -> Mapping[str, str]:
        """The tile files, by the partial file that each was built from."""
        kind = kind_of(self.spec, self.schema)
        return {} if self.store is None or kind is None else self.store.tiles(self.spec.name, kind)


def tasks_without(
    tasks: Sequence[FileScanTask], stored: Callable[[str], object]
) -> list[FileScanTask]:
    """The files that are read whole, have many events, and of which nothing is stored."""
    whole = {task.file: task for task in tasks if task.numbers is None}
    many = (task for task in whole.values() if task.rows >= build.FEWEST)
    return [task for task in many if not stored(task.file)]


def _writes(
    tasks: Iterable[FileScanTask], write_of: Callable[[FileScanTask], TileWrite | None]
) -> Iterator[TileWrite]:
    """The writes for some tasks; of files with few events several are worked on at a time, the more cores there are the fewer events."""
    few = min(_AT_ONCE, _AT_ONCE_OF_ALL // (CORES + 1))
    for are_few, some in groupby(tasks, lambda task: task.rows <= few):
        make = each_ahead if are_few else map
        yield from filter(None, make(write_of, some))


def _write_of(
    task: FileScanTask, store: Store, spec: FeatureSpec, schema: Schema
) -> TileWrite | None:
    """The tiles of a file, or the note that its events are not dense; None for a damaged file."""
    return tiles_of(task, spec, schema) if store.is_whole(spec.name, task.file) else None


def tiles_of(task: FileScanTask, spec: FeatureSpec, schema: Schema) -> TileWrite:
    """The tiles of a whole file, or the note that its events are not dense."""
    needed = tuple(column for column in schema if column.name in spec.needed())
    column_dtypes = spec.value_dtypes(schema)
    stored = polars_schema.with_entities(file_tasks.scan([task], needed), spec)
    events = timeline.of_events(stored, spec)
    if task.rows <= _AT_ONCE:  # they are looked at several times
        events = events.collect(engine=polars_schema.engine_for(task.rows)).lazy()
    if not build.dense(events, spec):
        return TileWrite(task.file, pl.DataFrame(), {"events": None})
    tiles = _in_order(events, task.rows, spec, column_dtypes)
    rows = tiles.rows.collect().sort(TIME)
    return TileWrite(task.file, rows, notes_of(tiles.summary, rows, spec, column_dtypes))


def _in_order(
    events: pl.LazyFrame, most: int, spec: FeatureSpec, dtypes: Mapping[str, str]
) -> Tiles:
    """The tiles of a file's events, at most so many, which are added up in order if that shows in their last bits."""
    if most <= _AT_ONCE or not build.is_rounded(spec):
        return build_tiles(events, spec, dtypes, in_order=True)
    start, many = build.interval_start(spec), pl.len().cast(pl.Int64).alias(_MANY)
    counts = events.group_by(start.alias(TIME)).agg(many).collect(engine="streaming").sort(TIME)
    stretches = counts.with_columns(pl.col(_MANY).cum_sum() // _AT_ONCE).partition_by(
        _MANY, maintain_order=True
    )
    ends = ((stretch[TIME][0], stretch[TIME][-1]) for stretch in stretches)
    inside = (events.filter(start.is_between(first, last)) for first, last in ends)
    some = [build_tiles(own, spec, dtypes, in_order=True) for own in inside]
    return build.concat_tiles(some, dtypes)


def notes_of(
    summary: Summary, rows: pl.DataFrame, spec: FeatureSpec, dtypes: Mapping[str, str]
) -> dict[str, Any]:
    """The notes of stored tiles, from which `CachedTiles` knows their summary and sizes."""
    sums, sizes = {}, {}
    for column, ends in summary.extents.items():
        scale = summary.scale(column, dtypes[column])
        bits = None if scale is None else scale.bits
        sums[column] = [dtypes[column], ends.least, ends.greatest, bits]
        if scale is not None and "spread" in build.parts(spec.columns)[column]:
            size = Sizes.of(rows, column, spec.entity, mean_of(column, dtypes[column], scale))
            sizes[column] = [size.extent.least, size.extent.greatest, size.most]
    return {"events": summary.events, "sums": sums, "sizes": sizes}


def _union(cached: Iterable[CachedTiles]) -> Summary:
    """The summary of the events of all."""
    return reduce(Summary.union, (tiles.summary for tiles in cached if tiles.summary is not None))


def _give_all(
    cached: Sequence[CachedTiles], metrics: Sequence[MetricColumn], dtypes: Mapping[str, str]
) -> bool:
    """Whether these tiles together suffice for all of some metrics."""
    summary, with_sizes = _union(cached), {name for tiles in cached for name in tiles.sizes}

    def sum_scale(column: str) -> Scale | None:
        return summary.scale(column, dtypes[column]) if column in summary.extents else None

    def mean_scale(column: str) -> Scale | None:
        if column not in with_sizes or sum_scale(column) is None:
            return None
        return reduce(Sizes.union, (tiles.sizes[column] for tiles in cached)).scale()

    return all(gives(m.aggregation, sum_scale(m.value), mean_scale(m.value)) for m in metrics)


def scanned(cached: Iterable[CachedTiles], dtypes: Mapping[str, str]) -> list[Tiles]:
    """Scans of cached tiles, one for each set of scales: many files are read in one go."""
    by_scale: dict[tuple[Scale | None, ...], list[CachedTiles]] = defaultdict(list)
    for tiles in cached:
        summary = tiles.summary
        if summary is not None:
            by_scale[tuple(summary.scale(name, dtypes[name]) for name in summary.extents)].append(
                tiles
            )
    return [
        Tiles(pl.scan_parquet([tiles.file for tiles in alike], glob=False), _union(alike))
        for alike in by_scale.values()
    ]
