"""Folds of windows as slices of ordered values: the aggregations that both engines compute alike.

Each fold is a few passes over columns, whatever the number of windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl
import pyarrow as pa

from mlforge.compilers.base import Aggregate, ComputeContext, value_name
from mlforge.core.time_model import Window
from mlforge.engines.kernels.occurrences import Occurrences
from mlforge.engines.kernels.ordered import OrderedValues
from mlforge.engines.kernels.pairwise import Segments


@dataclass(frozen=True)
class Slices:
    """The windows of a column's values. most: of how many of the most frequent values is asked, 0 for none.

    distinct_weigh: whether a distinct value counts with its weight.
    """

    values: OrderedValues
    segments: Segments
    most: int
    distinct_weigh: bool

    def at(self, places: pl.Series) -> pl.Series:
        """The places of values, null for an empty slice."""
        return places.set(self.segments.lengths <= 0, None)

    @cached_property
    def first(self) -> pl.Series:
        """The place of the first value in each slice."""
        return self.at(self.segments.starts)

    @cached_property
    def last(self) -> pl.Series:
        """The place of the last value in each slice."""
        return self.at(self.segments.starts + self.segments.lengths - 1)

    @cached_property
    def filled(self) -> pl.Series:
        """The positions of the slices that are not empty."""
        return (self.segments.lengths > 0).arg_true()

    @cached_property
    def occurrences(self) -> Occurrences:
        """The values as they occur in the slices that are not empty."""
        return Occurrences(self.values.codes, self.segments.gathered(self.filled))

    @cached_property
    def ranked(self) -> tuple[pl.Series, pl.Series]:
        """The number of distinct values of each slice, and its most frequent ones, one slice after another."""
        if self.filled.is_empty():
            return self.segments.lengths, self.values.values.clear()
        many, codes = self.occurrences.most_frequent(self.most)
        return self.scattered(many), self.values.distinct.gather(codes)

    @property
    def frequent(self) -> tuple[pl.Series, pl.Series]:
        """The number of most frequent values of each slice, and these, one slice after another."""
        many, values = self.ranked
        return many.clip(upper_bound=self.most), values

    def scattered(self, numbers: pl.Series) -> pl.Series:
        """A number for each slice that is not empty, as one for each slice: 0 for an empty one."""
        zeros = pl.Series([0], dtype=pl.Int64).new_from_index(0, len(self.segments.starts))
        return zeros.scatter(self.filled, numbers)


@dataclass(frozen=True)
class Folds:
    """The folds of a timeline, sorted by entity, then time; what several of them share is made once.

    weights: for how many events each row of the line stands; None for one. They tell nothing to aggregations that go by order.
    distinct_weigh: whether they tell for how many distinct values it does.
    """

    line: pl.DataFrame
    context: ComputeContext
    weights: pl.Series | None = None
    distinct_weigh: bool = True
    _ordered: dict[int, OrderedValues] = field(default_factory=dict)
    _slices: dict[tuple[int, Window], Slices] = field(default_factory=dict)

    def folded(self, aggregate: Aggregate, segments: Segments) -> pl.Series:
        """An aggregate of each segment of the line's rows; null, 0 or an empty list where it has no value.

        The segments are the aggregate's window at points in the order of the line, so neither their starts nor
        their ends go back.
        """
        slices = self.slices(aggregate, segments)
        aggregation = aggregate.aggregation
        return FOLDS[aggregation.kind.name](slices, aggregation.parameter or 1)

    def slices(self, aggregate: Aggregate, segments: Segments) -> Slices:
        """The values of an aggregate in each segment."""
        key = (aggregate.value, aggregate.window)
        if key not in self._slices:
            values = self._values(aggregate)
            alike = (a for a in self.context.aggregates if (a.value, a.window) == key)
            most = max(map(_most, alike))
            self._slices[key] = Slices(values, values.slices(segments), most, self.distinct_weigh)
        return self._slices[key]

    def _values(self, aggregate: Aggregate) -> OrderedValues:
        position = aggregate.value
        if position not in self._ordered:
            weights = None if aggregate.aggregation.kind.ordered else self.weights
            self._ordered[position] = OrderedValues.of(self.line, value_name(position), weights)
        return self._ordered[position]


def _most(aggregate: Aggregate) -> int:
    name, parameter = aggregate.aggregation.kind.name, aggregate.aggregation.parameter
    if name == "top_K":
        return int(parameter or 1)
    return 1 if name == "mode" else 0


def _first_values(slices: Slices, most: int) -> pl.Series:
    starts, lengths = slices.segments.starts, slices.segments.lengths.clip(upper_bound=most)
    return _lists(lengths, slices.values.values.gather(_enumerated(starts, starts + lengths, 1)))


def _last_values(slices: Slices, most: int) -> pl.Series:
    lengths = slices.segments.lengths.clip(upper_bound=most)
    newest = slices.segments.starts + slices.segments.lengths - 1
    return _lists(lengths, slices.values.values.gather(_enumerated(newest, newest - lengths, -1)))


def _distinct(slices: Slices, _: int) -> pl.Series:
    is_weighed = slices.distinct_weigh and slices.values.weights is not None
    if slices.filled.is_empty() or (slices.most and not is_weighed):
        return slices.ranked[0]
    return slices.scattered(slices.occurrences.distinct(weighed=is_weighed))


def _mode(slices: Slices, _: int) -> pl.Series:
    many, values = slices.frequent
    return values.gather((many.cum_sum() - many).set(many == 0, None))


def _top(slices: Slices, most: int) -> pl.Series:
    many, values = slices.frequent
    if slices.most > most:
        first, chosen = many.cum_sum() - many, many.clip(upper_bound=most)
        many, values = chosen, values.gather(_enumerated(first, first + chosen, 1))
    return _lists(many, values)


FOLDS: Mapping[str, Callable[[Slices, int], pl.Series]] = {
    "first": lambda slices, _: slices.values.values.gather(slices.first),
    "last": lambda slices, _: slices.values.values.gather(slices.last),
    "first_time": lambda slices, _: slices.values.times.gather(slices.first),
    "last_time": lambda slices, _: slices.values.times.gather(slices.last),
    "first_K": _first_values,
    "last_K": _last_values,
    "count_distinct": _distinct,
    "mode": _mode,
    "top_K": _top,
}
"""By the kind of aggregation, from slices and the aggregation's parameter."""


def _enumerated(starts: pl.Series, ends: pl.Series, step: int) -> pl.Series:
    """The numbers from each start up to its end, one range after another."""
    bounds = pl.DataFrame({"start": starts, "end": ends}).filter(pl.col("start") != pl.col("end"))
    ranges = bounds.select(pl.int_ranges("start", "end", step, dtype=pl.Int64).explode())
    return ranges.to_series()


def _lists(lengths: pl.Series, values: pl.Series) -> pl.Series:
    """Values one after another as lists of so many."""
    offsets = pl.Series([0], dtype=pl.Int64).append(lengths.cast(pl.Int64).cum_sum())
    flat = values.rechunk().to_arrow()
    lists = pl.Series(pa.LargeListArray.from_arrays(offsets.rechunk().to_arrow(), flat))
    return lists.cast(pl.List(values.dtype))
