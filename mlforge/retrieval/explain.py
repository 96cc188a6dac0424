"""Why a value is what it is: its window, the rows in it, their files, and what is online."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
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
from mlforge.core.values import (
    PRECISION,
    from_us,
)
from mlforge.engines import POINT, engine_named, evaluation
from mlforge.engines.events import events_of
from mlforge.errors import OnlineError, RetrievalError, StoreError
from mlforge.frames import polars_schema
from mlforge.frames.keys import entity_key
from mlforge.online import OnlineStore
from mlforge.online.finishing import finished
from mlforge.retrieval import lineage
from mlforge.retrieval.explanation import Bounds, Explanation, Served, Value
from mlforge.retrieval.references import check_store, parse_instant
from mlforge.services.completion import held_defaults
from mlforge.sources.damage import DAMAGE
from mlforge.store import Store


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
    check_store(store, Store, "LocalStore('feature_store')")
    if online is not None:
        check_store(online, OnlineStore, "RedisStore(host='localhost')")
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
        values=tuple(_with_defaults(store, evaluated)),
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
        # A power overflows with an error.
        return math.prod([inside] * degree) if isinstance(inside, float) else 0.0

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


def _with_defaults(store: Store, evaluated: _Evaluated) -> Iterator[Value]:
    """Each value explained, with the default that answers have in place of null."""
    manifest = evaluated.manifest
    columns = dtypes(manifest.spec.values(manifest.events))
    defaults = held_defaults(store.books(manifest.name).defaults, columns)
    for name in evaluated.values:
        yield replace(evaluated.explained(name), default=defaults.get(name))


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
    except DAMAGE:
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
