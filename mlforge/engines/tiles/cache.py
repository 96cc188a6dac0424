"""The cache of tiles: made once of each file with many events, and read in its place ever after.

Tiles follow from the file and from what is tiled, so they may be deleted at any time; damaged ones are as
good as none.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import polars as pl

from mlforge.compilers.base import TIME
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.schema import Schema, dtypes
from mlforge.engines.fixed_point import Extent, Scale
from mlforge.engines.tiles import build
from mlforge.engines.tiles.build import Summary, Tiles
from mlforge.engines.tiles.merge import Sizes, gives, mean_of
from mlforge.engines.timeline import of_events
from mlforge.store import Store, file_tasks
from mlforge.store.file_tasks import FileScanTask, TileWrite

_FORMAT = 1


def kind_of(spec: FeatureSpec, schema: Schema) -> str | None:
    """What tiles of a feature depend on besides events, as a name; None where it has none."""
    parts = {column: kinds for column, kinds in build.parts(spec.columns).items() if kinds}
    if spec.interval is None or not parts:
        return None
    given = dtypes(schema)
    columns = sorted((column, given[column], sorted(kinds)) for column, kinds in parts.items())
    said = [_FORMAT, spec.interval.us, list(spec.keys), spec.timestamp, columns]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class CachedTiles:
    """The tiles of one file; no summary where its events are not dense. sizes: of the columns with spreads."""

    file: str
    summary: Summary | None
    sizes: Mapping[str, Sizes]

    @classmethod
    def read(cls, store: Store, name: str, tiles: str, of: str) -> CachedTiles | None:
        """The tiles of a file of a feature's partials; None unless they are whole and still its own."""
        notes = store.tile_notes(name, tiles, of)
        try:
            return None if notes is None else cls._understood(tiles, notes)
        except (KeyError, TypeError, ValueError):
            return None

    @classmethod
    def _understood(cls, file: str, notes: Mapping[str, Any]) -> CachedTiles | None:
        if notes["events"] is None:
            return cls(file, None, {})
        extents = {column: Extent(*ends) for column, (_, *ends, _) in notes["sums"].items()}
        summary = Summary(int(notes["events"]), extents)
        for column, (dtype, _, _, bits) in notes["sums"].items():
            scale = summary.scale(column, dtype)
            if bits != (None if scale is None else scale.bits):
                return None  # of an mlforge whose scales are others
        sizes = {name: Sizes(Extent(*ends), most) for name, (*ends, most) in notes["sizes"].items()}
        return cls(file, summary, sizes)


def lay(store: Store, spec: FeatureSpec, schema: Schema, tasks: Sequence[FileScanTask]) -> None:
    """Make the tiles of these tasks' files, of each that is read whole, has many events and no tiles yet.

    For a file whose events are not dense the store notes that it has none; a damaged file is left alone. Raises
    StoreError where tiles cannot be written.
    """
    kind = kind_of(spec, schema)
    if kind is None:
        return
    there = store.tiles(spec.name, kind)
    whole = {
        task.file: task for task in tasks if task.numbers is None and task.rows >= build.FEWEST
    }
    without = [
        task
        for file, task in whole.items()
        if file not in there or CachedTiles.read(store, spec.name, there[file], file) is None
    ]
    intact = (task for task in without if store.is_whole(spec.name, task.file))
    if without:
        store.write_tiles(spec.name, kind, _made(intact, spec, schema))


def _made(tasks: Iterable[FileScanTask], spec: FeatureSpec, schema: Schema) -> Iterator[TileWrite]:
    wanted = tuple(column for column in schema if column.name in spec.needed())
    given = dtypes(schema)
    for task in tasks:
        events = of_events(file_tasks.scan([task], wanted), spec)
        notes: dict[str, Any] = {"events": None}
        rows = pl.DataFrame()
        if build.dense(events, spec):
            found = build.made(events, spec, given)
            rows = found.rows.collect().sort(TIME)
            notes |= _told(found.summary, rows, spec, given)
        yield TileWrite(task.file, rows, notes)


def _told(
    summary: Summary, rows: pl.DataFrame, spec: FeatureSpec, dtypes: Mapping[str, str]
) -> dict[str, Any]:
    sums, sizes = {}, {}
    for column, ends in summary.extents.items():
        scale = summary.scale(column, dtypes[column])
        bits = None if scale is None else scale.bits
        sums[column] = [dtypes[column], ends.least, ends.greatest, bits]
        if scale is not None and "spread" in build.parts(spec.columns)[column]:
            size = Sizes.of(rows, column, spec.keys, mean_of(column, dtypes[column], scale))
            sizes[column] = [size.extent.least, size.extent.greatest, size.most]
    return {"events": summary.events, "sums": sums, "sizes": sizes}


def summary_of(laid: Iterable[CachedTiles]) -> Summary:
    """That of the events of all."""
    return reduce(Summary.union, (one.summary for one in laid if one.summary is not None))


def makes(laid: Sequence[CachedTiles], spec: FeatureSpec, dtypes: Mapping[str, str]) -> bool:
    """Whether these tiles together make every metric of a feature."""
    summary, known = summary_of(laid), {name for one in laid for name in one.sizes}

    def exact(column: str) -> Scale | None:
        return summary.scale(column, dtypes[column]) if column in summary.extents else None

    def near(column: str) -> Scale | None:
        if column not in known or exact(column) is None:
            return None
        return reduce(Sizes.union, (one.sizes[column] for one in laid)).scale()

    return all(gives(m.aggregation, exact(m.column), near(m.column)) for m in spec.columns)


def scanned(laid: Iterable[CachedTiles], dtypes: Mapping[str, str]) -> list[Tiles]:
    """Their tiles, those whose sums are in one scale together: many files are read in one go."""
    by_scale: dict[tuple[Scale | None, ...], list[CachedTiles]] = defaultdict(list)
    for one in laid:
        own = one.summary
        if own is not None:
            by_scale[tuple(own.scale(name, dtypes[name]) for name in own.extents)].append(one)
    return [
        Tiles(pl.scan_parquet([one.file for one in alike], glob=False), summary_of(alike))
        for alike in by_scale.values()
    ]
