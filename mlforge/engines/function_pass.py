"""Values that all features of one function ask for, at the points of any of them: evaluated in one pass, of which each feature takes its own.

Features over other windows have values of other entities that change, which see other events. What a value is does not follow from
those beside it where it is exact: so the first feature that asks has the values of all evaluated, at all of their points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import polars as pl

from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.metrics import MetricColumn
from mlforge.engines.base import POINT, Engine
from mlforge.engines.exactness import are_rounded
from mlforge.engines.views import HeldEvents, OfFunction
from mlforge.errors import DataError
from mlforge.frames import polars_schema
from mlforge.frames.entity_times import EntityTimes
from mlforge.frames.shared_results import MOST_BYTES, ByIdentity, once

_PLACE = "__place"
_VALUE_BYTES = 8


@dataclass(frozen=True)
class FunctionPass:
    """The values of a function's features.

    new: keys and POINT of the rows that may change for any of them. alive: keys of the entities with a value to put online. values: a column
    for each metric, the rows of `new` before those of `alive`.
    """

    metrics: frozenset[MetricColumn]
    spec: FeatureSpec
    new: pl.DataFrame
    alive: pl.DataFrame
    values: pl.DataFrame

    @classmethod
    def of(cls, engine: Engine, beside: OfFunction) -> Self | None:
        """The pass over some events, made once in a job; None where it is too large to be kept, and where values are rounded or do not fit their dtypes."""
        return once(
            "values of a function",
            lambda: (type(engine), ByIdentity(beside)),
            lambda: cls._made(engine, beside),
        )

    @classmethod
    def _made(cls, engine: Engine, beside: OfFunction) -> Self | None:
        gathered = beside.gathered
        events, as_of = gathered.events, polars_schema.instant(gathered.views[0].as_of)
        if are_rounded(engine, events):
            return None
        spec, (alive, _) = events.spec, gathered.active_entities()
        new = new_rows(events, beside.rows)
        points = pl.concat([new, alive.with_columns(as_of.alias(POINT))])
        if points.height * len(spec.columns) * _VALUE_BYTES > MOST_BYTES:
            return None
        try:
            values = engine.values(events, points)
        except DataError:  # of a feature that is to be told of it in its own turn
            return None
        return cls(frozenset(spec.columns), spec, new, alive, values)

    def estimated_size(self) -> int:
        """The bytes that it takes."""
        return sum(int(frame.estimated_size()) for frame in (self.new, self.alive, self.values))

    def rows_and_online(
        self, metrics: Sequence[MetricColumn], own: EntityTimes, alive: pl.DataFrame
    ) -> tuple[pl.DataFrame, pl.DataFrame] | None:
        """The rows of a feature within some entities' own times, and the keys and values of some entities; None where it lacks a metric."""
        if not self.metrics.issuperset(metrics):
            return None
        names = [metric.name for metric in metrics]
        [time] = self.spec.times

        def places_of_new() -> pl.Series:
            return own.places(self.new, pl.col(POINT).to_physical())

        def places_of_alive() -> pl.Series:
            keys = list(self.spec.entity)
            known = self.alive.lazy().with_row_index(_PLACE, self.new.height)
            found = alive.lazy().join(known, on=keys, how="left", maintain_order="left")
            return polars_schema.in_memory(found.select(_PLACE)).to_series()

        key = ByIdentity(self)
        new = once("places of new rows", lambda: key, places_of_new, own.frame)
        online = once("places of rows online", lambda: key, places_of_alive, alive)
        assert not online.has_nulls(), (
            "each entity that is affected through windows of one feature is so through those of all"
        )
        keys = self.new[new].select(*self.spec.keys, pl.col(POINT).alias(time))
        return keys.hstack(self.values[new, names]), alive.hstack(self.values[online, names])


def new_rows(events: HeldEvents, own: EntityTimes) -> pl.DataFrame:
    """Keys and POINT of the rows within some entities' own times, by POINT, then keys."""
    spec = events.spec
    [time] = spec.times
    identities = events.rows(spec.identity, own).select(*spec.entity, pl.col(time).alias(POINT))
    return polars_schema.in_memory(identities.unique().sort(POINT, *spec.entity))
