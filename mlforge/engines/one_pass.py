"""A version's new rows, and those that the push behind it puts online, evaluated in one pass over events that both see, where values are exact.

To gather, sort and count what windows hold is most of what a drop costs its engine. Most entities were seen last in the drop itself:
their windows as of the push hold the events that those at their newest rows do, and kernels fold equal windows once.
"""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from mlforge.engines import evaluation
from mlforge.engines.base import POINT, Engine
from mlforge.engines.exactness import are_rounded
from mlforge.engines.function_pass import FunctionPass, new_rows
from mlforge.engines.known_values import with_known_values
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
    if are_rounded(engine, events):
        return None
    (alive, had), as_of = gathered.active_entities(), gathered.views[0].as_of
    spec = events.spec.plain

    def online() -> pl.DataFrame:
        return alive.with_columns(polars_schema.instant(as_of).alias(POINT))

    def evaluated() -> tuple[pl.DataFrame, pl.DataFrame]:
        of_function = FunctionPass.of(engine, gathered.beside) if gathered.beside else None
        known = of_function and of_function.rows_and_online(spec.columns, own, alive)
        return known or _evaluated(engine, replace(events, spec=spec), own, online())

    try:
        rows, values = once(
            "rows and online",
            lambda: (type(engine), events.content, spec.evaluated, as_of),
            evaluated,
            *(own.frame, alive),
        )
    except DataError:
        return None
    if events.spec.derived:
        plain = values[[column.name for column in spec.values(events.schema)]]
        values = alive.hstack(evaluation.with_derived(events, online(), plain, of_t=False))
    return rows, replace(gathered, online=OnlineRows(engine.name, values, had), beside=None)


def _evaluated(
    engine: Engine, events: HeldEvents, own: EntityTimes, online: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows, and the keys and values of the entities that are online at their POINT."""
    spec, [time] = events.spec, events.spec.times
    new = new_rows(events, own)
    points = pl.concat([new, online])
    values = with_known_values(
        type(engine), events, points, lambda some: engine.values(some, points)
    )
    rows = new.select(*spec.keys, pl.col(POINT).alias(time)).hstack(values.head(new.height))
    return rows, online[[*spec.entity]].hstack(values.tail(online.height))
