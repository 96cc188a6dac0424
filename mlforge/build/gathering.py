"""Gathering events once for a version's new rows and for the push behind it, where both find them without going through files."""

from __future__ import annotations

from mlforge.core import clock
from mlforge.core.manifest import Manifest
from mlforge.core.values import END, TimeRange
from mlforge.engines.evaluation import entities_affected_by_time
from mlforge.engines.events import events_of
from mlforge.engines.views import AsOfView, Gathered, distinct, gather
from mlforge.store import Store
from mlforge.store.changes import EventDiff

MOST = 250_000
"""Of more events the push takes some entities after others, and gathers those of each itself."""


def gathered_once(
    store: Store, latest: Manifest, candidate: Manifest, diff: EventDiff
) -> Gathered | None:
    """The events of entities whose values may differ once a version takes the served one's place; else None.

    That is of each entity whose events differ, or whose windows gain or lose events as the instant moves that values online
    are as of. None where the events are neither in memory nor found by an index of entities, and where the instant of the push is not known, since it
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
    is_resident = events.is_resident(within)
    if not is_resident and not events.has_index:
        return None
    by_time = entities_affected_by_time(events, before, after)
    among = distinct([diff.entities, by_time], spec.entity)
    if not is_resident and not events.looks_up(within, among, MOST):
        return None
    gathered = gather(views, among, within=within)
    return gathered if gathered.frames.shared.height <= MOST else None


def _seen_by_both(now: AsOfView, before: AsOfView) -> TimeRange | None:
    """The times of all events that either view sees, and of newer ones up to now; None where the two are far apart."""
    first, second = now.seen, before.seen
    if first is None or second is None or now.as_of is None or not first.overlaps(second):
        return None
    return first.union(second).union(TimeRange(now.as_of, now.as_of))
