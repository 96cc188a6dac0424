"""An explanation: the values of an entity at an instant, the events behind them, and both as a document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from mlforge.core.metrics import MetricColumn
from mlforge.core.time_model import Closed
from mlforge.core.values import FIRST_INSTANT, TimeRange, to_iso, to_us
from mlforge.frames.encoding import json_value
from mlforge.retrieval.lineage import FILE


@dataclass(frozen=True, slots=True)
class Bounds:
    """A window's ends in UTC microseconds; `closed` names the ends that belong to it.

    where: the boolean column that is true of all events that count.
    """

    window: str
    start: int
    end: int
    closed: Closed
    seen: TimeRange
    where: str | None = None

    @classmethod
    def of(cls, metric: MetricColumn, point: int) -> Bounds:
        """The bounds of a metric's window that is evaluated at a point."""
        window = metric.window
        ends = window.ends(point)
        label = f"{window.name} offset {window.offset}" if window.offset else window.name
        label += f" where {metric.where}" if metric.where else ""
        # No calendar goes further back, and no event lies there.
        start, end = max(ends.start, FIRST_INSTANT), max(ends.end, FIRST_INSTANT)
        return cls(label, start, end, window.closed, window.span(point), metric.where)

    def counts(self, time: int, row: Mapping[str, Any]) -> bool:
        """Whether an event of this time counts."""
        is_seen = self.seen.overlaps(TimeRange(time, time))
        return is_seen and (self.where is None or row[self.where] is True)


@dataclass(frozen=True, slots=True)
class Value:
    """A column of a feature, and the same column online.

    bounds: its window; None for a derived column and a feature without metrics. rows: how many events lie in
        it and count. expression: the text of a derived column, whose names have the values `inputs`.
    offline_then: the offline store's value for the version and instant of the online value;
        `agrees` compares the two, and is None where either is unknown.
    default: the feature's value that answers have in place of null; None where it has none.
    """

    column: str
    value: Any
    bounds: Bounds | None
    rows: int
    online: Any = None
    offline_then: Any = None
    agrees: bool | None = None
    expression: str | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    default: Any = None


@dataclass(frozen=True, slots=True)
class Served:
    """The served row and its version; `problem` says why it cannot be compared."""

    version: str | None = None
    as_of: int | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Explanation:
    """The values of an entity at an instant, and the events behind them.

    at: UTC microseconds; None for a feature without a timestamp.
    rows: the events in any of the windows, by time; without metrics the rows of the latest instant,
        of which the last counts. `__file` is the source file's path, null where the function saw the
        whole source at once.
    served: None if no online store was given. upstream: for a feature that is made from another, the explanation
        of the newest row in `rows`, where its columns tell which of the other's rows it is.
    """

    feature: str
    version: str
    entity: Mapping[str, Any]
    timestamp: str | None
    at: int | None
    values: tuple[Value, ...]
    rows: pl.DataFrame
    served: Served | None = None
    upstream: Explanation | None = None

    @property
    def agrees(self) -> bool | None:
        """Whether every online value equals the offline store's; None if unknown."""
        answers = {value.agrees for value in self.values}
        if self.served is None or self.served.problem is not None or not answers:
            return None
        return False if False in answers else None if None in answers else True

    def windows_of(self, time: int, row: Mapping[str, Any]) -> list[str]:
        """The windows in which an event at this time counts."""
        bounds = [value.bounds for value in self.values if value.bounds is not None]
        return list(dict.fromkeys(b.window for b in bounds if b.counts(time, row)))

    def to_json(self) -> dict[str, Any]:
        """The explanation as a document: instants in ISO 8601."""
        served = self.served and {
            "version": self.served.version,
            "as_of": to_iso(self.served.as_of),
            "agrees": self.agrees,
            "problem": self.served.problem,
        }
        return {
            "feature": self.feature,
            "version": self.version,
            "entity": {key: json_value(value) for key, value in self.entity.items()},
            "at": to_iso(self.at),
            "values": [_value_json(value) for value in self.values],
            "rows": [self.row_json(row) for row in self.rows.iter_rows(named=True)],
            "online": served,
            "upstream": self.upstream and self.upstream.to_json(),
        }

    def row_json(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row of `rows` as a document."""
        time = row[self.timestamp] if self.timestamp else None
        return {
            "file": row.pop(FILE),
            "windows": [] if time is None else self.windows_of(to_us(time), row),
            "values": {name: json_value(value) for name, value in row.items()},
        }


def _value_json(value: Value) -> dict[str, Any]:
    bounds = value.bounds
    derived = {
        "expression": value.expression,
        "inputs": {name: json_value(read) for name, read in value.inputs.items()},
    }
    return {
        "column": value.column,
        "value": json_value(value.value),
        "window": bounds and bounds.window,
        "start": bounds and to_iso(bounds.start),
        "end": bounds and to_iso(bounds.end),
        "closed": bounds and bounds.closed,
        "rows": value.rows,
        "online": json_value(value.online),
        "offline_then": json_value(value.offline_then),
        "agrees": value.agrees,
        **({} if value.expression is None else derived),
        **({} if value.default is None else {"default": json_value(value.default)}),
    }
