"""Timelines: events and points of many entities in one frame, as kernels take them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from mlforge.compilers.base import ENTITY, ROW, TIME, value_alias
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.metrics import MetricColumn
from mlforge.frames import polars_schema

ROW_DTYPE = pl.UInt32()
_PLACES = 1 << 32  # a frame has fewer rows
_MOST_NUMBERS = 1 << 31  # so that a number and a place fit into 63 bits


def of_events(events: pl.LazyFrame, spec: FeatureSpec) -> pl.LazyFrame:
    """Events as in a timeline: keys, TIME, and the values that metrics aggregate, null where they do not count."""
    assert spec.timestamp is not None
    values = {metric.value: _values_of(metric) for metric in spec.columns}
    return events.select(
        *spec.entity,
        polars_schema.microseconds(spec.timestamp).alias(TIME),
        *(values_of.alias(value_alias(name)) for name, values_of in values.items()),
    )


def _values_of(metric: MetricColumn) -> pl.Expr:
    values = pl.col(metric.column)
    # A condition that is null throughout has no dtype of its own.
    counts = None if metric.where is None else pl.col(metric.where).cast(pl.Boolean)
    return values if counts is None else pl.when(counts).then(values)


def sorted_(rows: pl.DataFrame, keys: Sequence[str]) -> pl.LazyFrame:
    """Rows by entity, then time. Files are mostly read in the order of time, which a stable sort keeps."""
    if rows[TIME].is_sorted():
        return rows.lazy().sort(keys, maintain_order=True)
    return rows.lazy().sort(*keys, TIME)


def with_numbers(rows: pl.LazyFrame, entities: pl.DataFrame) -> pl.LazyFrame:
    """Rows of these entities alone in their order, with ENTITY in the place of the keys; a null key may be an entity's, too."""
    keys = entities.columns
    if (distance := _distance(entities)) is not None:
        return rows.with_columns(distance.alias(ENTITY)).drop(keys)
    place = pl.int_range(pl.len(), dtype=pl.UInt32).alias(ENTITY)
    numbers = entities.lazy().with_columns(place)
    return rows.join(numbers, on=keys, nulls_equal=True, maintain_order="left").drop(keys)


def _distance(entities: pl.DataFrame) -> pl.Expr | None:
    """How far a row's key lies from the least, which numbers entities without a join; None for keys that are no integers near each other."""
    key, *others = entities.columns
    if others or not entities[key].dtype.is_integer():
        return None
    least, greatest = entities[key].min(), entities[key].max()
    if not isinstance(least, int) or not isinstance(greatest, int) or greatest >= 1 << 63:
        return None
    if greatest - least + 1 >= _MOST_NUMBERS:
        return None
    distance = (pl.col(key).cast(pl.Int64) - least).fill_null(greatest - least + 1)
    return distance.cast(pl.UInt32)


def by_entity(rows: pl.DataFrame) -> pl.DataFrame:
    """Numbered rows by entity, then time; of one instant in their order. They mostly come in the order of time."""
    if not rows[TIME].is_sorted():
        rows = rows.sort(TIME, maintain_order=True)
    return by_number(rows, ENTITY)


def by_number(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """Rows by a UInt32 column without nulls; those of one number in their order.

    Each row is one integer, of its number and its place: to sort these takes half of what it takes to sort by the column.
    """
    places = pl.int_range(rows.height, eager=True)
    numbers = (rows[name].cast(pl.Int64) * _PLACES + places).sort()  # of columns: no plan is run
    return rows.rechunk()[(numbers & (_PLACES - 1)).cast(pl.UInt32)]


def extremes(rows: pl.DataFrame) -> tuple[int, ...]:
    """The least and the greatest TIME of some rows; nothing where there is none."""
    least, greatest = rows[TIME].min(), rows[TIME].max()
    return (least, greatest) if isinstance(least, int) and isinstance(greatest, int) else ()


def with_entities(line: pl.LazyFrame, keys: Iterable[str]) -> pl.LazyFrame:
    """A sorted timeline with its entities numbered."""
    return line.with_columns(_is_new(keys).cum_sum().cast(pl.UInt32).alias(ENTITY))


def numbered(line: pl.LazyFrame, inside: pl.Expr | None) -> pl.LazyFrame:
    """A timeline of events with the first row of each entity and instant numbered; inside: of which instants, None for all."""
    is_point = _is_new([ENTITY, TIME])
    if inside is not None:
        is_point &= inside
    return line.with_columns(
        pl.when(is_point).then(pl.int_range(pl.len(), dtype=ROW_DTYPE)).alias(ROW)
    )


def _is_new(columns: Iterable[str]) -> pl.Expr:
    """Whether a row differs from the one before it."""
    return pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in columns)
