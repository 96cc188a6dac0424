"""Held values: what totals keep for aggregations that no single value of an entity stands for.

Of an entity's older values these are the distinct ones, by how often they occur; those around a rank; or the first and the
last. Of them those that newer events leave possible stand in a timeline before these, each with a weight. All is exact: an
entity that has too many values, or too many newer events for those around a rank, is evaluated by its events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import polars as pl

from mlforge.compilers.base import TIME, value_alias
from mlforge.core.aggregation_kinds import KINDS
from mlforge.core.aggregations import aggregation
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.metrics import MetricColumn
from mlforge.engines.tiles.build import part_alias, part_name

MOST_HELD = 10_000
"""The most values of a column that are held for an entity."""
GAIN, EVENTS = 4, 32
"""How many events each value held must stand for, and how many an entity must have, on average, for holding to pay."""
SPARE = 16
"""For so many newer events of an entity at least the values around a rank suffice."""
REACH = "__reach"
"""For how many newer events of an entity its held values suffice: null for any number, -1 for none."""
WEIGHT = "__weight"
Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)
_VALUE, _UNTIL, _MANY, _ENTITY = "__value", "__until", "__many", "__entity_row"
FIELDS = (_VALUE, _UNTIL, WEIGHT)
"""The fields of what is held, beside keys of any name."""


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a value column that is held. numbers: the shares of values for ranks, else the greatest K."""

    column: str
    kind: str
    numbers: tuple[float, ...] = ()

    @property
    def alias(self) -> str:
        """The column of lists in totals, and of values in a timeline."""
        return part_alias(self.column, self.kind)

    def metric(self, metric: MetricColumn) -> MetricColumn:
        """The aggregate over the part that gives a metric."""
        return MetricColumn(part_name(self.column, self.kind), metric.aggregation, metric.window)


def kept(metric: MetricColumn) -> str:
    """The kind of part that a metric needs; empty where it needs none, or none would do."""
    return aggregation(metric.aggregation).kind.kept


def can_hold(dtype: str) -> bool:
    """Whether values of a dtype are held; nested ones are not."""
    return KINDS["min"].dtype(dtype) is not None


def held_parts(metrics: Iterable[MetricColumn]) -> tuple[Part, ...]:
    """The parts that metrics need, in an order of their own."""
    numbers: dict[tuple[str, str], set[float]] = {}
    for metric in metrics:
        if kind := kept(metric):
            parameter = aggregation(metric.aggregation).parameter
            nothing = 0.5 if kind == "ranks" else 1
            number = float(nothing if parameter is None else parameter)
            numbers.setdefault((metric.value, kind), set()).add(number)
    return tuple(
        Part(column, kind, tuple(sorted(some)) if kind == "ranks" else (max(some),))
        for (column, kind), some in sorted(numbers.items())
    )


def with_held(
    totals: pl.DataFrame,
    shares: Iterable[pl.DataFrame],
    parts: Sequence[Part],
    recent: pl.DataFrame,
    events: int,
    spec: FeatureSpec,
) -> tuple[pl.DataFrame, list[Part]]:
    """Totals, a row for each entity, with the lists of what is held, and REACH; and the parts for which that pays.

    shares: all events of some entities, then of others, each as in a timeline. recent: entities, and in REACH about how many newer
    events each will have. events: how many there are in all.
    """
    keys = list(spec.entity)
    reaches = totals.select(keys).join(recent, on=keys, how="left", maintain_order="left")
    reaches = reaches.with_columns(pl.col(REACH).fill_null(0) + SPARE)
    lists = _paying(shares, parts, reaches, events, spec)
    if not lists:
        return totals, []
    limits, frame = [], totals.with_columns(reaches[REACH])
    for number, (part, listed) in enumerate(lists.items()):
        if part.kind == "ranks":
            limits.append(pl.col(REACH))
        many = f"{_MANY}_{number}"
        numbered = listed.rename({_MANY: many})
        frame = frame.join(numbered, on=keys, how="left", maintain_order="left")
        limits.append(pl.when(pl.col(many) > MOST_HELD).then(-1))
    reach = pl.min_horizontal(limits).cast(pl.Int64).alias(REACH)
    lists_held = (part.alias for part in lists)
    return frame.with_columns(reach).select(*totals.columns, REACH, *lists_held), list(lists)


def _paying(
    shares: Iterable[pl.DataFrame],
    parts: Sequence[Part],
    reaches: pl.DataFrame,
    events: int,
    spec: FeatureSpec,
) -> dict[Part, pl.DataFrame]:
    """For each part that pays a row an entity: the list of what is held, null of too many values, and their number in _MANY."""
    lists: dict[Part, list[pl.DataFrame]] = {part: [] for part in parts}
    heights = dict.fromkeys(parts, 0)
    for share in shares:
        for part in tuple(lists):
            rows = _in_order(_of_events(share, part, spec), reaches, part, spec)
            heights[part] += rows.height
            if heights[part] * GAIN > events:
                del lists[part]
            else:
                lists[part].append(_as_lists(rows, part, spec))
        if not lists:
            break
    return {part: pl.concat(several) for part, several in lists.items() if several}


def _as_lists(rows: pl.DataFrame, part: Part, spec: FeatureSpec) -> pl.DataFrame:
    """A part's rows as a list for each entity."""
    keys = list(spec.entity)
    fields = [name for name in rows.columns if name not in keys]
    lists = rows.group_by(keys, maintain_order=True).agg(
        pl.struct(fields).alias(part.alias), pl.len().alias(_MANY)
    )
    few = pl.when(pl.col(_MANY) <= MOST_HELD).then(pl.col(part.alias)).alias(part.alias)
    return lists.with_columns(few)


def held_rows(
    totals: pl.DataFrame, newer: pl.DataFrame, parts: Sequence[Part], spec: FeatureSpec
) -> Iterator[pl.DataFrame]:
    """Rows of a timeline that stand for what is held beside newer events: keys, TIME, a part's values, WEIGHT.

    newer: as `as_held` gives them. totals: with the number of each entity's newer events in REACH.
    """
    keys = list(spec.entity)
    for part in parts:
        later = newer.select(*keys, pl.col(part.alias).alias(_VALUE)).unique()
        rows = _LEFT[part.kind](totals.with_row_index(_ENTITY), later, part, spec)
        yield rows.select(*keys, TIME, pl.col(_VALUE).alias(part.alias), WEIGHT)


def as_held(events: pl.DataFrame, parts: Sequence[Part], spec: FeatureSpec) -> pl.DataFrame:
    """Events, as in a timeline, in the shape of held rows."""
    values = (_one_form(events[value_alias(part.column)]).alias(part.alias) for part in parts)
    return events.select(*spec.entity, TIME, *values, pl.lit(1, pl.Int64).alias(WEIGHT))


def _one_form(values: pl.Series) -> pl.Series:
    """The values, of equal ones one form: -0.0 becomes 0.0."""
    return values.set(values == 0.0, 0.0) if values.dtype.is_float() else values


def _of_events(events: pl.DataFrame, part: Part, spec: FeatureSpec) -> pl.DataFrame:
    """A part's rows of some events: its values with TIME for the ends, with WEIGHT for others."""
    values = _one_form(events[value_alias(part.column)])
    rows = events.select(*spec.entity, TIME, values.alias(_VALUE)).drop_nulls(_VALUE)
    if part.kind == "ends":
        return _ends(rows, part, spec)
    return rows.group_by(*spec.entity, _VALUE).agg(pl.len().cast(pl.Int64).alias(WEIGHT))


def _ends(rows: pl.DataFrame, part: Part, spec: FeatureSpec) -> pl.DataFrame:
    """An entity's first and last rows, so many of each at least."""
    keys = list(spec.entity)
    return ends(rows.sort(*keys, TIME), int(part.numbers[0]), keys)


def ends(rows: Frame, most: int, by: list[str]) -> Frame:
    """The first and last rows of each group, so many of each at least: of one instant all or none. rows: in the order of time."""
    time, place = pl.col(TIME), pl.int_range(pl.len())
    until, since = time.filter(place < most).max(), time.filter(place >= pl.len() - most).min()
    return rows.filter(((time <= until) | (time >= since)).over(by))


def _in_order(
    rows: pl.DataFrame, reaches: pl.DataFrame, part: Part, spec: FeatureSpec
) -> pl.DataFrame:
    """A part's rows as they are stored, entity by entity: the most frequent first, or around ranks."""
    keys = list(spec.entity)
    match part.kind:
        case "distinct":
            return rows.select(*keys, _VALUE)
        case "counts":
            return rows.sort(*keys, pl.col(WEIGHT).neg(), _VALUE)
        case "ranks":
            until = pl.col(WEIGHT).cum_sum().over(keys).alias(_UNTIL)
            rows = rows.sort(*keys, _VALUE).with_columns(until)
            rows = rows.with_columns(pl.col(WEIGHT).sum().over(keys).alias(_MANY))
            rows = rows.join(reaches, on=keys, how="left", maintain_order="left")
            return _around_ranks(rows, part, keys).select(*keys, _VALUE, WEIGHT, _UNTIL)
    return rows


def _around_ranks(rows: pl.DataFrame, part: Part, by: list[str]) -> pl.DataFrame:
    """An entity's values so near to the ranks that REACH newer events may make them those of percentiles.

    The others count with the next that stays, so that each keeps its rank: with so many newer events a percentile's rank moves
    by no more, and lies between two values.
    """
    near, target = pl.col(REACH) + 3, pl.col(_MANY) - 1
    is_near = (
        (pl.col(_UNTIL) - 1 >= target * share - near)
        & (pl.col(_UNTIL) - pl.col(WEIGHT) <= target * share + near)
        for share in part.numbers
    )
    rows = rows.filter(pl.any_horizontal(pl.col(_UNTIL) == pl.col(_MANY), *is_near))
    weight = pl.col(_UNTIL) - pl.col(_UNTIL).shift().over(by).fill_null(0)
    return rows.with_columns(weight.alias(WEIGHT))


def _listed(totals: pl.DataFrame, part: Part, most: int | None = None) -> pl.DataFrame:
    """A row for each of the values that are held, or for the first of each entity."""
    lists = pl.col(part.alias) if most is None else pl.col(part.alias).list.head(most)
    rows = totals.with_columns(lists).explode(part.alias)
    return rows.filter(pl.col(part.alias).is_not_null()).unnest(part.alias)


def _ends_left(
    totals: pl.DataFrame, _: pl.DataFrame, part: Part, spec: FeatureSpec
) -> pl.DataFrame:
    rows = _listed(totals.select(*spec.entity, part.alias), part)
    return rows.with_columns(pl.lit(1, pl.Int64).alias(WEIGHT))


def _ranks_left(
    totals: pl.DataFrame, _: pl.DataFrame, part: Part, spec: FeatureSpec
) -> pl.DataFrame:
    many = pl.col(part.alias).list.last().struct.field(_UNTIL).alias(_MANY)
    rows = totals.select(_ENTITY, *spec.entity, TIME, REACH, many, part.alias)
    return _around_ranks(_listed(rows, part), part, [_ENTITY])


def _counts_left(
    totals: pl.DataFrame, later: pl.DataFrame, part: Part, spec: FeatureSpec
) -> pl.DataFrame:
    """The most frequent values, and those that come again."""
    known = totals.select(*spec.entity, TIME, part.alias)
    frequent = _listed(known, part, int(part.numbers[0]))
    again = _listed(known, part).join(later, on=[*spec.entity, _VALUE], how="semi")
    return pl.concat([frequent, again]).unique([*spec.entity, _VALUE])


def _distinct_left(
    totals: pl.DataFrame, later: pl.DataFrame, part: Part, spec: FeatureSpec
) -> pl.DataFrame:
    """The values that come again, and one of the others that stands for all of them."""
    keys = list(spec.entity)
    rows = _listed(totals.select(_ENTITY, *keys, TIME, part.alias), part)
    later = later.with_columns(pl.lit(1, pl.Int64).alias(WEIGHT))
    rows = rows.join(later, on=[*keys, _VALUE], how="left")
    again = pl.col(WEIGHT).is_not_null()
    others = (
        rows.filter(~again)
        .group_by(_ENTITY)
        .agg(
            *(pl.col(name).first() for name in (*keys, TIME, _VALUE)),
            pl.len().cast(pl.Int64).alias(WEIGHT),
        )
    )
    return pl.concat([rows.filter(again), others.select(rows.columns)])


_LEFT: Mapping[str, Callable[[pl.DataFrame, pl.DataFrame, Part, FeatureSpec], pl.DataFrame]] = {
    "ends": _ends_left,
    "ranks": _ranks_left,
    "counts": _counts_left,
    "distinct": _distinct_left,
}
"""By the kind of part: what of the totals is left to count beside newer values."""
