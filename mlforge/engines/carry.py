"""Totals carried through a full build: what came before a range of time, so that windows over all time need not hold it.

A build evaluates one range of time after the other. Windows of a duration need the events of one window before a
range. Windows over all time need what each entity's earlier events come to, which is one tile an entity, however long
the history.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.time_model import Window
from mlforge.core.values import BEGINNING, END, TimeRange
from mlforge.engines import timeline
from mlforge.engines.events import Events
from mlforge.engines.kernels.fixed_point import Extent
from mlforge.engines.tiles.build import Summary, Tiles, build_tiles, concat_tiles, survey
from mlforge.engines.tiles.merge import compact
from mlforge.engines.tiles.totals import Totals, merged, tile_of

_SHARE = 2
"""By points and totals an evaluation takes about so many times the memory that it takes along a timeline."""


def in_ranges(events: Events, rows: int) -> Iterator[tuple[TimeRange, Events]]:
    """Ranges of time that together cover all of it, each with the events to evaluate it by.

    rows: about how many events an evaluation may hold. Where windows over all time cannot be had of totals, one range is
    all of time.
    """
    alone, spec = events.with_totals(None), merged(events.spec)
    endless = {metric for metric in events.spec.columns if metric.window.is_endless}
    if spec is None or endless > set(spec.columns):
        yield from ((times, alone) for times in events.ranges(rows))
        return
    finite = [window for window in events.spec.windows if not window.is_endless]
    ranges = events.ranges(max(rows // _SHARE, 1), finite)
    if len(ranges) < 2 or not _has_sums(events, spec):
        yield TimeRange(BEGINNING, END), alone
        return
    totals: Totals | None = None
    for number, times in enumerate(ranges):
        if number:
            totals = _carried(events, spec, totals, _until(times.start, spec.windows))
            if totals is None:
                yield TimeRange(times.start, END), alone
                return
        yield times, events.with_totals(totals)


def described(totals: Totals) -> dict[str, Any]:
    """All but the rows of carried totals, as JSON types."""
    extents = totals.tiles.summary.extents.items()
    return {
        "until": totals.until,
        "events": totals.tiles.summary.events,
        "extents": {column: [extent.least, extent.greatest] for column, extent in extents},
    }


def carried(events: Events, document: Mapping[str, Any], rows: pl.LazyFrame) -> Totals:
    """The totals that `described` tells of, with their rows."""
    spec = merged(events.spec)
    assert spec is not None, "totals are carried for windows over all time"
    extents = {column: Extent(*ends) for column, ends in document["extents"].items()}
    return Totals(spec, Tiles(rows, Summary(document["events"], extents)), document["until"], ())


def _until(first_point: int, windows: tuple[Window, ...]) -> int:
    """The instant before which each of the windows, from a point on, sees all events."""
    return min([first_point, *(int(window.last(first_point)) + 1 for window in windows)])


def _has_sums(events: Events, spec: FeatureSpec) -> bool:
    """Whether exact sums over all events have a scale; then those over fewer have one, too."""
    dtypes = spec.value_dtypes(events.schema)
    summary = survey(timeline.of_events(events.scan(spec.needed()), spec), spec)
    return all(summary.scale(column, dtypes[column]) is not None for column in summary.extents)


def _carried(events: Events, spec: FeatureSpec, totals: Totals | None, until: int) -> Totals | None:
    """Totals of the events before an instant, from those of an earlier one; None where spreads have no scale."""
    dtypes = spec.value_dtypes(events.schema)
    begun = BEGINNING if totals is None else totals.until
    scan = events.scan(spec.needed(), TimeRange(begun, until - 1))
    start = tile_of(until)
    tiles = build_tiles(timeline.of_events(scan, spec), spec, dtypes, start, in_order=events.filed)
    if totals is not None:
        tiles = concat_tiles([totals.tiles, tiles], dtypes)
    tiles_of_entities = compact(tiles, spec, dtypes)
    if tiles_of_entities is None:
        return None
    return Totals(spec, tiles_of_entities, until, ())
