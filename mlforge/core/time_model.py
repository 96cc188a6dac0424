"""The time model in pure functions: which events an instant sees, and when "as of" is.

All instants are UTC microseconds. A feature's value at `t` is evaluated at a *point*: `t` itself for
a continuous feature, the last interval boundary at or before `t` for an aligned one. At a point every
window is one closed range of integers, its `span`, whose ends never move back as the point moves on; nothing
else in mlforge knows about closed ends, offsets, intervals or calendars.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mlforge.core.calendar_units import PERIODS, Period
from mlforge.core.values import DAY_US, FIRST_INSTANT, LAST_INSTANT, LONGEST_US, Duration, TimeRange

Closed = Literal["both", "right", "left", "none"]
OnlineClock = Literal["data", "wall"]
CLOSED: tuple[str, ...] = get_args(Closed)
ONLINE_CLOCKS: tuple[str, ...] = get_args(OnlineClock)


ALL = Duration(LONGEST_US, "all")
"""The length of a window that holds all events so far: no calendar goes further back."""
LATE = 8
"""Rows that are late by at most this part of the longest window find the events that they depend on in memory, too."""
_NAMED: dict[str, Duration | Period] = {
    ALL.name: ALL,
    **{period.name: period for period in PERIODS.values()},
}


def length_named(name: str) -> Duration | Period:
    """The length that columns and manifests name so: `7d`, `all`, `mtd`."""
    return _NAMED.get(name) or Duration.parse(name, "window")


def misfit(length: Duration | Period, interval: Duration) -> str | None:
    """Why a window so long does not start where intervals do, None if it does."""
    if isinstance(length, Period):
        starts_with_one = DAY_US % interval.us == 0
        rest = f"starts with a day, which the interval {interval} does not divide; take one that does, as '1h' or '1d'"
    else:
        starts_with_one = length is ALL or length.us % interval.us == 0
        rest = (
            f"is not a multiple of the interval {interval}; take one that is, or another interval"
        )
    return None if starts_with_one else rest


@dataclass(frozen=True, slots=True)
class Window:
    """Which events a point sees: those from a start, which follows from the end, to an end `offset` before the point.

    length: a duration: the start is so long before the end. A period: the start is that of the period which holds
    the end.
    """

    length: Duration | Period
    offset: Duration | None = None
    closed: Closed = "both"

    @property
    def name(self) -> str:
        """As columns name it: `7d`, `all`, `mtd`."""
        return self.length.name

    @property
    def width(self) -> int | None:
        """The microseconds from the start to the end; None where they depend on the point."""
        return self.length.width

    @property
    def longest(self) -> int:
        """The most microseconds from the start to the end."""
        return self.length.longest

    @property
    def lag(self) -> int:
        """The microseconds from the end to the point."""
        return self.offset.us if self.offset else 0

    def first(self, point: Any) -> Any:
        """The least event time that a point sees: an integer, or an expression over points."""
        return self.length.start(point - self.lag) + (self.closed in ("right", "none"))

    def last(self, point: Any) -> Any:
        """The greatest event time that a point sees; before the first one where it sees none."""
        return point - self.lag - (self.closed in ("left", "none"))

    def span(self, point: int) -> TimeRange:
        """The event times that a point sees; both ends included."""
        return TimeRange(self.first(point), self.last(point))

    def first_point(self, event_time: Any) -> Any:
        """The first point that may see an event: an integer, or an expression over event times."""
        return event_time + self.lag + (self.closed in ("left", "none"))

    def last_point(self, event_time: Any) -> Any:
        """The last point that sees an event; before the first one where none does."""
        opens_after = self.closed in ("right", "none")
        return self.length.last_end(event_time - opens_after) + self.lag

    def ends(self, point: int) -> TimeRange:
        """The start and the end, whether or not they belong to the window."""
        end = point - self.lag
        return TimeRange(self.length.start(end), end)

    @property
    def is_endless(self) -> bool:
        """Whether it holds all events up to its end."""
        return self.length == ALL

    @property
    def is_fixed(self) -> bool:
        """Whether it is of a fixed duration that users wrote."""
        return self.width is not None and not self.is_endless

    @property
    def sees_present(self) -> bool:
        """Whether an event at the end of the window is inside it."""
        return self.closed in ("both", "right")


def floor(t: Any, interval: Duration) -> Any:
    """The last interval boundary, counted from the epoch, at or before `t`: an integer, or an expression."""
    return t - t % interval.us


def point(t: int, interval: Duration | None) -> int:
    """Where a value at `t` is evaluated."""
    return t if interval is None else int(floor(t, interval))


def row_point(event_time: Any, interval: Duration | None) -> Any:
    """The instant of the stored row that an event causes, in UTC microseconds: an integer, or an expression."""
    return event_time if interval is None else floor(event_time, interval) + interval.us


def last_event(interval: Duration | None) -> int:
    """The last event time whose stored row lies within the years 1 to 9999."""
    return LAST_INSTANT if interval is None else floor(LAST_INSTANT, interval) - 1


def events_seen(points: TimeRange, windows: Iterable[Window]) -> TimeRange:
    """Event times that some point of the range sees through some window."""
    firsts, lasts = seen_ends(points.start, points.end, windows)
    return TimeRange(min(firsts), max(lasts))


def seen_ends(
    first_point: Any, last_point: Any, windows: Iterable[Window]
) -> tuple[list[Any], list[Any]]:
    """For each window the least event time that the first point sees, and the greatest that the last does.

    Integers, or expressions over points.
    """
    windows = tuple(windows)
    return [w.first(first_point) for w in windows], [w.last(last_point) for w in windows]


def rows_touched(
    events: TimeRange, windows: Iterable[Window], interval: Duration | None
) -> TimeRange:
    """The range of stored rows that may change, appear or vanish when events in a range change."""
    firsts, lasts = touched_ends(events.start, events.end, windows, interval)
    return TimeRange(min(firsts), max(lasts))


def touched_ends(
    first_event: Any, last_event: Any, windows: Iterable[Window], interval: Duration | None
) -> tuple[list[Any], list[Any]]:
    """The ends of which the least and the greatest are those of the rows that events touch.

    The rows that the events themselves cause, and for each window the first and the last that sees them: integers, or
    columns of them.
    """
    windows = tuple(windows)
    return (
        [row_point(first_event, interval), *(w.first_point(first_event) for w in windows)],
        [row_point(last_event, interval), *(w.last_point(last_event) for w in windows)],
    )


def longest(windows: Iterable[Window]) -> int:
    """The most microseconds from the first event that a point sees through some window to the last."""
    windows = tuple(windows)
    oldest = max((window.longest + window.lag for window in windows), default=0)
    return oldest - min((window.lag for window in windows), default=0)


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
        boundary: int = min(row_point(watermark, interval), point(now, interval))
        return max(boundary, FIRST_INSTANT)
    return min(watermark + any(not window.sees_present for window in windows), now)


def left_or_entered(before: int, after: int, windows: Iterable[Window]) -> tuple[TimeRange, ...]:
    """Event times that enter or leave some window when its point moves from `before` to `after`.

    Neither end of a window moves back as the point moves on, so what left lies between the two starts and
    what entered between the two ends. Where all of a window is left behind, both hold what only passed through.
    """
    spans = sorted((min(before, after), max(before, after)))
    if spans[0] == spans[1]:
        return ()
    moved = set()
    for window in windows:
        first, last = (window.span(point) for point in spans)
        moved |= {TimeRange(first.start, last.start - 1), TimeRange(first.end + 1, last.end)}
    ranges = (times for times in moved if times.start <= times.end)
    return tuple(sorted(ranges, key=lambda times: (times.start, times.end)))
