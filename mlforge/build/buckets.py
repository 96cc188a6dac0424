"""Buckets of entities: the second cut of a full build, for ranges of time that see more events than memory takes.

No range is shorter than the longest window, as each reads that much before its own time. Where so many events lie in that time,
the entities of the range are dealt into buckets, each evaluated by itself. Their rows lie in files of their own until they are
put together in the order of time. Like the ranges, buckets follow from the version's files alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from mlforge.build.rows import Layout, ordered, pieces_of
from mlforge.core import time_model
from mlforge.core.values import TimeRange
from mlforge.engines import Events
from mlforge.frames import polars_schema
from mlforge.frames.entity_times import FIRST, LAST, EntityTimes
from mlforge.store import TablePiece

_NORMAL = 2
"""A range reads about as many events before its own time as in it."""
_TOO_MANY = 2 * _NORMAL
_EVENTS, _BUCKET = "__events", "__bucket"


def buckets_of(events: Events, times: TimeRange, at_once: int) -> tuple[EntityTimes, ...]:
    """The entities with events in a range of time, in buckets that see about equally many events; none where there is no need.

    at_once: how many stored rows a range should have. Aligned features have none, as they are evaluated from their tiles.
    """
    spec = events.spec
    seen = _seen(events, times)
    most = sum([partial.rows for partial in events.within(seen).partials])
    if most <= _TOO_MANY * at_once or spec.interval is not None or spec.timestamp is None:
        return ()
    time = polars_schema.microseconds(spec.timestamp)
    inside = time.filter(time.is_between(times.start, times.end))
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
    dealt = tuple(_dealt(entities, _NORMAL * at_once))
    return dealt if len(dealt) > 1 else ()


def _seen(events: Events, times: TimeRange) -> TimeRange:
    windows = events.windows_since(times.start)
    return time_model.events_seen(times, windows).union(times) if windows else times


def _dealt(entities: pl.DataFrame, most: int) -> Iterator[EntityTimes]:
    """The entities in their order, in buckets of about equally many events, so many at most unless an entity has more alone."""
    until = entities[_EVENTS].cum_sum()
    if until.is_empty():
        return
    count = -(-int(until[-1]) // most)
    number = ((until - entities[_EVENTS]) * count // int(until[-1])).alias(_BUCKET)
    dealt = entities.drop(_EVENTS).with_columns(number)
    for bucket in dealt.partition_by(_BUCKET, maintain_order=True, include_key=False):
        yield EntityTimes(bucket)


def together(
    files: Sequence[Path], events: Events, times: TimeRange, layout: Layout, at_once: int
) -> Iterator[TablePiece]:
    """The rows of a range's buckets, each in a file, put in the order of time, about so many events' at a time."""
    timestamp = str(events.spec.timestamp)
    time = polars_schema.microseconds(timestamp)
    for part in events.within(times).ranges(at_once, ()):
        start, end = max(part.start, times.start), min(part.end, times.end)
        if start <= end and files:
            rows = (
                pl.scan_parquet(list(files), glob=False)
                .filter(time.is_between(start, end))
                .collect()
            )
            yield from pieces_of(ordered(rows, events).rechunk(), layout, timestamp)
