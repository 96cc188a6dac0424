"""Timelines: events and points of many entities in one frame, as kernels take them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from mlforge.compilers.base import ENTITY, ROW, TIME, value_alias
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.metrics import MetricColumn
from mlforge.frames import polars_schema

ROW_DTYPE = pl.UInt32()


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
