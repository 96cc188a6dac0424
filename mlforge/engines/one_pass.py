"""A version's new rows, and those that the push behind it puts online, evaluated in one pass over events that both see, where values are exact.

To gather, sort and count what windows hold is most of what a drop costs its engine. Most entities were seen last in the drop itself:
their windows as of the push hold the events that those at their newest rows do, and kernels fold equal windows once.
"""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from mlforge.core.schema import FLOATS
from mlforge.engines import evaluation
from mlforge.engines.base import POINT, Engine
from mlforge.engines.fixed_point import Extent, Scale
from mlforge.engines.known_values import with_known_values
from mlforge.engines.tiles.build import is_rounded, parts
from mlforge.engines.views import Gathered, HeldEvents, OnlineRows
from mlforge.errors import DataError
from mlforge.frames import polars_schema
from mlforge.frames.entity_times import EntityTimes
from mlforge.frames.shared_results import once


def rows_and_online(
    engine: Engine, gathered: Gathered, own: EntityTimes
) -> tuple[pl.DataFrame, Gathered] | None:
    """The plain rows of some entities, each within a range of its own, and the gathered events with the rows to put online.

    gathered: all events that either sees. Rows as `Engine.rows` gives them. None where values are rounded, as their last bits would tell which
    points were evaluated together; and where a value does not fit its dtype: whoever evaluates rows of the one or the other alone tells which.
    """
    events = gathered.events
    if _are_rounded(engine, events):
        return None
    (alive, had), as_of = gathered.active_entities(), gathered.views[0].as_of
    spec = events.spec.plain

    def online() -> pl.DataFrame:
        return alive.with_columns(polars_schema.instant(as_of).alias(POINT))

    try:
        rows, values = once(
            "rows and online",
            lambda: (type(engine), events.content, spec.evaluated, as_of),
            lambda: _evaluated(engine, replace(events, spec=spec), own, online()),
            *(own.frame, alive),
        )
    except DataError:
        return None
    if events.spec.derived:
        plain = values[[column.name for column in spec.values(events.schema)]]
        values = alive.hstack(evaluation.with_derived(events, online(), plain, of_t=False))
    return rows, replace(gathered, online=OnlineRows(engine.name, values, had))


def _evaluated(
    engine: Engine, events: HeldEvents, own: EntityTimes, online: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows, and the keys and values of the entities that are online at their POINT."""
    spec, [time] = events.spec, events.spec.times
    identities = events.rows(spec.identity, own).select(*spec.entity, pl.col(time).alias(POINT))
    new = polars_schema.in_memory(identities.unique().sort(POINT, *spec.entity))
    points = pl.concat([new, online])
    values = with_known_values(
        type(engine), events, points, lambda some: engine.values(some, points)
    )
    rows = new.select(*spec.keys, pl.col(POINT).alias(time)).hstack(values.head(new.height))
    return rows, online[[*spec.entity]].hstack(values.tail(online.height))


def _are_rounded(engine: Engine, events: HeldEvents) -> bool:
    """Whether the last bits of some value may tell with which others it was evaluated.

    Sums of floats are exact where one scale holds all that are held, added up: then one holds any of them.
    """
    spec, dtype_of = events.spec, events.spec.value_dtypes(events.schema)
    if is_rounded(spec):
        return True
    of = parts(spec.columns)
    summed = {
        metric.column
        for metric in spec.columns
        if "sum" in of[metric.value] and dtype_of[metric.value] in FLOATS
    }
    if not summed:
        return False
    if not engine.adds_up_exactly or events.totals is not None:
        return True
    columns, held = tuple(sorted(summed)), events.frame
    return not once(
        "sums are exact",
        lambda: columns,
        lambda: all(_adds_up(held, each) for each in columns),
        held,
    )


def _adds_up(held: pl.DataFrame, column: str) -> bool:
    """Whether one scale holds any sum of a column's values."""
    return Scale.exactly(Extent.of(held[column]), held.height) is not None
