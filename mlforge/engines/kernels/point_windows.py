"""Windows at a few points of a long timeline: each is looked up, and only its own rows are aggregated.

Rolling over a timeline evaluates a window at every event, which is quadratic in the events of a dense
entity. Here the cost is that of the windows that are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import polars as pl

from mlforge.compilers.base import ENTITY, ROW, TIME
from mlforge.core.time_model import Window
from mlforge.engines.kernels.pairwise import Segments

_POINT, _INDEX, _BATCH = "__point", "__index", "__batch"
SLICED_ROWS = 65_536
"""A window of more rows is a slice of the timeline; smaller ones are gathered, many at a time."""
GATHERED_ROWS = 4_000_000
_PLACES = 1_000_000
"""About how many windows are looked up in one go."""


@dataclass(frozen=True)
class TimelineIndex:
    """A timeline, sorted by entity, then time, whose rows are looked up by both; shared by all windows."""

    line: pl.DataFrame
    entities: int
    _counts: dict[str, pl.Series] = field(default_factory=dict)

    @classmethod
    def of(cls, line: pl.DataFrame, points: pl.DataFrame) -> Self:
        """The index of a line for points whose entities need not all be in it."""
        most = (frame[ENTITY].max() for frame in (line, points))
        return cls(line, max((number + 1 for number in most if isinstance(number, int)), default=1))

    def windows(
        self, points: pl.DataFrame, windows: Sequence[Window]
    ) -> dict[Window, PointWindows]:
        """Windows of each of `points`: some of the line's entities, at times of their own."""
        at_once = max(1, _PLACES // max(1, points.height))
        return {
            window: PointWindows(self, segments)
            for start in range(0, len(windows), at_once)
            for window, segments in self._segments(points, windows[start : start + at_once])
        }

    def _segments(
        self, points: pl.DataFrame, windows: Sequence[Window]
    ) -> Iterator[tuple[Window, Segments]]:
        time, many = pl.col(TIME), points.height
        firsts = [self._key(window.first(time) - self._first) for window in windows]
        # Windows that end alike, as most do, are looked up once: an end lies so long after its point.
        behind = {
            window.last(0): self._key(window.last(time) - self._first) + 1 for window in windows
        }
        bounds = points.select(
            bound.alias(str(number)) for number, bound in enumerate([*firsts, *behind.values()])
        )
        places = self._keys.search_sorted(pl.concat(bounds.get_columns()), "left").cast(pl.Int64)
        ends = dict(zip(behind, range(len(firsts), len(firsts) + len(behind)), strict=True))
        for number, window in enumerate(windows):
            starts = places.slice(number * many, many)
            lengths = places.slice(ends[window.last(0)] * many, many) - starts
            yield window, Segments(starts, lengths.set(lengths < 0, 0))

    def counts_before(self, column: str) -> pl.Series:
        """The number of values of a column before each row, and in all rows (Int64)."""
        if column not in self._counts:
            counts = self.line.select(pl.col(column).is_not_null().cast(pl.Int64).cum_sum())
            self._counts[column] = pl.concat([pl.Series([0], dtype=pl.Int64), counts.to_series()])
        return self._counts[column]

    @cached_property
    def _keys(self) -> pl.Series:
        return self.line.select(self._key(pl.col(TIME) - self._first)).to_series()

    @cached_property
    def _first(self) -> int:
        first = self.line[TIME].min()
        return first if isinstance(first, int) else 0

    @cached_property
    def _span(self) -> int:
        """The number of keys that an entity has: one for each instant of the line, one before and one after."""
        last = self.line[TIME].max()
        return (last if isinstance(last, int) else 0) - self._first + 3

    def _key(self, since: pl.Expr) -> pl.Expr:
        """A number that orders rows by entity, then time; `since` is the time since the line's first instant."""
        instant = (since + 1).clip(0, self._span - 1)
        return pl.col(ENTITY).cast(self._key_dtype) * self._span + instant

    @cached_property
    def _key_dtype(self) -> pl.DataType:
        return pl.Int64() if self.entities * self._span < 1 << 63 else pl.Int128()


@dataclass(frozen=True)
class DistinctPoints:
    """Points but for those of which all windows are those of the point before, whose results they have.

    windows: those of `points`. numbers: of all points. places: where among `points` each of all points has its results, None where
    these are all.
    """

    points: pl.DataFrame
    windows: Mapping[Window, PointWindows]
    numbers: pl.Series
    places: pl.Series | None = None

    @classmethod
    def of(
        cls, points: pl.DataFrame, windows: Mapping[Window, PointWindows], *, all_windows: bool
    ) -> Self:
        """The distinct ones of some points in the order of a line; all of them unless these are all windows of theirs."""
        if not all_windows:
            return cls(points, windows, points[ROW])
        segments = [each.segments for each in windows.values()]
        bounds = pl.DataFrame(
            [
                bound.alias(f"{name} {number}")
                for number, each in enumerate(segments)
                for name, bound in (("start", each.starts), ("length", each.lengths))
            ]
        )
        differs = (pl.col(name).ne_missing(pl.col(name).shift()) for name in bounds.columns)
        is_new = bounds.select(pl.any_horizontal(differs)).to_series()
        if is_new.all():
            return cls(points, windows, points[ROW])
        at, places = is_new.arg_true(), is_new.cum_sum() - 1
        distinct = {
            window: replace(each, segments=each.segments.gathered(at))
            for window, each in windows.items()
        }
        return cls(points[at], distinct, points[ROW], places)

    def spread(self, results: pl.DataFrame) -> pl.DataFrame:
        """Results of the distinct points, for all points."""
        return results if self.places is None else results[self.places].with_columns(self.numbers)


@dataclass(frozen=True)
class PointWindows:
    """The windows of some points as segments of a timeline."""

    index: TimelineIndex
    segments: Segments

    @property
    def line(self) -> pl.DataFrame:
        """The timeline."""
        return self.index.line

    def counts(self, column: str) -> pl.Series:
        """The number of values of a column in each window, nulls left out (Int64)."""
        if not self.line[column].null_count():
            return self.segments.lengths
        before = self.index.counts_before(column)
        starts, lengths = self.segments.starts, self.segments.lengths
        return before[starts + lengths] - before[starts]

    def aggregated(self, expressions: Mapping[str, pl.Expr]) -> pl.DataFrame:
        """A row for each window and a column for each expression over its rows; null where it has no row."""
        named = [expression.alias(name) for name, expression in expressions.items()]
        windows = pl.DataFrame({"start": self.segments.starts, "length": self.segments.lengths})
        windows = windows.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias(_POINT))
        is_long = pl.col("length") > SLICED_ROWS
        read = dict.fromkeys(n for each in named for n in each.meta.root_names())
        line = self.line.select(*read)  # no row is copied for a column that nobody asks for
        answers = [
            line.slice(start, length).select(pl.lit(point, pl.Int64).alias(_POINT), *named)
            for start, length, point in windows.filter(is_long).iter_rows()
        ]
        short = windows.filter(pl.col("length") > 0, ~is_long)
        batch = (pl.col("length").cum_sum() // GATHERED_ROWS).alias(_BATCH)
        for some in short.with_columns(batch).partition_by(_BATCH) if short.height else ():
            end = pl.col("start") + pl.col("length")
            places = some.select(_POINT, pl.int_ranges("start", end).alias(_INDEX)).explode(_INDEX)
            rows = line[places[_INDEX]].with_columns(places[_POINT])
            answers.append(rows.group_by(_POINT).agg(named))
        if not answers:
            answers = [line.clear().select(pl.lit(0, pl.Int64).alias(_POINT), *named).clear()]
        points = windows.select(_POINT)
        return points.join(pl.concat(answers), on=_POINT, how="left", maintain_order="left").drop(
            _POINT
        )
