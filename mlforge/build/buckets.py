"""Buckets of entities: the second cut of a full build, for ranges of time that see more events than memory takes.

No range is shorter than the longest window, as each reads that much before its own time. Where so many events lie in that time,
the entities of the range are dealt into buckets, each evaluated by itself. Their rows lie in files of their own until they are
put together in the order of time. Like the ranges, buckets follow from the version's files alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import polars as pl

from mlforge.build.rows import Layout, ordered, pieces_of
from mlforge.compilers.base import TIME
from mlforge.core import time_model
from mlforge.core.values import Duration, TimeRange
from mlforge.engines import Events
from mlforge.frames import polars_schema
from mlforge.frames.entity_times import FIRST, LAST, EntityTimes
from mlforge.store import TablePiece

_SLACK = 1.25
"""How many times the events that it should have a range may have, or see before its own time: files are not cut for it."""
_SLICES = 4_096
"""Into how many slices the time of a range is cut at first, to put its rows together."""
_EVENTS, _BUCKET = "__events", "__bucket"


def buckets_of(events: Events, times: TimeRange, at_once: int) -> tuple[EntityTimes, ...]:
    """The entities with events in a range of time, in buckets that see about equally many events; none where there is no need.

    at_once: how many stored rows a range should have. Events are counted, of aligned features too: how many tiles stand for
    them depends on what a machine has cached.
    """
    spec = events.spec
    if spec.timestamp is None:
        return ()
    seen = _seen(events, times)
    own, most = (sum([p.rows for p in events.within(each).partials]) for each in (times, seen))
    needed = max(own, most - own)
    if needed <= _SLACK * at_once:
        return ()
    instant = _row_of(polars_schema.microseconds(spec.timestamp), spec.interval)
    inside = instant.filter(instant.is_between(times.start, times.end))
    entities = (
        events.scan(spec.identity, seen)
        .group_by(spec.entity)
        .agg(
            inside.min().alias(FIRST),
            inside.max().alias(LAST),
            pl.len().cast(pl.Int64).alias(_EVENTS),
        )
        .filter(pl.col(FIRST).is_not_null())
        .sort(spec.entity)
        .collect(engine=polars_schema.engine_for(most))
    )
    dealt = tuple(_dealt(entities, -(-needed // at_once)))
    return dealt if len(dealt) > 1 else ()


def _seen(events: Events, times: TimeRange) -> TimeRange:
    """The times of the events that rows within a range see, and of those whose rows they are."""
    windows, interval = events.windows_since(times.start), events.spec.interval
    own = times if interval is None else TimeRange(times.start - interval.us, times.end)
    return time_model.events_seen(times, windows).union(own) if windows else own


def _row_of(time: pl.Expr, interval: Duration | None) -> pl.Expr:
    """The instant of the row that an event has: its own, or the end of its interval."""
    return time if interval is None else time - time.mod(interval.us) + interval.us


def _dealt(entities: pl.DataFrame, count: int) -> Iterator[EntityTimes]:
    """The entities in their order, in so many buckets of about equally many events, or fewer where an entity has more alone."""
    until = entities[_EVENTS].cum_sum()
    if until.is_empty():
        return
    number = ((until - entities[_EVENTS]) * count // int(until[-1])).alias(_BUCKET)
    dealt = entities.drop(_EVENTS).with_columns(number)
    for bucket in dealt.partition_by(_BUCKET, maintain_order=True, include_key=False):
        yield EntityTimes(bucket)


def together(
    files: Sequence[Path], events: Events, layout: Layout, at_once: int
) -> Iterator[TablePiece]:
    """The rows of a range's buckets, each in a file, put in the order of time, about so many events' at a time."""
    timestamp = str(events.spec.timestamp)
    time = polars_schema.microseconds(timestamp)
    if not files:
        return
    stored = pl.scan_parquet(list(files), glob=False)
    for start, end in pairwise(_cuts(stored.select(time.alias(TIME)), at_once)):
        rows = stored.filter(time.is_between(start, end, closed="left")).collect()
        yield from pieces_of(ordered(rows, events).rechunk(), layout, timestamp)


def _cuts(times: pl.LazyFrame, most: int) -> Iterator[int]:
    """Instants that cut rows into stretches of about so many, however few files their events lay in."""
    first, last = pl.col(TIME).min().alias("first"), pl.col(TIME).max().alias("last")
    start, end = times.select(first, last).collect().row(0)
    if start is None:
        return
    width = (end - start) // _SLICES + 1
    place = (pl.col(TIME) - start) // width
    counts = times.group_by(place).len().sort(TIME).collect()
    stretch = counts["len"].cast(pl.Int64).cum_sum() // max(most, 1)
    begins = counts[TIME].filter(stretch.shift(1) != stretch)
    yield from (start, *(start + int(slice_) * width for slice_ in begins), end + 1)
