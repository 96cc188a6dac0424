"""The time model in pure functions: which events an instant sees, and when "as of" is.

All instants are UTC microseconds. A feature's value at `t` is evaluated at a *point*: `t` itself for
a continuous feature, the last interval boundary at or before `t` for an aligned one. Relative to
the point, every window is one closed range of integers, `span`; nothing else in mlforge knows
about closed ends, offsets or intervals.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from mlforge.core.values import FIRST_INSTANT, LAST_INSTANT, Duration, TimeRange

Closed = Literal["both", "right", "left", "none"]
OnlineClock = Literal["data", "wall"]
CLOSED: tuple[str, ...] = get_args(Closed)
ONLINE_CLOCKS: tuple[str, ...] = get_args(OnlineClock)


@dataclass(frozen=True, slots=True)
class Window:
    """A rolling window: the events from `width` before the point to the point, `offset` ago."""

    width: Duration
    offset: Duration | None = None
    closed: Closed = "both"

    @property
    def span(self) -> TimeRange:
        """Event times seen, relative to the point; both ends included."""
        ends_at = -(self.offset.us if self.offset else 0)
        starts_at = ends_at - self.width.us
        return TimeRange(
            starts_at + (self.closed in ("right", "none")),
            ends_at - (self.closed in ("left", "none")),
        )

    @property
    def sees_present(self) -> bool:
        """Whether an event at the end of the window is inside it."""
        return self.closed in ("both", "right")


def floor(t: int, interval: Duration) -> int:
    """The last interval boundary, counted from the epoch, at or before `t`."""
    return t - t % interval.us


def point(t: int, interval: Duration | None) -> int:
    """Where a value at `t` is evaluated."""
    return t if interval is None else floor(t, interval)


def row_point(event_time: int, interval: Duration | None) -> int:
    """The instant of the stored row that an event causes, in UTC microseconds."""
    return event_time if interval is None else floor(event_time, interval) + interval.us


def last_event(interval: Duration | None) -> int:
    """The last event time whose stored row lies within the years 1 to 9999."""
    return LAST_INSTANT if interval is None else floor(LAST_INSTANT, interval) - 1


def reach(windows: Iterable[Window]) -> TimeRange:
    """Event times that any of the windows sees, relative to the point."""
    spans = [window.span for window in windows]
    return TimeRange(min(span.start for span in spans), max(span.end for span in spans))


def events_seen(points: TimeRange, windows: Iterable[Window]) -> TimeRange:
    """Event times that some point of the range sees through some window."""
    span = reach(windows)
    return TimeRange(points.start + span.start, points.end + span.end)


def rows_touched(
    events: TimeRange, windows: Iterable[Window], interval: Duration | None
) -> TimeRange:
    """The range of stored rows that may change, appear or vanish when events in a range change."""
    span = reach(windows)
    at_events = TimeRange(row_point(events.start, interval), row_point(events.end, interval))
    return at_events.union(TimeRange(events.start - span.end, events.end - span.start))


def as_of(
    watermark: int | None,
    now: int,
    windows: Iterable[Window],
    interval: Duration | None,
    online_clock: OnlineClock,
) -> int | None:
    """The instant of online values, UTC microseconds; None while there are no events to follow.

    watermark: the greatest event time, as far as it is not after `now`.

    It follows the data, capped by the clock, so that online state follows from the sources and
    the clock alone. A window that leaves the present event out would never serve the newest one:
    one microsecond is added. A boundary before the year 1 is that year's first instant, at which values
    are the same.
    """
    if online_clock == "wall":
        return max(point(now, interval), FIRST_INSTANT)
    if watermark is None:
        return None
    if interval is not None:
        boundary = min(floor(watermark, interval) + interval.us, floor(now, interval))
        return max(boundary, FIRST_INSTANT)
    return min(watermark + any(not window.sees_present for window in windows), now)


def left_or_entered(before: int, after: int, windows: Iterable[Window]) -> tuple[TimeRange, ...]:
    """Event times that enter or leave some window when its point moves from `before` to `after`.

    An event at `e` is inside while `e - span.end <= point <= e - span.start`; moving the point over
    either end changes what the window holds.
    """
    first, last = min(before, after), max(before, after)
    if first == last:
        return ()
    edges = {edge for window in windows for edge in (window.span.start - 1, window.span.end)}
    return tuple(TimeRange(first + edge + 1, last + edge) for edge in sorted(edges))
