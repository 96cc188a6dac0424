"""Why a value is what it is: its window, the rows in it, their files, and what is online."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import cached_property
from typing import Any

import polars as pl

from mlforge.core import clock, time_model
from mlforge.core.aggregations import aggregation
from mlforge.core.expression.columns import RowDerivation, TypedColumn
from mlforge.core.expression.parser import T
from mlforge.core.manifest import Manifest
from mlforge.core.metrics import MetricColumn
from mlforge.core.schema import dtypes
from mlforge.core.signatures import named_arguments
from mlforge.core.time_model import Closed
from mlforge.core.values import (
    FIRST_INSTANT,
    PRECISION,
    TimeRange,
    from_us,
    to_iso,
    to_us,
)
from mlforge.engines import POINT, engine_named, evaluation
from mlforge.engines.events import events_of
from mlforge.errors import OnlineError, RetrievalError, StoreError
from mlforge.frames import polars_schema
from mlforge.frames.encoding import entity_key, json_value
from mlforge.online import OnlineStore
from mlforge.online.finishing import finished
from mlforge.retrieval import lineage
from mlforge.retrieval.lineage import FILE
from mlforge.retrieval.references import parse_instant
from mlforge.store import Store


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


@named_arguments("explain")
def explain(
    feature: str,
    entity: Mapping[str, object],
    store: Store,
    at: datetime | date | str | int | None = None,
    version: str | None = None,
    online: OnlineStore | None = None,
) -> Explanation:
    """Explain an entity's values: from which events of which files they come, and what is online.

    at: a datetime or date (naive is UTC), its ISO 8601 text, or UTC microseconds; by default the instant
        that online values would have now. version: by default the served one.
    online: where to look up the online values; one that does not answer is noted, not raised.

    Only the store is needed, no definitions. Raises StoreError for an unknown feature or version,
    RetrievalError for wrong keys or an `at` that is no instant.
    """
    manifest = store.resolve(feature, version)
    key_values = entity_key(
        entity, tuple(c for c in manifest.events if c.name in manifest.spec.keys)
    )
    evaluated = _evaluated(store, manifest, key_values, _instant(at, manifest))
    explanation = Explanation(
        feature=manifest.name,
        version=str(manifest.version),
        entity=key_values,
        timestamp=manifest.spec.timestamp,
        at=evaluated.at,
        values=tuple(evaluated.explained(name) for name in evaluated.values),
        rows=evaluated.rows,
        upstream=_upstream(store, evaluated, key_values),
    )
    return explanation if online is None else _compared(explanation, evaluated, store, online)


@dataclass(frozen=True)
class _Evaluated:
    """A version's values for an entity at an instant, and the rows behind them."""

    manifest: Manifest
    entity: Mapping[str, Any]
    at: int | None
    values: Mapping[str, Any]
    rows: pl.DataFrame

    def explained(self, column: str) -> Value:
        """A metric's value with its window, a derived one with its inputs."""
        value, derived = self.values[column], self._derived.get(column)
        if derived is not None:
            known = {**self.entity, **self.values, T: None if self.at is None else from_us(self.at)}
            inputs = {name: known[name] for name in derived.inputs}
            return Value(
                column, value, None, self.rows.height, expression=derived.expression, inputs=inputs
            )
        if not self.manifest.spec.columns:
            return Value(column, value, None, self.rows.height)
        bounds = self._bounds(self._metric(column))
        return Value(column, value, bounds, self._within(bounds).height)

    def agrees(self, column: str, online: Mapping[str, Any]) -> bool:
        """Whether an online value is this one, up to the order in which floats were added.

        A derived one is right if it follows from the online values that it reads.
        """
        if column in self._derived:
            columns, spec = tuple(self._derived.values()), self.manifest.spec
            derive = RowDerivation(columns, spec.readable(self.manifest.events), [column])
            return bool(derive({**self.entity, **online}, self.at)[column] == online[column])
        return self._agrees(column, online[column])

    @cached_property
    def _derived(self) -> dict[str, TypedColumn]:
        return {c.name: c for c in self.manifest.spec.derivation(self.manifest.events)}

    def _agrees(self, column: str, online: Any) -> bool:
        value = self.values[column]
        if not (isinstance(value, float) and isinstance(online, float)):
            return bool(value == online)
        return abs(value - online) <= PRECISION * max(abs(value), self._magnitude(column))

    def _magnitude(self, column: str) -> float:
        if not self.manifest.spec.columns:
            return 0.0
        metric = self._metric(column)
        inside = self._within(self._bounds(metric))[metric.column].cast(pl.Float64).abs().max()
        degree = aggregation(metric.aggregation).kind.degree
        return inside**degree if isinstance(inside, float) else 0.0

    def _metric(self, column: str) -> MetricColumn:
        return next(m for m in self.manifest.spec.columns if m.name == column)

    def _bounds(self, metric: MetricColumn) -> Bounds:
        assert self.at is not None
        return Bounds.of(metric, time_model.point(self.at, self.manifest.spec.interval))

    def _within(self, bounds: Bounds) -> pl.DataFrame:
        time = polars_schema.microseconds(str(self.manifest.spec.timestamp))
        inside = time.is_between(bounds.seen.start, bounds.seen.end)
        if bounds.where is not None:
            inside &= pl.col(bounds.where).cast(pl.Boolean)
        return self.rows.filter(inside)


def _upstream(store: Store, evaluated: _Evaluated, entity: Mapping[str, Any]) -> Explanation | None:
    """The explanation of the newest row's own values in the version that it was made from, while that is stored."""
    above = _manifest_above(store, evaluated.manifest)
    if above is None or evaluated.rows.is_empty():
        return None
    row = {**evaluated.rows.tail(1).row(0, named=True), **entity}
    if not set(above.spec.identity) <= row.keys():
        return None
    is_it = [pl.col(name) == row[name] for name in above.spec.identity]
    same = store.scan_table(above).filter(pl.all_horizontal(pl.lit(True), *is_it))
    try:
        if same.head(1).collect().is_empty():
            return None  # the function has made other keys or times of it
    except (pl.exceptions.PolarsError, OSError):
        return None  # or values of other types; or the table is damaged
    keys = {key: row[key] for key in above.spec.keys}
    at = None if above.spec.timestamp is None else row[above.spec.timestamp]
    return explain(above.name, keys, store, at, str(above.version))


def _manifest_above(store: Store, manifest: Manifest) -> Manifest | None:
    """The version of another feature that a version was made from; None where there is none, or it is gone."""
    if manifest.upstream is None:
        return None
    try:
        return store.manifest(*manifest.upstream)
    except StoreError:
        return None


def _compared(
    explanation: Explanation, evaluated: _Evaluated, store: Store, online: OnlineStore
) -> Explanation:
    """The explanation with the online values beside its own."""
    name, entity = explanation.feature, explanation.entity
    try:
        [(books, [row])] = online.fetch([(name, [entity])])
    except OnlineError as error:
        return replace(explanation, served=Served(problem=str(error)))
    if books is None or books.target is None:
        return replace(explanation, served=Served(problem="not served: it was never pushed"))
    served = Served(books.target.version, books.target.as_of)
    instant = 0 if books.target.as_of is None else books.target.as_of
    [values] = finished(name, books, [row], [entity], instant)
    try:
        then = _then(store, evaluated, served, entity)
    except (StoreError, RetrievalError) as error:
        return replace(explanation, served=replace(served, problem=str(error)))
    compared = tuple(
        replace(
            value,
            online=values[value.column],
            offline_then=then.values[value.column],
            agrees=then.agrees(value.column, values),
        )
        if value.column in then.values and value.column in values
        else value
        for value in explanation.values
    )
    return replace(explanation, values=compared, served=served)


def _then(
    store: Store, evaluated: _Evaluated, served: Served, entity: Mapping[str, Any]
) -> _Evaluated:
    """The offline values for the version and instant that are online."""
    if (served.version, served.as_of) == (str(evaluated.manifest.version), evaluated.at):
        return evaluated
    manifest = store.resolve(evaluated.manifest.name, served.version)
    if set(manifest.spec.keys) != set(entity):
        raise RetrievalError(f"online is version {served.version}, which has other keys")
    return _evaluated(store, manifest, entity, served.as_of)


def _evaluated(
    store: Store, manifest: Manifest, entity: Mapping[str, Any], at: int | None
) -> _Evaluated:
    spec, event_dtypes = manifest.spec, dtypes(manifest.events)
    keys = pl.DataFrame(
        pl.Series(
            key, [entity[key]], dtype=polars_schema.to_polars(event_dtypes[key]), strict=False
        )
        for key in spec.keys
    )
    keys = polars_schema.with_entities(keys if spec.keys else pl.DataFrame(height=1), spec)
    points = keys.with_columns(polars_schema.instant(at).alias(POINT))
    events = events_of(store, manifest)
    values = evaluation.values_at(engine_named("polars"), events, points)
    row = next(values.iter_rows(named=True), {})
    above = _manifest_above(store, manifest)
    also = above.spec.identity if above else ()
    rows = lineage.rows(store, manifest, keys, at, also)
    return _Evaluated(manifest, entity, at, row, rows)


def _instant(at: datetime | date | str | int | None, manifest: Manifest) -> int | None:
    spec = manifest.spec
    if spec.timestamp is None:
        if at is None:
            return None
        raise RetrievalError(
            f"{manifest.name} has no timestamp: its values have no time; leave out at"
        )
    if at is None:
        now = clock.now()
        as_of = manifest.as_of(now)
        return now if as_of is None else as_of
    return parse_instant(at)


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
    }
