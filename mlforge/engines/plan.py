"""The plan of an evaluation: which metrics come from events, and which from tiles.

A plan is one step or two: over events alone, over tiles alone, or over both, each with its own metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from mlforge.compilers.base import TIME
from mlforge.core import time_model
from mlforge.core.metrics import MetricColumn
from mlforge.core.values import TimeRange
from mlforge.engines import timeline
from mlforge.engines.events import Events
from mlforge.engines.tiles import build
from mlforge.engines.tiles.as_filed import tiles_as_filed
from mlforge.engines.tiles.build import Tiles, build_tiles
from mlforge.engines.tiles.held import Part, kept
from mlforge.engines.tiles.merge import Merge, merge
from mlforge.engines.tiles.sets import COUNTS, ENDS, needed
from mlforge.engines.tiles.totals import Totals
from mlforge.frames import polars_schema
from mlforge.frames.entity_times import FIRST, LAST, EntityTimes, entities_and_hull


@dataclass(frozen=True)
class Step:
    """A pass of the kernel.

    rows: events or tiles, as in a timeline. most: how many of them are read at most. metrics, dtypes: what
    the kernel computes of them. outputs: the feature's metrics, from the kernel's results. weighted: whether a row
    stands for WEIGHT events. distinct_weigh: whether it stands for so many distinct values. merged: whether rows are tiles.
    """

    rows: pl.LazyFrame
    most: int
    metrics: tuple[MetricColumn, ...]
    dtypes: Mapping[str, str]
    outputs: tuple[pl.Expr, ...]
    weighted: bool = False
    distinct_weigh: bool = True
    merged: bool = False


def plan(events: Events, points: pl.DataFrame, among: pl.DataFrame, at_once: int) -> list[Step]:
    """The steps that compute every metric at points, which have keys, and TIME as the instant of evaluation.

    among: the points' entities. at_once: the most events to hold in memory while deciding whether tiles pay.
    """
    times = times_of(points)
    steps: list[Step] = []
    totals, metrics = events.totals, events.spec.columns
    servable = totals.metrics(times.start) if totals is not None else ()
    endless = _served(servable, metrics, events.reads_all(times.start))
    if totals is not None and endless:
        last = time_model.events_seen(times, totals.spec.windows).end
        steps, served = _over_totals(events, totals, endless, last, among)
        metrics = tuple(metric for metric in metrics if metric not in served)
    return steps + (_over_intervals(events, metrics, times, among, at_once) if metrics else [])


def _served(
    servable: Sequence[MetricColumn], metrics: Sequence[MetricColumn], are_read: bool
) -> tuple[MetricColumn, ...]:
    """The metrics that totals are to give, of those that they can.

    Where all events of an entity are read for one metric, they give the others that need values at little cost.
    """
    return tuple(m for m in servable if m in metrics and not (are_read and kept(m)))


def _over_totals(
    events: Events,
    totals: Totals,
    endless: Sequence[MetricColumn],
    last: int,
    among: pl.DataFrame,
) -> tuple[list[Step], set[MetricColumn]]:
    """The steps over totals and newer events up to an instant, and the metrics that these give."""
    dtypes, steps = events.tiled.value_dtypes(events.schema), []
    served = [metric for metric in endless if kept(metric)]
    if served:
        parts = {(part.column, part.kind): part for part in totals.held}
        of = {metric: parts[metric.value, kept(metric)] for metric in served}
        rows = totals.held_until_points(events, last, among)
        steps.append(_over_parts(rows, of, dtypes, weighted=True))
    if by_tiles := [metric for metric in endless if not kept(metric)]:
        tiles = totals.until_points(events, last, among, in_order=events.filed)
        merged = merge(tiles, totals.spec, by_tiles, dtypes)
        steps += _over_tiles(merged)
        served += [metric for metric in by_tiles if metric not in merged.over_events]
    return steps, set(served)


def _over_sets(
    events: Events, metrics: Sequence[MetricColumn], times: TimeRange, among: pl.DataFrame
) -> tuple[list[Step], set[MetricColumn]]:
    """The steps over sets that are stored for a range of event times, and the metrics that these give.

    None where one of the sets is missing: events are read for it, and give the others at little cost.
    """
    stored, dtypes = events.sets.stored(events, times), events.tiled.value_dtypes(events.schema)
    of_sets = [metric for metric in metrics if kept(metric)]
    if any(needed(metric) not in stored for metric in of_sets):
        return [], set()
    served = {metric: stored[needed(metric)] for metric in of_sets}
    steps = []
    for kind in (ENDS, COUNTS):
        of = {metric: part for metric, part in served.items() if part.kind == kind}
        rows = [events.sets.rows(part, events, times, among) for part in dict.fromkeys(of.values())]
        if rows:
            line = pl.concat(rows, how="diagonal").lazy()
            step = _over_parts(line, of, dtypes, weighted=kind == COUNTS)
            steps.append(replace(step, distinct_weigh=False))
    return steps, set(served)


def _over_parts(
    rows: pl.LazyFrame,
    of: Mapping[MetricColumn, Part],
    dtypes: Mapping[str, str],
    weighted: bool,
) -> Step:
    """The step that gives metrics by aggregates over a part each. dtypes: of the event columns."""
    aggregates = {metric: part.metric(metric) for metric, part in of.items()}
    outputs = tuple(pl.col(a.name).alias(metric.name) for metric, a in aggregates.items())
    values = {a.value: dtypes[metric.value] for metric, a in aggregates.items()}
    return Step(rows, 0, tuple(aggregates.values()), values, outputs, weighted)


def _over_intervals(
    events: Events,
    metrics: Sequence[MetricColumn],
    times: TimeRange,
    among: pl.DataFrame,
    at_once: int,
) -> list[Step]:
    """The steps over events, or over tiles and sets of intervals where those are stored or pay."""
    event_times = time_model.events_seen(times, dict.fromkeys(m.window for m in metrics))
    steps, served = _over_sets(events, metrics, event_times, among)
    others = [metric for metric in metrics if metric not in served]
    return steps + (_over_others(events, others, event_times, among, at_once) if others else [])


def _over_others(
    events: Events,
    metrics: Sequence[MetricColumn],
    event_times: TimeRange,
    among: pl.DataFrame,
    at_once: int,
) -> list[Step]:
    """The steps for metrics of which no sets are stored."""
    spec, column_dtypes = events.spec, events.tiled.value_dtypes(events.schema)
    most = events.rows_within(event_times)

    def step_over_events(some: Sequence[MetricColumn], rows: pl.LazyFrame | None = None) -> Step:
        outputs = tuple(pl.col(metric.name) for metric in some)
        rows = gather(events, event_times, among) if rows is None else rows
        return Step(rows, most, tuple(some), column_dtypes, outputs)

    if spec.interval is None or not any(build.parts(metrics).values()):
        return [step_over_events(metrics)]
    rows, tiles = None, _stored_tiles(events, event_times, among)
    if tiles is None:
        rows = _held(gather(events, event_times, among), most, at_once)
        if events.filed or most < build.FEWEST or not build.dense(rows, spec):
            return [step_over_events(metrics, rows)]
        tiles = build_tiles(rows, spec, column_dtypes)
    merged = merge(tiles, spec, metrics, column_dtypes)
    steps = _over_tiles(merged)
    if merged.over_events:
        steps.append(step_over_events(merged.over_events, rows))
    return steps


def _stored_tiles(events: Events, times: TimeRange, among: pl.DataFrame) -> Tiles | None:
    """The tiles of a range from the cache; None where it has too few of them, or files alone tell that they would not pay."""
    if not events.filed:
        return events.cache.tiles(events, times, among)
    return tiles_as_filed(events.cache, events, times, among) if events.are_dense else None


def _over_tiles(merged: Merge) -> list[Step]:
    if not merged.finalized:
        return []
    return [
        Step(merged.rows.lazy(), 0, merged.merges, merged.dtypes, merged.finalized, merged=True)
    ]


def gather(
    events: Events, event_times: TimeRange | None, among: pl.DataFrame | None
) -> pl.LazyFrame:
    """The events of a range of time and of some entities, as in a timeline."""
    return timeline.of_events(events.scan(events.spec.needed(), event_times, among), events.spec)


def line_of(
    events: Events, within: TimeRange | EntityTimes | None
) -> tuple[pl.DataFrame, pl.Expr | None]:
    """The events that rows of some range see, and the rows' own, as in a timeline; and which of them are rows of the range.

    Nothing for the latter where all are.
    """
    among, times = entities_and_hull(within)
    windows = events.spec.windows
    event_times = None if times is None else time_model.events_seen(times, windows).union(times)
    rows = gather(events, event_times, among)
    inside = None if times is None else pl.col(TIME).is_between(times.start, times.end)
    if isinstance(within, EntityTimes):
        first, last = pl.col(FIRST), pl.col(LAST)
        firsts, lasts = time_model.seen_ends(first, last, windows)
        begin, end = pl.min_horizontal(first, *firsts), pl.max_horizontal(last, *lasts)
        rows = within.beside(rows).filter(pl.col(TIME).is_between(begin, end))
        inside = pl.col(TIME).is_between(first, last)
    return rows.collect(engine=polars_schema.engine_for(events.rows_within(event_times))), inside


def times_of(points: pl.DataFrame) -> TimeRange:
    """The first and the last TIME of some points, at least one."""
    return TimeRange(*timeline.extremes(points))


def _held(rows: pl.LazyFrame, most: int, at_once: int) -> pl.LazyFrame:
    """Events in memory; more than `at_once` stay where they are, for tiles may replace them."""
    engine = polars_schema.engine_for(most)
    if most <= at_once:
        return rows.collect(engine=engine).lazy()
    head = rows.head(at_once + 1).collect(engine=engine)
    return head.lazy() if head.height <= at_once else rows
