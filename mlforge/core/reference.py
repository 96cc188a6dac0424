"""`value(entity, t)` once more, in plain Python over rows: the reference for audits and engines.

The module shares no code with the engines or the time model, and reads no stored events, so that a mistake in
them is not repeated here. Instants are ints, UTC microseconds; a row is a mapping from column to
value; sums are exact, or rounded once.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from mlforge.core.aggregations import aggregation, empty_value
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.metrics import MetricColumn
from mlforge.core.plain_folds import order_of
from mlforge.core.values import (
    FIRST_INSTANT,
    LAST_INSTANT,
    PRECISION,
    from_us,
    to_us,
)

Row = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cell:
    """A value, and the largest magnitude among the numbers that it was computed from."""

    value: Any
    magnitude: float = 0.0


@dataclass(frozen=True, slots=True)
class History:
    """Events of an entity by time; of one instant by their other columns, nulls first.

    names: the columns of a value.
    """

    spec: FeatureSpec
    names: tuple[str, ...]
    rows: tuple[Row, ...]
    times: tuple[int, ...]

    @classmethod
    def of(cls, spec: FeatureSpec, names: Sequence[str], rows: Iterable[Row]) -> History:
        """Put an entity's events in order."""
        time = spec.timestamp
        ordered = sorted(rows, key=lambda row: (row[time] if time else 0, *_key(names, row)))
        times = tuple(row[time] for row in ordered) if time else ()
        return cls(spec, tuple(names), tuple(ordered), times)

    def points(self) -> list[int]:
        """The instants that have a stored row: of each event, or the end of its interval."""
        step = self.spec.interval.us if self.spec.interval else None
        return sorted({time if step is None else time - time % step + step for time in self.times})

    def value(self, t: int | None) -> dict[str, Cell]:
        """The values at an instant; without a timestamp it plays no part."""
        if self.spec.columns:
            assert t is not None
            return {
                metric.name: aggregate(metric.aggregation, self._counting(metric, t))
                for metric in self.spec.columns
            }
        rows = self.rows if t is None else self.rows[: bisect_right(self.times, t)]
        return {name: Cell(rows[-1].get(name) if rows else None) for name in self.names}

    def lives(self, t: int | None) -> bool:
        """Whether the entity has a row at an instant: some window holds an event."""
        if self.spec.timestamp is None:
            return bool(self.rows)
        if t is None:  # nothing had happened yet
            return False
        if self.spec.columns:
            return any(self._within(metric, t) for metric in self.spec.columns)
        return bisect_right(self.times, t) > 0

    def edges(self) -> list[int]:
        """Instants at which a value may change, and the microsecond before and after each."""
        instants = set(self.times)
        for window in self.spec.windows:
            lag = window.offset.us if window.offset else 0
            left = (_leaves(window.name, window.width, time) for time in self.times)
            instants |= {time + lag for time in (*self.times, *left)}
        near = (instant + beside for instant in instants for beside in (-1, 0, 1))
        return [instant for instant in near if FIRST_INSTANT <= instant <= LAST_INSTANT]

    def _counting(self, metric: MetricColumn, t: int) -> Sequence[tuple[int, Any]]:
        """The (instant, value) pairs that count for a metric at an instant, nulls among them."""
        time, where = self.spec.timestamp, metric.where
        assert time is not None
        return [
            (row[time], row.get(metric.column))
            for row in self._within(metric, t)
            if where is None or row.get(where) is True
        ]

    def _within(self, metric: MetricColumn, t: int) -> Sequence[Row]:
        """The events in a metric's window at an instant."""
        window, times = metric.window, self.times
        end = t - (window.offset.us if window.offset else 0)
        if self.spec.interval is not None:
            end -= end % self.spec.interval.us
            start = _start(window.name, window.width, end)
            return self.rows[bisect_left(times, start) : bisect_left(times, end)]
        start = _start(window.name, window.width, end)
        first = (
            bisect_left(times, start)
            if window.closed in ("both", "left")
            else bisect_right(times, start)
        )
        last = (
            bisect_right(times, end)
            if window.closed in ("both", "right")
            else bisect_left(times, end)
        )
        return self.rows[first:last]


def _start(name: str, width: int | None, end: int) -> int:
    """Where a window of this name with this end starts. width: the microseconds between, where they are fixed."""
    if name == "all":
        return FIRST_INSTANT - 1
    if width is not None:
        return end - width
    # No calendar has an end before the year 1, which an offset may give; no event lies there.
    return to_us(_first(name, from_us(end))) if end >= FIRST_INSTANT else end


def _leaves(name: str, width: int | None, time: int) -> int:
    """The end with which a window starts behind an event, or about so; the end of time if it never does."""
    if name == "all":
        return LAST_INSTANT
    if width is not None:
        return time + width
    days = {"dtd": 1, "wtd": 7, "mtd": 31, "ytd": 366}
    try:
        start = _first(name, from_us(time))
        return to_us(_first(name, start + timedelta(days=days[name])))
    except OverflowError:
        return LAST_INSTANT


def _first(unit: str, instant: datetime) -> datetime:
    """The first instant of the day, ISO week, month or year of an instant."""
    midnight = instant.replace(hour=0, minute=0, second=0, microsecond=0)
    if unit == "wtd":
        return midnight - timedelta(days=midnight.weekday())
    if unit == "dtd":
        return midnight
    return midnight.replace(day=1) if unit == "mtd" else midnight.replace(month=1, day=1)


def aggregate(name: str, events: Iterable[tuple[int, Any]]) -> Cell:
    """An aggregate of a window's (instant, value) pairs; nulls do not count."""
    kind, parameter = aggregation(name).kind, aggregation(name).parameter
    present = [(time, value) for time, value in events if value is not None]
    if not present:
        return Cell(empty_value(name))
    present.sort(key=lambda event: (event[0], order_of(event[1])))
    numbers = [abs(float(v)) for _, v in present if isinstance(v, (int, float, Decimal))]
    magnitude = _or_none(lambda: max(numbers, default=0.0) ** kind.degree)
    value = _or_none(lambda: kind.fold(present, parameter))
    return Cell(finite(value), math.inf if magnitude is None else magnitude)


def _or_none(computed: Callable[[], T]) -> T | None:
    """The value of a computation; None where no float is so large."""
    try:
        return computed()
    except OverflowError:
        return None


def agree(value: Any, cell: Cell) -> bool:
    """Whether a value is the one of the cell: floats to PRECISION of its magnitude, all else exactly."""
    expected = cell.value
    if isinstance(value, float) and isinstance(expected, float):
        most = max(PRECISION * cell.magnitude, math.ulp(0.0))  # no float is nearer
        return value == expected or abs(value - expected) <= most
    return type(value) is type(expected) and bool(value == expected)


def clean(row: Row) -> Row:
    """The row with its non-finite floats as nulls."""
    return {name: finite(value) for name, value in row.items()}


def plain(value: Any) -> Any:
    """A value as the reference has it: instants are microseconds, also within lists and structs."""
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return to_us(value) if isinstance(value, datetime) else value


def finite(value: Any) -> Any:
    """The value with non-finite floats as nulls, also within lists and structs."""
    if isinstance(value, list):
        return [finite(part) for part in value]
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _key(names: Sequence[str], row: Row) -> tuple[Any, ...]:
    return tuple(order_of(row.get(name)) for name in names)
