"""The rows to put online: keys and values of the entities that have a value at an instant.

The events in their windows are read once and then evaluated at several instants, for as many entities at
a time as the memory limit allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import polars as pl

from mlforge.engines import POINT, Engine, evaluation
from mlforge.engines.known_values import with_known_values
from mlforge.engines.views import AsOfView, Gathered, HeldEvents, gather
from mlforge.frames import polars_schema
from mlforge.frames.shared_results import once
from mlforge.online.chunks import Rows

EVENTS_HELD = 250_000
"""About how many events to have in memory at a time."""
ENTITIES_HELD = 50_000
"""How many entities' tiles to have in memory at a time."""


@dataclass(frozen=True)
class Batch:
    """Keys and values of some entities that have a value, and how many of these had a value before.

    encoded: the rows as an online store sends them, where somebody has encoded them before.
    """

    rows: pl.DataFrame
    had: int
    encoded: Sequence[Rows] | None = None


@dataclass(frozen=True)
class EntitySubset:
    """The entities to evaluate, None for all, and about which share of all they are."""

    among: pl.DataFrame | None = None
    share: float = 1.0

    def parts(self, view: AsOfView) -> int:
        """The number of batches that the entities are to be cut into."""
        count = sum(partial.rows for partial in view.events.within(view.seen).partials)
        return max(1, -(-int(count * min(1.0, self.share)) // EVENTS_HELD))


@dataclass(frozen=True, slots=True)
class Share:
    """A share of the entities by the hash of their keys: the parts from `first` until before `end`, of so many; the same in every process."""

    first: int
    end: int
    parts: int

    def held(self, keys: Sequence[str], entities: pl.DataFrame) -> pl.DataFrame:
        """The entities of the share."""
        if (self.first, self.end) == (0, self.parts):
            return entities
        number = _number(keys, self.parts)
        return entities.filter(number.is_between(self.first, self.end, closed="left"))


def cut(
    engine: Engine,
    now: AsOfView,
    subset: EntitySubset = EntitySubset(),
    before: AsOfView | None = None,
    share: Share | None = None,
) -> Iterator[Batch]:
    """The subset's entities in disjoint batches, with their values at `now`.

    before: an earlier view, of which each batch says how many entities had a value. share: of the entities, of `subset.parts(now)`
    parts; then without a view before. Raises IntegrityError as `values_at` does.
    """
    parts = subset.parts(now)
    share = share or Share(0, parts, parts)
    if now.seen is not None and now.events.covers(now.seen):
        yield from _of_tiles(engine, now, subset, before, share)
        return
    views = [now] if before is None else [now, before]
    for number in range(share.first, share.end):
        part = _part_of(now.events.spec.entity, number, parts)
        yield evaluated(engine, gather(views, subset.among, part))


def evaluated(engine: Engine, gathered: Gathered) -> Batch:
    """The rows of entities whose events are in memory, as of the first view; the second tells which had a value.

    Those of entities whose events changed come first, and are sent first: time alone changes the others.
    """
    known = gathered.online
    if known is not None and known.engine == engine.name:
        return Batch(_changed_first(known.rows, gathered), known.had)
    events, (alive, had) = gathered.events, gathered.active_entities()
    older = events.totals and events.totals.file
    as_of = polars_schema.instant(gathered.views[0].as_of)
    points = alive.with_columns(as_of.alias(POINT))
    rows = once(
        "values",
        lambda: (type(engine), events.schema, events.spec.evaluated, older),
        lambda: alive.hstack(_values(engine, events, points)),
        *(events.frame, points),
    )
    return Batch(_changed_first(rows, gathered), had)


def _changed_first(rows: pl.DataFrame, gathered: Gathered) -> pl.DataFrame:
    """The rows with those of entities whose events changed before all others."""
    changed, keys = gathered.changed, list(gathered.views[0].events.spec.entity)
    if changed is None:
        return rows

    def ordered() -> pl.DataFrame:
        ways: tuple[Literal["semi", "anti"], ...] = ("semi", "anti")
        parts = [rows.lazy().join(changed.lazy(), on=keys, how=how) for how in ways]
        return polars_schema.in_memory(pl.concat(parts))

    return once("changed first", lambda: tuple(keys), ordered, rows, changed)


def _values(engine: Engine, events: HeldEvents, points: pl.DataFrame) -> pl.DataFrame:
    """The value columns at points, but for derived ones that depend on the instant."""
    plain = with_known_values(
        type(engine), events, points, lambda some: evaluation.plain_values(engine, some, points)
    )
    return evaluation.with_derived(events, points, plain, of_t=False)


def _of_tiles(
    engine: Engine,
    now: AsOfView,
    subset: EntitySubset,
    before: AsOfView | None,
    share: Share,
) -> Iterator[Batch]:
    """The batches of `cut` where tiles are stored, which are few enough to be read for each question."""
    had = (
        0
        if before is None
        else evaluation.active_entities(before.events, before.as_of, subset.among).height
    )
    alive = evaluation.active_entities(now.events, now.as_of, subset.among)
    alive = share.held(now.events.spec.entity, alive)
    for some in alive.iter_slices(ENTITIES_HELD) if alive.height else [alive]:
        points = some.with_columns(polars_schema.instant(now.as_of).alias(POINT))
        yield Batch(some.hstack(evaluation.values_at(engine, now.events, points, of_t=False)), had)
        had = 0


def _part_of(keys: Sequence[str], number: int, parts: int) -> pl.Expr | None:
    return None if parts == 1 else _number(keys, parts) == number


def _number(keys: Sequence[str], parts: int) -> pl.Expr:
    """The part that an entity belongs to, the same in every process that has the same release of polars and the same `hash_sample`."""
    return pl.struct(keys).hash() % parts


@cache
def hash_sample() -> str:
    """A sample of the hash by which entities belong to parts: nobody says that it is the same on every kind of processor."""
    keys = pl.DataFrame({"number": [7, -(2**40)], "text": ["", "a longer text than most keys are"]})
    numbers = (
        keys.select(_number(names, 1 << 32)).to_series()
        for names in (["number"], ["number", "text"])
    )
    return " ".join(str(number) for each in numbers for number in each)
