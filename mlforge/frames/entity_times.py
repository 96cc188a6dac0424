"""Ranges of time of entities, each its own: a late event of one entity touches no row of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from mlforge.core import time_model
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.values import TimeRange
from mlforge.frames import polars_schema
from mlforge.frames.shared_results import once

FIRST, LAST = "__first", "__last"
_TIME, _PLACE, _SHARE = "__time", "__place", "__share"


@dataclass(frozen=True)
class EntityTimes:
    """Some entities, each with a range of time.

    frame: a row for each entity: the key columns, and FIRST and LAST, UTC microseconds (Int64), both included. Without these two
    where events have no time.
    """

    frame: pl.DataFrame

    @classmethod
    def of(cls, events: pl.DataFrame, spec: FeatureSpec) -> EntityTimes:
        """The entities of some events, each with the range of its events' times."""
        if spec.timestamp is None:
            return cls(events.select(spec.entity).unique())
        time = polars_schema.microseconds(spec.timestamp)
        ends = (time.min().alias(FIRST), time.max().alias(LAST))
        return cls(events.group_by(spec.entity).agg(ends))

    @cached_property
    def entities(self) -> pl.DataFrame:
        """The key columns."""
        return self.frame[[name for name in self.frame.columns if name not in (FIRST, LAST)]]

    @cached_property
    def hull(self) -> TimeRange | None:
        """The least range that covers all of theirs; None where there is none."""
        if FIRST not in self.frame.columns or self.frame.is_empty():
            return None
        return TimeRange(int(self.frame[FIRST].min()), int(self.frame[LAST].max()))  # type: ignore[arg-type]

    def moved(self, first: Sequence[pl.Series], last: Sequence[pl.Series]) -> EntityTimes:
        """The entities with ranges from the least of some instants beside them to the greatest of others.

        Columns of instants, not expressions: those of a calendar use each step several times, and as an expression is a
        tree, the first instant of the year after some year's end would be one of a hundred thousand nodes.
        """
        ends = (pl.min_horizontal(first).alias(FIRST), pl.max_horizontal(last).alias(LAST))
        return EntityTimes(self.frame.with_columns(ends))

    def touched(self, spec: FeatureSpec) -> EntityTimes:
        """The rows of a feature that may change, appear or vanish with these events, for each entity from its own events."""
        if self.hull is None or not spec.columns:
            return self

        def rows() -> pl.DataFrame:
            first, last = self.frame[FIRST], self.frame[LAST]
            return self.moved(
                *time_model.touched_ends(first, last, spec.windows, spec.interval)
            ).frame

        return EntityTimes(
            once("touched rows", lambda: (spec.windows, spec.interval), rows, self.frame)
        )

    def within(self, times: TimeRange) -> EntityTimes:
        """The parts of the ranges that lie in another; without the entities that have none there."""
        ends = pl.col(FIRST).clip(lower_bound=times.start), pl.col(LAST).clip(upper_bound=times.end)
        return EntityTimes(self.frame.with_columns(ends).filter(pl.col(FIRST) <= pl.col(LAST)))

    def beside(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """The rows of these entities, with FIRST and LAST, in their order."""
        keys = self.entities.columns
        return rows.join(self.frame.lazy(), on=keys, how="inner", maintain_order="left")

    def rows(self, rows: pl.LazyFrame, time: pl.Expr) -> pl.LazyFrame:
        """The rows whose time, in UTC microseconds, lies in their entity's range, in their order."""
        return self.beside(rows).filter(time.is_between(FIRST, LAST)).drop(FIRST, LAST)

    def places(self, rows: pl.DataFrame, time: pl.Expr) -> pl.Series:
        """The places of the rows whose time lies in their entity's range, ascending (UInt32)."""
        keys = self.entities.columns
        narrow = rows.lazy().select(*keys, time.alias(_TIME)).with_row_index(_PLACE)
        inside = narrow.join(self.frame.lazy(), on=keys).filter(
            pl.col(_TIME).is_between(FIRST, LAST)
        )
        return inside.select(pl.col(_PLACE).sort()).collect().to_series()


def entities_and_hull(
    within: TimeRange | EntityTimes | None,
) -> tuple[pl.DataFrame | None, TimeRange | None]:
    """Keys of the entities, None for all, and the least range that covers their times, None for all of time."""
    if isinstance(within, EntityTimes):
        return within.entities, within.hull
    return None, within


def part_within(
    within: TimeRange | EntityTimes, times: TimeRange
) -> TimeRange | EntityTimes | None:
    """The part of a range, or of each entity's, that lies in another range; None where nothing does."""
    if isinstance(within, EntityTimes):
        part = within.within(times)
        return None if part.frame.is_empty() else part
    start, end = max(within.start, times.start), min(within.end, times.end)
    return TimeRange(start, end) if start <= end else None


def in_shares(entities: pl.DataFrame, many: str, most: int) -> list[pl.DataFrame]:
    """Entities in shares of about `most` events each, in their order; many: the column that tells how many events each has."""
    share = ((pl.col(many).cum_sum() - 1) // max(1, most)).alias(_SHARE)
    return entities.with_columns(share).partition_by(_SHARE, maintain_order=True, include_key=False)
