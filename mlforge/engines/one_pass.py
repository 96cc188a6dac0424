"""A version's new rows, and those that the push behind it puts online, evaluated in one pass over events that both see, where values are exact.

To gather, sort and count what windows hold is most of what a drop costs its engine. Most entities were seen last in the drop itself:
their windows as of the push hold the events that those at their newest rows do, and kernels fold equal windows once.
"""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.schema import FLOATS, Schema
from mlforge.engines import evaluation
from mlforge.engines.base import POINT, Engine
from mlforge.engines.known_values import with_known_values
from mlforge.engines.tiles.build import parts
from mlforge.engines.views import Gathered, OnlineRows
from mlforge.errors import DataError
from mlforge.frames import polars_schema
from mlforge.frames.entity_times import EntityTimes


def rows_and_online(
    engine: Engine, gathered: Gathered, own: EntityTimes
) -> tuple[pl.DataFrame, Gathered] | None:
    """The plain rows of some entities, each within a range of its own, and the gathered events with the rows to put online.

    gathered: all events that either sees. Rows as `Engine.rows` gives them. None where values are rounded, as their last bits would tell which
    points were evaluated together; and where a value does not fit its dtype: whoever evaluates rows of the one or the other alone tells which.
    """
    events = gathered.events
    spec, [time] = events.spec, events.spec.times
    if _are_rounded(spec, events.schema):
        return None
    alive, had = gathered.active_entities()
    identities = events.rows(spec.identity, own).select(*spec.entity, pl.col(time).alias(POINT))
    new = polars_schema.in_memory(identities.unique().sort(POINT, *spec.entity))
    as_of = polars_schema.instant(gathered.views[0].as_of)
    online = alive.with_columns(as_of.alias(POINT))
    points, plain = pl.concat([new, online]), replace(events, spec=spec.plain)
    try:
        values = with_known_values(
            type(engine), plain, points, lambda some: engine.values(some, points)
        )
    except DataError:
        return None
    rows = new.select(*spec.keys, pl.col(POINT).alias(time)).hstack(values.head(new.height))
    pushed = evaluation.with_derived(events, online, values.tail(online.height), of_t=False)
    return rows, replace(gathered, online=OnlineRows(engine.name, alive.hstack(pushed), had))


def _are_rounded(spec: FeatureSpec, events: Schema) -> bool:
    """Whether some metric adds up floats, or squares."""
    dtype_of = spec.value_dtypes(events)
    return any(
        "spread" in kinds or ("sum" in kinds and dtype_of[column] in FLOATS)
        for column, kinds in parts(spec.columns).items()
    )
