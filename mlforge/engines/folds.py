"""Folds of windows as slices of ordered values: the aggregations that both engines compute alike.

Each fold is a few passes over columns, whatever the number of windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import pyarrow as pa

from mlforge.compilers.base import Aggregate, value_name
from mlforge.engines.occurrences import Occurrences
from mlforge.engines.ordered import OrderedValues
from mlforge.engines.pairwise import Segments

_Fold = Callable[[OrderedValues, Segments, Any], pl.Series]


@dataclass(frozen=True)
class Folds:
    """The folds of a timeline, sorted by entity, then time; each value column is put in order once."""

    line: pl.DataFrame
    _ordered: dict[int, OrderedValues] = field(default_factory=dict)

    def folded(self, aggregate: Aggregate, segments: Segments) -> pl.Series:
        """An aggregate of each segment of the line's rows; null, 0 or an empty list where it has no value.

        The segments are one window's at points in the order of the line, so neither their starts nor their
        ends go back.
        """
        if aggregate.value not in self._ordered:
            values = OrderedValues.of(self.line, value_name(aggregate.value))
            self._ordered[aggregate.value] = values
        values, aggregation = self._ordered[aggregate.value], aggregate.aggregation
        return FOLDS[aggregation.kind.name](values, values.slices(segments), aggregation.parameter)


def _first(values: OrderedValues, slices: Segments, _: Any) -> pl.Series:
    return values.values.gather(_places(slices, slices.starts))


def _last(values: OrderedValues, slices: Segments, _: Any) -> pl.Series:
    return values.values.gather(_places(slices, slices.starts + slices.lengths - 1))


def _first_time(values: OrderedValues, slices: Segments, _: Any) -> pl.Series:
    return values.times.gather(_places(slices, slices.starts))


def _last_time(values: OrderedValues, slices: Segments, _: Any) -> pl.Series:
    return values.times.gather(_places(slices, slices.starts + slices.lengths - 1))


def _first_values(values: OrderedValues, slices: Segments, most: int) -> pl.Series:
    lengths = slices.lengths.clip(upper_bound=most)
    places = _enumerated(slices.starts, slices.starts + lengths, 1)
    return _lists(lengths, values.values.gather(places))


def _last_values(values: OrderedValues, slices: Segments, most: int) -> pl.Series:
    lengths = slices.lengths.clip(upper_bound=most)
    newest = slices.starts + slices.lengths - 1
    return _lists(lengths, values.values.gather(_enumerated(newest, newest - lengths, -1)))


def _distinct(values: OrderedValues, slices: Segments, _: Any) -> pl.Series:
    zeros = pl.Series([0], dtype=pl.Int64).new_from_index(0, len(slices.starts))
    filled = _filled(slices)
    if filled.is_empty():
        return zeros
    codes, _ = values.coded
    return zeros.scatter(filled, Occurrences(codes, slices.gathered(filled)).distinct())


def _mode(values: OrderedValues, slices: Segments, _: Any) -> pl.Series:
    return _top(values, slices, 1).list.first()


def _top(values: OrderedValues, slices: Segments, most: int) -> pl.Series:
    filled = _filled(slices)
    if filled.is_empty():
        return _lists(slices.lengths, values.values.clear())
    codes, distinct = values.coded
    many, chosen = Occurrences(codes, slices.gathered(filled)).most_frequent(most)
    zeros = pl.Series([0], dtype=pl.Int64).new_from_index(0, len(slices.starts))
    return _lists(zeros.scatter(filled, many), distinct.gather(chosen))


FOLDS: Mapping[str, _Fold] = {
    "first": _first,
    "last": _last,
    "first_time": _first_time,
    "last_time": _last_time,
    "first_K": _first_values,
    "last_K": _last_values,
    "count_distinct": _distinct,
    "mode": _mode,
    "top_K": _top,
}


def _filled(slices: Segments) -> pl.Series:
    """The positions of the slices that are not empty."""
    return (slices.lengths > 0).arg_true()


def _places(slices: Segments, at: pl.Series) -> pl.Series:
    """Places of values, null for an empty slice."""
    return at.set(slices.lengths <= 0, None)


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
