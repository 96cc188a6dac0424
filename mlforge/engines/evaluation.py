"""`value(entity, t)` for every kind of feature: the source of training and online answers.

With metrics it is the engine's; with a timestamp alone, the latest row at or before `t`; without
one, the row of the key.
"""

from __future__ import annotations

import polars as pl

from mlforge.core import time_model
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.manifest import Manifest
from mlforge.core.values import BEGINNING, END, TimeRange
from mlforge.engines import POINT, Engine, Events
from mlforge.engines.derived import derived_values
from mlforge.frames import polars_schema
from mlforge.store.integrity import intact

MOST_AHEAD = 1_000
"""How many instants ahead of the clock a version notes."""
_ROW = "__row"


def values_at(
    engine: Engine, events: Events, points: pl.DataFrame, of_t: bool = True
) -> pl.DataFrame:
    """The value columns at each point, in the points' order.

    points: the feature's keys, and with a timestamp also `POINT`, an instant. A null key or instant
    is an entity never seen. of_t: whether derived columns that depend on the instant are among them.
    Raises IntegrityError where stored events are missing or damaged.
    """
    return with_derived(events, points, plain_values(engine, events, points), of_t)


def with_derived(
    events: Events, points: pl.DataFrame, values: pl.DataFrame, of_t: bool = True
) -> pl.DataFrame:
    """The plain values at each point with the feature's derived columns behind them; arguments as of `values_at`."""
    spec = events.spec
    if not spec.derived:
        return values
    keyed = points.select(*spec.entity, *([POINT] if spec.timestamp else [])).hstack(values)
    derived = derived_values(spec, events.schema, keyed, POINT if spec.timestamp else None, of_t)
    return values.hstack(derived)


def plain_values(engine: Engine, events: Events, points: pl.DataFrame) -> pl.DataFrame:
    """The columns of metrics, or of events, at each point: all but derived ones. Raises as `values_at`."""
    with intact(events.spec.name):
        if events.spec.columns:
            return engine.values(events, _timed(points, events))
        if events.spec.timestamp is not None:
            return _latest(events, points)
        return _rows(events, points)


def _timed(points: pl.DataFrame, events: Events) -> pl.DataFrame:
    """The points; a point without an instant becomes an entity without events, at another point's instant."""
    if points[POINT].null_count() == 0:
        return points
    instant = points[POINT].max()
    return points.with_columns(
        *(pl.when(pl.col(POINT).is_not_null()).then(key).alias(key) for key in events.spec.entity),
        pl.col(POINT).fill_null(polars_schema.instant(0) if instant is None else pl.lit(instant)),
    )


def active_entities(
    events: Events, as_of: int | None, among: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Keys of the entities that have a value at an instant: a window of theirs holds an event."""
    return _entities(events, active_times(events.spec, as_of), among)


def active_times(spec: FeatureSpec, as_of: int | None) -> list[TimeRange | None]:
    """The ranges in which an event gives its entity a value at an instant; None is all of time.

    In order, and none overlaps another.
    """
    if spec.timestamp is None:
        return [None]
    if as_of is None:
        return []
    if not spec.columns:
        return [TimeRange(BEGINNING, as_of)]
    at = time_model.point(as_of, spec.interval)
    spans = [window.span(at) for window in spec.windows]
    return _merged([span for span in spans if span.start <= span.end])


def entities_affected_by_time(
    events: Events, before: int | None, after: int | None
) -> pl.DataFrame:
    """Keys of the entities whose value may differ between two instants."""
    spec = events.spec
    if before == after or before is None or after is None:
        return _entities(events, [], None)
    if not spec.columns:
        return _entities(events, [TimeRange(min(before, after) + 1, max(before, after))], None)
    a, b = (time_model.point(t, spec.interval) for t in (before, after))
    return _entities(events, list(time_model.left_or_entered(a, b, spec.windows)), None)


def frontier(manifest: Manifest, events: Events, now: int) -> tuple[int, ...]:
    """Instants of a version's events around `now`: the newest event up to `now`, then the events ahead of it.

    Empty where no event lies ahead. Beyond MOST_AHEAD instants, that many are kept, evenly spread, the last among
    them. Only files that hold events ahead are read. Raises IntegrityError as `values_at` does.
    """
    newest_of_all = manifest.sums.newest
    if events.spec.timestamp is None or newest_of_all is None or newest_of_all <= now:
        return ()
    ahead = events.within(TimeRange(now + 1, END))
    time = polars_schema.microseconds(events.spec.timestamp)
    scan = ahead.scan([events.spec.timestamp]).select(time.alias(POINT))
    with intact(events.spec.name):
        newest, later = pl.collect_all(
            [
                scan.filter(pl.col(POINT) <= now).max(),
                scan.filter(pl.col(POINT) > now).unique().sort(POINT),
            ]
        )
    past = [partial.times.end for partial in events.partials if partial.times]
    passed = [end for end in (*past, newest.item()) if end is not None and end <= now]
    step = -(-later.height // MOST_AHEAD)
    kept = later.reverse().gather_every(max(step, 1)).reverse()
    return (*([max(passed)] if passed else []), *kept[POINT])


def _entities(
    events: Events, ranges: list[TimeRange | None], among: pl.DataFrame | None
) -> pl.DataFrame:
    """Distinct keys of the events in any of the ranges; None is all of time."""
    merged = _merged(ranges)
    if not merged:
        return polars_schema.empty(events.spec.entities(events.schema)).select(events.spec.entity)
    with intact(events.spec.name):
        return events.entities(merged, among)


def _merged(ranges: list[TimeRange | None]) -> list[TimeRange | None]:
    """The same instants as ranges that do not overlap, so that events in two windows are read once."""
    merged: list[TimeRange] = []
    for times in sorted((t for t in ranges if t is not None), key=lambda t: t.start):
        if merged and times.overlaps(merged[-1]):
            merged[-1] = merged[-1].union(times)
        else:
            merged.append(times)
    return [None] if None in ranges else [*merged]


def _latest(events: Events, points: pl.DataFrame) -> pl.DataFrame:
    """The latest row at or before each point; among rows of one instant, the last in the order of the other columns."""
    spec = events.spec
    assert spec.timestamp is not None
    keys = list(spec.entity)
    values = [column.name for column in spec.plain.values(events.schema)]
    numbered = points.select(*keys, pl.col(POINT)).with_row_index(_ROW)
    last = numbered[POINT].to_physical().max()
    times = TimeRange(BEGINNING, last if isinstance(last, int) else BEGINNING)
    rows = (
        _typed(events, events.scan(times=times, among=numbered.select(keys)))
        .sort(*keys, spec.timestamp, *values, nulls_last=False)
        .unique([*keys, spec.timestamp], keep="last", maintain_order=True)
        .with_columns(pl.col(spec.timestamp).alias(POINT))
        .sort(POINT)
    )
    latest = (
        numbered.lazy()
        .filter(pl.col(POINT).is_not_null())
        .sort(POINT)
        .join_asof(rows, on=POINT, by=keys, strategy="backward", check_sortedness=False)
    )
    return _aligned(numbered, latest.select(_ROW, *values).collect(), values)


def _rows(events: Events, points: pl.DataFrame) -> pl.DataFrame:
    """The row of each point's key."""
    keys = list(events.spec.entity)
    values = [column.name for column in events.spec.plain.values(events.schema)]
    rows = _typed(events, events.scan())
    numbered = points.select(keys).with_row_index(_ROW)
    matches = numbered.lazy().join(rows, on=keys, how="inner").select(_ROW, *values).collect()
    return _aligned(numbered, matches, values)


def _typed(events: Events, rows: pl.LazyFrame) -> pl.LazyFrame:
    """Scanned rows in the dtypes of the feature's output, with the columns that tell entities apart."""
    present = {column.name: column.dtype for column in events.schema}
    output = events.spec.plain.output(events.schema)
    return polars_schema.with_entities(
        polars_schema.select_typed(rows, present, output), events.spec
    )


def _aligned(numbered: pl.DataFrame, answers: pl.DataFrame, values: list[str]) -> pl.DataFrame:
    """The answers in the order of the numbered points, nulls where a point has none."""
    return (
        numbered.select(_ROW)
        .join(answers, on=_ROW, how="left", maintain_order="left")
        .select(values)
    )
