"""Tiles at rest: made once of each file with many events, and read in its place ever after.

They follow from the file and from what is tiled, so they may be deleted at any time; one that is damaged is
as good as none.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, reduce
from pathlib import Path

import polars as pl

from mlforge.compilers.base import TIME
from mlforge.engines import tiles
from mlforge.engines.fixed import Extent, Scale
from mlforge.engines.lines import of_events
from mlforge.engines.tiles import Summary, Tiles
from mlforge.schema import Schema, dtypes
from mlforge.spec import FeatureSpec
from mlforge.store import Store, files, places
from mlforge.store.folders import State, state_of
from mlforge.store.places import Lot

_FORMAT = 1
_NOTES = "mlforge.tiles"
_UNREADABLE = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    KeyError,
    TypeError,
    ValueError,
)


def kind_of(spec: FeatureSpec, schema: Schema) -> str | None:
    """What tiles of a feature depend on besides events, as a name; None where it has none."""
    parts = {column: kinds for column, kinds in tiles.parts(spec.columns).items() if kinds}
    if spec.interval is None or not parts:
        return None
    given = dtypes(schema)
    columns = sorted((column, given[column], sorted(kinds)) for column, kinds in parts.items())
    said = [_FORMAT, spec.interval.us, list(spec.keys), spec.timestamp, columns]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def lay(store: Store, spec: FeatureSpec, schema: Schema, lots: Sequence[Lot]) -> None:
    """Make the tiles of those of these lots that are whole files of many events and have none yet.

    Of a file whose events are not dense it is kept that there are none. Raises StoreError where they
    cannot be written.
    """
    kind = kind_of(spec, schema)
    if kind is None:
        return
    there = store.tiles(spec.name, kind)
    wanted = tuple(column for column in schema if column.name in spec.needed())
    for lot in {lot.path: lot for lot in lots if lot.path not in there}.values():
        if lot.rows < tiles.FEWEST or lot.numbers is not None:
            continue
        events = of_events(places.scan([lot], wanted), spec)
        found = tiles.made(events, spec, dtypes(schema)) if tiles.dense(events, spec) else None
        store.write_tiles(spec.name, kind, lot.path, *_written(found))


@dataclass(frozen=True, slots=True)
class Laid:
    """The tiles of one file."""

    path: Path
    summary: Summary


def look(path: Path) -> Laid | None:
    """What is at a place; None where there are no tiles, or they are not as they were written."""
    try:
        return _look(state_of(path))
    except OSError:
        return None


@lru_cache(maxsize=4_096)  # a refresh and the push behind it look several times
def _look(state: State) -> Laid | None:
    path = Path(state[0])
    if not files.is_sealed(path):
        return None
    with suppress(*_UNREADABLE):
        told = json.loads(pl.read_parquet_metadata(path)[_NOTES])
        if told is not None:
            extents = {column: Extent(*ends) for column, ends in told["extents"].items()}
            return Laid(path, Summary(int(told["events"]), extents))
    return None


def scanned(laid: Iterable[Laid], dtypes: Mapping[str, str]) -> list[Tiles]:
    """Their tiles, those whose sums are in one scale together: many files are read in one go."""
    by_scale: dict[tuple[Scale | None, ...], list[Laid]] = defaultdict(list)
    for one in laid:
        own = one.summary
        by_scale[tuple(own.scale(name, dtypes[name]) for name in own.extents)].append(one)
    return [
        Tiles(
            pl.scan_parquet([one.path for one in alike], glob=False),
            reduce(Summary.union, (one.summary for one in alike)),
        )
        for alike in by_scale.values()
    ]


def _written(found: Tiles | None) -> tuple[pl.DataFrame, dict[str, str]]:
    if found is None:
        return pl.DataFrame(), {_NOTES: "null"}
    summary = found.summary
    extents = {name: [ends.least, ends.greatest] for name, ends in summary.extents.items()}
    notes = {"events": summary.events, "extents": extents}
    return found.rows.collect().sort(TIME), {_NOTES: json.dumps(notes)}
