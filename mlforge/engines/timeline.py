"""Timelines: events and points of many entities in one frame, as kernels take them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from mlforge.compilers.base import ENTITY, ROW, TIME, value_alias
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.values import TimeRange
from mlforge.frames import polars_schema

ROW_DTYPE = pl.UInt32()


def of_events(events: pl.LazyFrame, spec: FeatureSpec) -> pl.LazyFrame:
    """Events as in a timeline: keys, TIME, and the columns that metrics aggregate."""
    assert spec.timestamp is not None
    columns = dict.fromkeys(metric.column for metric in spec.columns)
    return events.select(
        *spec.keys,
        polars_schema.microseconds(spec.timestamp).alias(TIME),
        *(pl.col(column).alias(value_alias(column)) for column in columns),
    )


def sorted_(rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Rows by entity, then time. Files are mostly read in the order of time, which a stable sort keeps."""
    if rows[TIME].is_sorted():
        return rows.sort(keys, maintain_order=True)
    return rows.sort(*keys, TIME)


def with_entities(line: pl.DataFrame, keys: Iterable[str]) -> pl.DataFrame:
    """A sorted timeline with its entities numbered."""
    return line.with_columns(_is_new(keys).cum_sum().cast(pl.UInt32).alias(ENTITY))


def numbered(line: pl.DataFrame, times: TimeRange | None) -> pl.DataFrame:
    """A timeline of events with the first row of each entity and instant numbered, within a range of time."""
    is_point = _is_new([ENTITY, TIME])
    if times is not None:
        is_point &= pl.col(TIME).is_between(times.start, times.end)
    return line.with_columns(
        pl.when(is_point).then(pl.int_range(pl.len(), dtype=ROW_DTYPE)).alias(ROW)
    )


def _is_new(columns: Iterable[str]) -> pl.Expr:
    """Whether a row differs from the one before it."""
    return pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in columns)
