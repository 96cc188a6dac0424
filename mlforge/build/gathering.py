"""Gathering events once for a version's new rows and for the push behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import polars as pl

from mlforge.core import clock, time_model
from mlforge.core.manifest import Manifest
from mlforge.core.time_model import Window
from mlforge.core.values import END, FIRST_INSTANT, TimeRange
from mlforge.engines.asked_together import asked_of_function
from mlforge.engines.evaluation import entities_affected_by_time
from mlforge.engines.events import Events, events_of
from mlforge.engines.tiles.totals import Totals
from mlforge.engines.views import AsOfView, Gathered, OfFunction, distinct, gather
from mlforge.frames.shared_results import MOST_BYTES, once
from mlforge.store import Store
from mlforge.store.changes import EventDiff
from mlforge.store.integrity import intact

_Views: TypeAlias = Sequence[AsOfView]
MOST = 250_000
"""Of more events the push takes some entities after others, and gathers those of each itself."""
FEW = 5_000
"""Of more entities whose events are read from files the push does so, too: how many these are is not known before."""


def gathered_once(
    store: Store, latest: Manifest, candidate: Manifest, diff: EventDiff
) -> Gathered | None:
    """The events of entities whose values may differ once a version takes the served one's place; else None.

    That is of each entity whose events differ, or whose windows gain or lose events as the instant moves that values online
    are as of. None where there are too many, and where the instant of the push is not known, since it
    follows the clock. Raises IntegrityError where events are missing or damaged.
    """
    spec, now = candidate.spec, clock.now()
    before, after = latest.as_of(now), candidate.as_of(now)
    if before is None or after is None or after != candidate.as_of(END):
        return None
    if spec.interval is not None or not spec.columns or diff.times is None:
        return None
    views = AsOfView(events_of(store, candidate), after), AsOfView(events_of(store, latest), before)
    events, totals = views[0].events, None
    if events.totals is None or events.reads_all(after):
        within = _seen_by_both(*views)
    elif totals := _totals_of_both(*views):
        within = _seen_beside(totals, events, TimeRange(min(before, after), max(before, after)))
    else:
        return None
    if within is None:
        return None
    windows = spec.windows if totals is None else events.windows_since(after)
    within = _with_late_rows(within, diff.times.start, windows)
    is_resident = events.is_resident(within)
    if not (is_resident or events.has_index or _are_few(diff.entities, within)):
        return None
    among = _affected(views, diff)
    if not (is_resident or _are_found(events, within, among)):
        return None
    gathered = replace(gather(views, among, within=within), changed=diff.entities)
    if gathered.frames.shared.height > MOST:
        return None
    if totals is None:
        return replace(gathered, beside=_of_function(store, candidate, views, diff))
    with intact(spec.name):
        return replace(gathered, totals=totals.of_entities(among))


def _of_function(
    store: Store, candidate: Manifest, views: _Views, diff: EventDiff
) -> OfFunction | None:
    """The events in memory that values of all features of the job with this function follow from; None where there are no others, or these are too many."""
    metrics, [now, before] = asked_of_function(candidate.spec), views
    if not metrics:
        return None

    def gathered() -> OfFunction | None:
        spec = replace(candidate.spec, columns=tuple(metrics), derived=())
        if not {*spec.needed()} <= {column.name for column in candidate.events}:
            return None
        wide = [replace(view, events=view.events.of_metrics(metrics)) for view in views]
        within = _seen_by_both(*wide)
        if within is None or diff.times is None:
            return None
        within = _with_late_rows(within, diff.times.start, spec.windows)
        resident = store.resident_since(replace(candidate, spec=spec), within.start)
        held = [replace(v, events=replace(v.events, resident=resident)) for v in wide]
        if not held[0].events.is_resident(within):
            return None
        rows = diff.own_times.touched(spec)
        of_all = OfFunction(gather(held, _affected(held, diff), within=within), rows)
        is_kept = of_all.estimated_size() <= MOST_BYTES  # else each feature would gather them anew
        return of_all if is_kept and of_all.gathered.has_all_of(rows) else None

    instants = now.as_of, before.as_of
    contents = now.events.content, before.events.content
    return once(
        "events of a function",
        lambda: (metrics, instants, contents),
        gathered,
        diff.own_times.frame,
    )


def _affected(views: _Views, diff: EventDiff) -> pl.DataFrame:
    """Keys of the entities whose values may differ between two views, whose events differ so."""
    [now, before] = views
    by_time = entities_affected_by_time(now.events, before.as_of, now.as_of)
    return distinct([diff.entities, by_time], now.events.spec.entity)


def _are_found(events: Events, within: TimeRange, among: pl.DataFrame) -> bool:
    """Whether events that are not in memory are found by an index of entities, or are of few entities."""
    if events.has_index:
        return events.looks_up(within, among, MOST)
    return _are_few(among, within)


def _are_few(entities: pl.DataFrame, within: TimeRange) -> bool:
    """Whether files may be read for all of these entities at once."""
    return entities.height <= FEW and within.start >= FIRST_INSTANT


def _with_late_rows(within: TimeRange, first: int, windows: Sequence[Window]) -> TimeRange:
    """The range with all that rows see through some windows from the first changed event on, where that is little more."""
    if not windows:
        return within
    seen = time_model.events_seen(TimeRange(first, first), windows)
    is_little = within.start - seen.start <= time_model.longest(windows) // time_model.LATE
    return within.union(seen) if is_little else within


def _totals_of_both(now: AsOfView, before: AsOfView) -> Totals | None:
    """The totals that stand for all older events of both views; None where they differ, or older events lie beside them."""
    first, second = now.events.totals, before.events.totals
    if first is None or second is None or first.file != second.file or first.late or second.late:
        return None
    assert now.as_of is not None
    assert before.as_of is not None
    return first if first.serve(min(now.as_of, before.as_of)) else None


def _seen_beside(totals: Totals, events: Events, points: TimeRange) -> TimeRange:
    """The times of all events that some points see beside totals."""
    newer = TimeRange(totals.until, max(totals.until, points.end))
    windows = events.windows_since(points.start)
    return newer.union(time_model.events_seen(points, windows)) if windows else newer


def _seen_by_both(now: AsOfView, before: AsOfView) -> TimeRange | None:
    """The times of all events that either view sees, and of newer ones up to now; None where the two are far apart."""
    first, second = now.seen, before.seen
    if first is None or second is None or now.as_of is None or not first.overlaps(second):
        return None
    return first.union(second).union(TimeRange(now.as_of, now.as_of))
