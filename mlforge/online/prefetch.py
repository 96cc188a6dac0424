"""Reading ahead: a process that waits for its job caches the events that its next values depend on."""

from __future__ import annotations

from mlforge.core import clock, time_model
from mlforge.core.manifest import Manifest
from mlforge.core.values import END, TimeRange
from mlforge.engines.events import Events, events_of
from mlforge.store import Store

VALUE_BYTES = 8
ROOM = 6_000_000
"""How many values a process keeps by default: 48 MB of numbers."""
_BESIDE = 1
"""Values beside those of a row: the number of its partial and its place among those of its entity, of four bytes each."""


def read_ahead(store: Store, manifest: Manifest, room: int = ROOM) -> int:
    """Have the store cache the events that windows still hold at the version's watermark or later.

    Nothing is cached if the events hold more than `room` values, or if cached tiles are read in their place.
    Returns the number of values cached, 0 where they are cached of another feature. Raises polars' errors where events cannot be read.
    """
    spec, newest = manifest.spec, manifest.reached(clock.now())
    if spec.timestamp is None or newest is None or not spec.columns:
        store.keep(manifest, None)  # an earlier version may have had events in windows
        return 0
    events = events_of(store, manifest)
    if events.by_entity is not None:
        events.by_entity.look_up()
    since = _since(events, newest)
    times = TimeRange(since, END)
    within = events.within(times).partials
    cells = sum(partial.rows for partial in within) * (len(spec.needed()) + _BESIDE)
    if store.shares(manifest, since):
        cells = 0
    fits = cells <= room and not events.tiles_cover(times)
    store.keep(manifest, since if fits else None)
    return cells if fits else 0


def _since(events: Events, newest: int) -> int:
    """The least event time that is worth keeping: totals stand for what windows over all time hold before."""
    totals, metrics = events.totals, events.spec.columns
    if totals is not None:
        metrics = tuple(metric for metric in metrics if metric not in totals.metrics(newest))
    windows = tuple(metric.window for metric in metrics)
    starts = [totals.until] if totals is not None else []
    if windows:
        oldest = time_model.events_seen(TimeRange(newest, newest), windows).start
        starts.append(oldest - time_model.longest(windows) // time_model.LATE)
    return min(starts)
