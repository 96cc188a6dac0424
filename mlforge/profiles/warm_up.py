"""The rows of a table whose windows are still warming up: they began before the first event that there is."""

from __future__ import annotations

from collections.abc import Iterable

from mlforge.core.manifest import Manifest
from mlforge.core.time_model import Window, point
from mlforge.core.values import BEGINNING, Duration


def warm_from(manifest: Manifest) -> dict[str, int]:
    """The first instant (UTC microseconds) from which on a column's windows lie behind the first event, by column.

    Columns without windows are warm from the beginning, as are windows over all events so far, which never fill. A derived
    column warms up as long as the slowest of all.
    """
    first = min((p.times.start for p in manifest.partials if p.times), default=None)
    windows: dict[str, tuple[Window, ...]] = {}
    windows |= {column.name: (column.window,) for column in manifest.spec.columns}
    windows |= dict.fromkeys((c.name for c in manifest.spec.derived), manifest.spec.windows)
    return {
        column.name: BEGINNING
        if first is None
        else _warm(first, windows.get(column.name, ()), manifest.spec.interval)
        for column in manifest.columns
    }


def _warm(first: int, windows: Iterable[Window], interval: Duration | None) -> int:
    """The first instant whose point has no window that reaches before the first event."""
    points = [window.last_point(first - 1) + 1 for window in windows if not window.is_endless]
    if not points:
        return BEGINNING
    return max(points) if interval is None else point(max(points) + interval.us - 1, interval)
