"""What mlforge must answer, in plain Python: slow, small and written without a look at the library.

Instants are ints, UTC microseconds. A row is a dict from column to value. Sums are exact (fractions),
so an answer is at least as good as any engine's; `close` compares with one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

Row = Mapping[str, Any]
Entity = tuple[Any, ...]


class Refused(Exception):
    """Two rows of one key in a feature without a timestamp."""


@dataclass(frozen=True)
class Metric:
    """One output column: an aggregation over one window; lengths in microseconds.

    window: a length, "all", or a period to date: "dtd", "wtd", "mtd", "ytd".
    """

    name: str
    column: str
    aggregation: str
    window: int | str
    offset: int = 0
    closed: str = "both"
    where: str | None = None


@dataclass(frozen=True)
class Derived:
    """A derived column: its text, and what it means, of the values before it and the instant."""

    name: str
    text: str
    means: Callable[[Mapping[str, Any], int], Any]


@dataclass(frozen=True)
class Feature:
    """All that values depend on; `columns` are the function's, in its order."""

    keys: tuple[str, ...]
    columns: tuple[str, ...]
    timestamp: str | None = None
    interval: int | None = None
    metrics: tuple[Metric, ...] = ()
    online_clock: str = "data"
    derived: tuple[Derived, ...] = ()

    @property
    def time(self) -> str:
        """The name of the timestamp, where there must be one."""
        assert self.timestamp is not None
        return self.timestamp

    @property
    def outputs(self) -> tuple[str, ...]:
        """The columns that training and serving give."""
        return (*self.plain_outputs, *(column.name for column in self.derived))

    @property
    def plain_outputs(self) -> tuple[str, ...]:
        """The columns of metrics, or of the function."""
        if self.metrics:
            return tuple(metric.name for metric in self.metrics)
        return tuple(c for c in self.columns if c not in self.keys and c != self.timestamp)


@dataclass(frozen=True)
class Events:
    """The rows that count, and how many did not."""

    rows: tuple[Row, ...]
    null_keys: int = 0
    null_times: int = 0
    non_finite: int = 0


@dataclass(frozen=True)
class Cell:
    """A value, and the largest magnitude among the numbers that it was made of."""

    value: Any
    magnitude: float = 0.0


# -- events


def clean(feature: Feature, rows: Iterable[Row]) -> Events:
    """Leave out null keys, then null times; non-finite floats become null."""
    events = Events(())
    kept: list[Row] = []
    for row in rows:
        if any(row[key] is None for key in feature.keys):
            events = replace(events, null_keys=events.null_keys + 1)
        elif feature.timestamp is not None and row[feature.timestamp] is None:
            events = replace(events, null_times=events.null_times + 1)
        else:
            bad = {name for name, v in row.items() if isinstance(v, float) and not math.isfinite(v)}
            events = replace(events, non_finite=events.non_finite + len(bad))
            kept.append({name: None if name in bad else v for name, v in row.items()})
    if feature.timestamp is None and len({entity_of(feature, row) for row in kept}) < len(kept):
        raise Refused
    return replace(events, rows=tuple(kept))


def entity_of(feature: Feature, row: Row) -> Entity:
    """The key values of a row, in the order of the keys."""
    return tuple(row[key] for key in feature.keys)


def floor(instant: int, interval: int) -> int:
    """The last multiple of the interval, from the epoch, that is not after the instant."""
    return instant - instant % interval


# -- values at an instant


def in_window(metric: Metric, interval: int | None, event_time: int, t: int) -> bool:
    """Whether an event counts for a metric at the instant t."""
    end = t - metric.offset
    if interval is not None:
        end = floor(end, interval)
    closed = metric.closed if interval is None else "left"
    starts_with_event = closed in ("right", "none")
    if event_time > end or (event_time == end and closed in ("left", "none")):
        return False
    if metric.window == "all":
        return True
    if isinstance(metric.window, int):
        start = end - metric.window
        return start < event_time if starts_with_event else start <= event_time
    if period_of(event_time, metric.window) != period_of(end, metric.window):
        return False
    is_first = period_of(event_time - 1, metric.window) != period_of(event_time, metric.window)
    return not (starts_with_event and is_first)


def period_of(instant: int, name: str) -> tuple[int, ...]:
    """The UTC day, ISO week, month or year in which an instant lies; that of no event outside the calendar."""
    try:
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant)
    except OverflowError:
        return ()
    iso = at.isocalendar()
    return {
        "dtd": (at.year, at.month, at.day),
        "wtd": (iso.year, iso.week),
        "mtd": (at.year, at.month),
        "ytd": (at.year,),
    }[name]


def value(feature: Feature, events: Events, entity: Entity, t: int) -> dict[str, Cell]:
    """The feature's values for an entity at an instant; without a timestamp t plays no part."""
    return with_derived(feature, plain_value(feature, events, entity, t), t)


def with_derived(feature: Feature, cells: Mapping[str, Cell], t: int) -> dict[str, Cell]:
    """The cells with those of derived columns as of t."""
    derived = dict(cells)
    for column in feature.derived:
        derived[column.name] = Cell(column.means({n: c.value for n, c in derived.items()}, t))
    return derived


def plain_value(feature: Feature, events: Events, entity: Entity, t: int) -> dict[str, Cell]:
    """The values without derived columns."""
    mine = [row for row in events.rows if entity_of(feature, row) == entity]
    if feature.metrics:
        return {
            metric.name: aggregate(
                metric.aggregation,
                [row[metric.column] for row in rows],
                [row[feature.time] for row in rows],
            )
            for metric in feature.metrics
            for rows in [
                [
                    row
                    for row in mine
                    if in_window(metric, feature.interval, row[feature.time], t)
                    and (metric.where is None or row[metric.where] is True)
                ]
            ]
        }
    if feature.timestamp is not None:
        mine = [row for row in mine if row[feature.time] <= t]
        mine.sort(key=lambda row: (row[feature.time], *nulls_first(feature.plain_outputs, row)))
    return {name: Cell(mine[-1][name] if mine else None) for name in feature.plain_outputs}


def nulls_first(names: Sequence[str], row: Row) -> tuple[Any, ...]:
    """A sort key over some columns in which None comes before all else."""
    return tuple((False, 0) if row[name] is None else (True, row[name]) for name in names)


def aggregate(name: str, values: Sequence[Any], times: Sequence[int] | None = None) -> Cell:
    """One aggregate of a window's values; nulls do not count. times: of each value, else they stand in order."""
    instants = range(len(values)) if times is None else times
    events = sorted((t, v) for t, v in zip(instants, values, strict=True) if v is not None)
    present = [v for _, v in events]
    if name in ("count", "count_distinct"):
        return Cell(len(present if name == "count" else set(present)))
    if name.startswith(("first_", "last_", "top_")) and name[-1].isdigit():
        kind, most = name.rsplit("_", 1)
        return Cell(LISTS[kind](present)[: int(most)])
    if not present:
        return Cell(None)
    if name.endswith("_time"):
        return Cell(events[0 if name == "first_time" else -1][0])
    numbers = [float(v) for v in present if isinstance(v, (int, float, Decimal))]
    magnitude = max(map(abs, numbers), default=0.0)
    if name.startswith("p"):
        return Cell(_percentile(present, Fraction(name[1:].replace("_", "."))), magnitude)
    return Cell(AGGREGATES[name](present), magnitude**2 if name == "var" else magnitude)


def _sum(values: list[Any]) -> Any:
    return math.fsum(values) if isinstance(values[0], float) else sum(values)


def _mean(values: list[Any]) -> Fraction:
    return sum(map(Fraction, values), Fraction(0)) / len(values)


def _median(values: list[Any]) -> float:
    ordered, n = sorted(values), len(values)
    return float(_mean(ordered[(n - 1) // 2 : n // 2 + 1]))


def _std(values: list[Any]) -> float | None:
    if len(values) < 2:
        return None
    return math.sqrt(_variance(values))


def _var(values: list[Any]) -> float | None:
    return None if len(values) < 2 else float(_variance(values))


def _variance(values: list[Any]) -> Fraction:
    mean = _mean(values)
    return sum(((Fraction(v) - mean) ** 2 for v in values), Fraction(0)) / (len(values) - 1)


def _percentile(values: list[Any], percent: Fraction) -> float:
    ordered = sorted(map(Fraction, values))
    rank = percent / 100 * (len(ordered) - 1)
    lower = int(rank)
    upper = min(lower + 1, len(ordered) - 1)
    return float(ordered[lower] * (lower + 1 - rank) + ordered[upper] * (rank - lower))


def _by_frequency(values: list[Any]) -> list[Any]:
    distinct = sorted(set(values))
    return sorted(distinct, key=values.count, reverse=True)


LISTS: dict[str, Callable[[list[Any]], list[Any]]] = {
    "first": lambda values: values,
    "last": lambda values: values[::-1],
    "top": _by_frequency,
}


AGGREGATES: dict[str, Callable[[list[Any]], Any]] = {
    "sum": _sum,
    "mean": lambda values: float(_mean(values)),
    "min": min,
    "max": max,
    "std": _std,
    "median": _median,
    "var": _var,
    "first": lambda values: values[0],
    "last": lambda values: values[-1],
    "mode": lambda values: _by_frequency(values)[0],
}


# -- the three places where values are seen


def stored(feature: Feature, events: Events) -> list[dict[str, Cell]]:
    """The rows of data.parquet, by timestamp, then keys."""
    if feature.metrics:
        time, step = feature.time, feature.interval
        points = {
            (
                row[time] if step is None else floor(row[time], step) + step,
                entity_of(feature, row),
            )
            for row in events.rows
        }
        return [
            {
                **{key: Cell(part) for key, part in zip(feature.keys, entity, strict=True)},
                time: Cell(t),
                **value(feature, events, entity, t),
            }
            for t, entity in sorted(points)
        ]
    rows = sorted(
        events.rows,
        key=lambda row: (
            *([row[feature.timestamp]] if feature.timestamp else []),
            *entity_of(feature, row),
        ),
    )
    return [
        with_derived(
            feature,
            {name: Cell(row[name]) for name in feature.columns},
            row[feature.timestamp] if feature.timestamp else 0,
        )
        for row in rows
    ]


def training(
    feature: Feature, events: Events, spine: Iterable[tuple[Entity, int]]
) -> list[dict[str, Cell]]:
    """The values at every row of a spine, in its order."""
    return [value(feature, events, entity, t) for entity, t in spine]


@dataclass(frozen=True)
class Label:
    """An aggregation of the events in `(t, t + horizon]`, in microseconds."""

    column: str
    aggregation: str
    horizon: int
    where: str | None = None


def watermark(feature: Feature, events: Events, created: int) -> int | None:
    """The newest event that was not ahead of the clock when a version was made of them."""
    past = [row[feature.time] for row in events.rows if row[feature.time] <= created]
    return max(past, default=None)


def is_open(label: Label, t: int, mark: int | None) -> bool:
    """Whether more events may come before the horizon of an instant is over."""
    return mark is None or t + label.horizon > mark


def ahead(
    feature: Feature, events: Events, label: Label, entity: Entity, t: int, mark: int | None
) -> Cell:
    """A label at an instant; null while its horizon is open."""
    if is_open(label, t, mark):
        return Cell(None)
    rows = [
        row
        for row in events.rows
        if entity_of(feature, row) == entity
        and t < row[feature.time] <= t + label.horizon
        and (label.where is None or row[label.where] is True)
    ]
    values, times = ([row[name] for row in rows] for name in (label.column, feature.time))
    return aggregate(label.aggregation, values, times)


def as_of(feature: Feature, events: Events, now: int) -> int | None:
    """The instant at which online values are evaluated; None where there is nothing to evaluate."""
    if feature.timestamp is None:
        return None
    step = feature.interval
    if feature.online_clock == "wall":
        return now if step is None else floor(now, step)
    if not events.rows:
        return None
    past = [row[feature.time] for row in events.rows if row[feature.time] <= now]
    watermark: int = max(past, default=now)
    if step is not None:
        return min(floor(watermark, step) + step, floor(now, step))
    if any(metric.closed in ("left", "none") for metric in feature.metrics):
        watermark += 1
    return min(watermark, now)


def online(feature: Feature, events: Events, now: int) -> dict[Entity, dict[str, Cell]]:
    """What the online store must hold: the entities with a window that holds an event."""
    t = as_of(feature, events, now) or 0
    served: dict[Entity, dict[str, Cell]] = {}
    for row in events.rows:
        if feature.metrics:
            lives = any(
                in_window(metric, feature.interval, row[feature.time], t)
                for metric in feature.metrics
            )
        else:
            lives = feature.timestamp is None or row[feature.time] <= t
        entity = entity_of(feature, row)
        if lives and entity not in served:
            served[entity] = value(feature, events, entity, t)
    return served


# -- comparison


def close(a: Any, b: Any, magnitude: float) -> bool:
    """Whether two values agree: floats to 1e-9 of the magnitude, all else exactly."""
    if a is None or b is None:
        return a is b
    if isinstance(a, float) and isinstance(b, float):
        return a == b or abs(a - b) <= 1e-9 * magnitude
    return type(a) is type(b) and bool(a == b)
