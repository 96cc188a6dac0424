"""Windows at a few points of a long timeline: each is looked up, and only its own rows are aggregated.

Rolling over a timeline evaluates a window at every event, which is quadratic in the events of a dense
entity. Here the cost is that of the windows that are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from mlforge.compilers.base import ENTITY, TIME
from mlforge.core.time_model import Window
from mlforge.engines.pairwise import Segments

_POINT, _INDEX, _FIRST, _BOUND, _BATCH = (
    "__point",
    "__index",
    "__first",
    "__bound",
    "__batch",
)
SLICED_ROWS = 65_536
"""A window of more rows is a slice of the timeline; smaller ones are gathered, many at a time."""
GATHERED_ROWS = 4_000_000


@dataclass(frozen=True)
class PointWindows:
    """The windows of some points as segments of a timeline, which is sorted by entity, then time."""

    line: pl.DataFrame
    segments: Segments

    @classmethod
    def of(cls, line: pl.DataFrame, points: pl.DataFrame, window: Window) -> PointWindows:
        """The windows of `points`: entities and times, in the order of the line, whose entities they are."""
        rows = line.select(ENTITY, TIME, pl.int_range(pl.len(), dtype=pl.Int64).alias(_INDEX))
        first = rows.group_by(ENTITY).agg(pl.col(_INDEX).min().alias(_FIRST))
        bounds = points.select(ENTITY, TIME).join(
            first, on=ENTITY, how="left", nulls_equal=True, maintain_order="left"
        )
        start = _row_after(rows, bounds, window.span.start - 1)
        end = _row_after(rows, bounds, window.span.end)
        return cls(line, Segments(start, (end - start).clip(lower_bound=0)))

    def counts(self, column: str) -> pl.Series:
        """The number of values of a column in each window, nulls left out (Int64)."""
        zero = pl.Series([0], dtype=pl.Int64)
        until = pl.concat([zero, self.line[column].is_not_null().cast(pl.Int64).cum_sum()])
        starts, lengths = self.segments.starts, self.segments.lengths
        return until.gather(starts + lengths) - until.gather(starts)

    def aggregated(self, expressions: Mapping[str, pl.Expr]) -> pl.DataFrame:
        """A row for each window and a column for each expression over its rows; null where it has no row."""
        named = [expression.alias(name) for name, expression in expressions.items()]
        windows = pl.DataFrame({"start": self.segments.starts, "length": self.segments.lengths})
        windows = windows.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias(_POINT))
        is_long = pl.col("length") > SLICED_ROWS
        answers = [
            self.line.slice(start, length).select(pl.lit(point, pl.Int64).alias(_POINT), *named)
            for start, length, point in windows.filter(is_long).iter_rows()
        ]
        short = windows.filter(pl.col("length") > 0, ~is_long)
        batch = (pl.col("length").cum_sum() // GATHERED_ROWS).alias(_BATCH)
        for some in short.with_columns(batch).partition_by(_BATCH) if short.height else ():
            end = pl.col("start") + pl.col("length")
            places = some.select(_POINT, pl.int_ranges("start", end).alias(_INDEX)).explode(_INDEX)
            rows = self.line[places[_INDEX]].with_columns(places[_POINT])
            answers.append(rows.group_by(_POINT).agg(named))
        if not answers:
            answers = [self.line.clear().select(pl.lit(0, pl.Int64).alias(_POINT), *named).clear()]
        points = windows.select(_POINT)
        return points.join(pl.concat(answers), on=_POINT, how="left", maintain_order="left").drop(
            _POINT
        )


def _row_after(rows: pl.DataFrame, bounds: pl.DataFrame, ahead: int) -> pl.Series:
    """For each point the first row of its entity that lies later than so many microseconds ahead of it."""
    bounds = bounds.with_columns((pl.col(TIME) + ahead).alias(_BOUND))
    last = bounds.join_asof(
        rows.rename({TIME: "time"}),
        left_on=_BOUND,
        right_on="time",
        by=ENTITY,
        strategy="backward",
        check_sortedness=False,
    )
    return last.select((pl.col(_INDEX) + 1).fill_null(pl.col(_FIRST))).to_series()
