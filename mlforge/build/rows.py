"""Rows of a version's table: evaluated, put in order, and cut into the pieces that become its parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from mlforge.compilers.base import TIME
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.values import Duration, TimeRange
from mlforge.engines import POINT, Engine, Events
from mlforge.engines.derived import derived_values
from mlforge.engines.tiles.places import Places
from mlforge.errors import DataError
from mlforge.frames import polars_schema
from mlforge.frames.entity_times import EntityTimes, entities_and_hull
from mlforge.frames.shared_results import once
from mlforge.store import TablePiece
from mlforge.store.integrity import intact


@dataclass(frozen=True, slots=True)
class Layout:
    """The sizes by which a table is cut into parts; small in tests, so that seams are crossed.

    part_rows: the most rows in a part. chunk_rows: roughly how many events a full build evaluates at
    a time, by default what takes about 2 GiB; each chunk also reads the longest window before it, and
    no part lies in two chunks.
    """

    part_rows: int = 1_000_000
    chunk_rows: int | None = None


def evaluate(
    engine: Engine,
    events: Events,
    within: TimeRange | EntityTimes | None = None,
) -> pl.DataFrame:
    """The table's rows: all of them, those of a range of time, or of some entities within a range of their own.

    Raises IntegrityError where stored events are missing or damaged.
    """
    spec = events.spec
    # Here, as whoever writes the rows takes a missing file for one of its own.
    with intact(spec.name):
        if isinstance(within, EntityTimes):
            rows = once(
                "rows",
                lambda: (type(engine), events.content, spec.evaluated),
                lambda: _plain_rows(engine, events, within),
                within.frame,
            )
        else:
            rows = _plain_rows(engine, events, within)
    return with_derived(rows, events)


def with_derived(rows: pl.DataFrame, events: Events) -> pl.DataFrame:
    """Plain rows with the feature's derived columns behind them."""
    spec = events.spec
    if not spec.derived:
        return rows
    return rows.hstack(derived_values(spec, events.schema, rows, spec.timestamp))


def _plain_rows(
    engine: Engine, events: Events, within: TimeRange | EntityTimes | None
) -> pl.DataFrame:
    """The rows without derived columns."""
    spec = events.spec.plain
    columns = spec.output(events.schema)
    if not spec.columns:
        rows = events.rows(None, within)
        return ordered(
            polars_schema.select_typed(
                rows, {c.name: c.dtype for c in events.schema}, columns
            ).collect(),
            events,
        )
    if spec.interval is None:
        return engine.rows(events, within)
    return _at_boundaries(engine, events, spec.interval, within)


def _at_boundaries(
    engine: Engine,
    events: Events,
    interval: Duration,
    within: TimeRange | EntityTimes | None,
) -> pl.DataFrame:
    """Values at the end of each interval that holds an event."""
    spec = events.spec
    assert spec.timestamp is not None
    among, times = entities_and_hull(within)
    event_times = None if times is None else TimeRange(times.start - interval.us, times.end)
    source = events.cache.identities(events, event_times, among)
    time = polars_schema.microseconds(spec.timestamp)
    rows = source.select(*spec.entity, time.alias(TIME))
    points = _ends(rows, spec, interval, are_few=isinstance(within, EntityTimes))
    if times is not None:
        points = points.filter(pl.col(POINT).is_between(times.start, times.end))
    if isinstance(within, EntityTimes):
        points = within.rows(points, pl.col(POINT)).sort(POINT, *spec.entity)
    at = points.with_columns(pl.col(POINT).cast(polars_schema.UTC_INSTANT)).collect()
    values = engine.values(events.with_tiles(at.height, event_times), at)
    return at.select(*spec.keys, pl.col(POINT).alias(spec.timestamp)).hstack(values)


def _ends(
    rows: pl.LazyFrame, spec: FeatureSpec, interval: Duration, *, are_few: bool
) -> pl.LazyFrame:
    """The distinct entities and ends of intervals of rows with keys and TIME; the end is POINT. By it, then by keys, unless rows are few."""
    end = (pl.col(TIME) - pl.col(TIME).mod(interval.us) + interval.us).alias(POINT)
    if are_few:
        return rows.select(*spec.entity, end).unique()
    held = rows.collect()
    places = Places.of(held, spec)
    if places is None:
        return held.lazy().select(*spec.entity, end).unique().sort(POINT, *spec.entity)
    return places.distinct(held).lazy().select(*spec.entity, end)


def pieces_of(rows: pl.DataFrame, layout: Layout, timestamp: str | None) -> Iterator[TablePiece]:
    """The pieces that ordered rows become, each of about one size; none where there are no rows."""
    for piece in _slices(rows, layout.part_rows):
        yield TablePiece(piece, _times(piece, timestamp))


def _slices(rows: pl.DataFrame, most: int) -> Iterator[pl.DataFrame]:
    """Slices of about one size: a full part that takes one row more becomes two halves. Few rows are given as they are."""
    count = -(-rows.height // most)
    if count == 1:
        yield rows
    elif count:
        yield from rows.iter_slices(-(-rows.height // count))


def ordered(rows: pl.DataFrame, events: Events) -> pl.DataFrame:
    """By timestamp, then keys, then the remaining columns, nulls first; rows that mostly are so take a stable sort little."""
    order = events.spec.order
    other_columns = (
        () if events.spec.columns else (name for name in rows.columns if name not in order)
    )
    return rows.sort(*order, *other_columns, nulls_last=False, maintain_order=True)


def check_unique(rows: pl.DataFrame, events: Events) -> None:
    """Raise DataError where an untimed feature has two rows of a key."""
    keys = list(events.spec.keys)
    if not keys and rows.height > 1:
        raise DataError(
            f"{events.spec.name}: {rows.height} rows, and no keys; without a timestamp the whole source has one row: "
            "give keys= or timestamp=, or make the function keep one"
        )
    if not keys:
        return
    twice = rows.filter(pl.struct(keys).is_duplicated()).head(1)
    if not twice.is_empty():
        entity = ", ".join(f"{key}={twice[key][0]!r}" for key in keys)
        raise DataError(
            f"{events.spec.name}: two rows of {entity}; without a timestamp a key has one row: "
            "give timestamp=, or make the function keep one"
        )


def _times(rows: pl.DataFrame, timestamp: str | None) -> TimeRange | None:
    if timestamp is None or rows.is_empty():
        return None
    micros = rows[timestamp].cast(pl.Int64)
    return TimeRange(int(micros[0]), int(micros[-1]))
