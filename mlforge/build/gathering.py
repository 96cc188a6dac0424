"""Gathering events once for a version's new rows and for the push behind it."""

from __future__ import annotations

import polars as pl

from mlforge.core import clock, time_model
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.manifest import Manifest
from mlforge.core.values import END, FIRST_INSTANT, TimeRange
from mlforge.engines.evaluation import entities_affected_by_time
from mlforge.engines.events import Events, events_of
from mlforge.engines.views import AsOfView, Gathered, distinct, gather
from mlforge.store import Store
from mlforge.store.changes import EventDiff

MOST = 250_000
"""Of more events the push takes some entities after others, and gathers those of each itself."""
FEW = 5_000
"""The same of more entities whose events are read from files: how many these are is not known before."""


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
    events, within = views[0].events, _seen_by_both(*views)
    if within is None or (events.totals is not None and not events.reads_all(after)):
        return None
    within = _with_late_rows(within, diff.times.start, spec)
    is_resident = events.is_resident(within)
    if not (is_resident or events.has_index or _are_few(diff.entities, within)):
        return None
    by_time = entities_affected_by_time(events, before, after)
    among = distinct([diff.entities, by_time], spec.entity)
    if not (is_resident or _are_found(events, within, among)):
        return None
    gathered = gather(views, among, within=within)
    return gathered if gathered.frames.shared.height <= MOST else None


def _are_found(events: Events, within: TimeRange, among: pl.DataFrame) -> bool:
    """Whether events that are not in memory are found by an index of entities, or are of few entities."""
    if events.has_index:
        return events.looks_up(within, among, MOST)
    return _are_few(among, within)


def _are_few(entities: pl.DataFrame, within: TimeRange) -> bool:
    """Whether files may be read for all of these entities at once."""
    return entities.height <= FEW and within.start >= FIRST_INSTANT


def _with_late_rows(within: TimeRange, first: int, spec: FeatureSpec) -> TimeRange:
    """The range with all that rows see from the first changed event on, where that is little more."""
    seen = time_model.events_seen(TimeRange(first, first), spec.windows)
    is_little = within.start - seen.start <= time_model.longest(spec.windows) // time_model.LATE
    return within.union(seen) if is_little else within


def _seen_by_both(now: AsOfView, before: AsOfView) -> TimeRange | None:
    """The times of all events that either view sees, and of newer ones up to now; None where the two are far apart."""
    first, second = now.seen, before.seen
    if first is None or second is None or now.as_of is None or not first.overlaps(second):
        return None
    return first.union(second).union(TimeRange(now.as_of, now.as_of))
