"""Pairwise sums over many overlapping segments of a column, without ever subtracting.

A sliding sum that subtracts what leaves its window keeps a rounding error of the size of the largest value
that ever passed through. Here each segment is put together from blocks of 1, 2, 4, ... values that lie
wholly within it, so only its own values count, and errors grow with the logarithm of its length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Segments:
    """Segments of a column: where each starts, and how many values it spans."""

    starts: pl.Series
    lengths: pl.Series

    def slice(self, start: int, many: int) -> Segments:
        """Some of the segments, one after another."""
        return Segments(self.starts.slice(start, many), self.lengths.slice(start, many))

    def gathered(self, at: pl.Series) -> Segments:
        """The segments at some positions."""
        return Segments(self.starts.gather(at), self.lengths.gather(at))

    def blocks(self) -> Iterator[tuple[int, pl.Series, pl.Series]]:
        """For each power of two: that size, the segments with a block of the size, and where the block starts."""
        at = self.starts
        longest = self.lengths.max()
        size = 1
        while isinstance(longest, int) and size <= longest:
            chosen = ((self.lengths // size) % 2 == 1).arg_true()
            starts = at.gather(chosen)
            yield size, chosen, starts
            at = _scattered(at, chosen, starts + size)
            size *= 2


def sums(values: pl.Series, segments: Segments) -> pl.Series:
    """The sum of each segment's values, nulls as 0; 0.0 for an empty segment."""
    block = values.cast(pl.Float64).fill_null(0.0)
    total = pl.Series("sum", [0.0]).new_from_index(0, len(segments.starts))
    for size, chosen, starts in segments.blocks():
        total = _scattered(total, chosen, total.gather(chosen) + block.gather(starts))
        block = block + _ahead(block, size)
    return total


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations, for many sets of values side by side."""

    count: pl.Series
    mean: pl.Series
    squares: pl.Series

    def with_(self, other: Moments) -> Moments:
        """Moments of the unions (Chan, Golub, LeVeque, "Algorithms for computing the sample variance", 1983)."""
        count = self.count + other.count
        share = (other.count / count).fill_nan(0.0)
        delta = other.mean - self.mean
        mean = self.mean + delta * share
        # In this order nothing overflows where one of the two is empty, however large the other's mean.
        between = self.count * share * delta * delta
        return Moments(count, mean, self.squares + other.squares + between)

    def gathered(self, at: pl.Series) -> Moments:
        """The moments of some of the sets."""
        return Moments(self.count.gather(at), self.mean.gather(at), self.squares.gather(at))

    def scattered(self, at: pl.Series, other: Moments) -> Moments:
        """The same moments, with some of the sets replaced."""
        return Moments(
            _scattered(self.count, at, other.count),
            _scattered(self.mean, at, other.mean),
            _scattered(self.squares, at, other.squares),
        )

    def ahead(self, by: int) -> Moments:
        """The moments of the sets so much further on."""
        return Moments(_ahead(self.count, by), _ahead(self.mean, by), _ahead(self.squares, by))


def moments(values: pl.Series, segments: Segments) -> Moments:
    """The moments of each segment's values; nulls do not count."""
    values = values.cast(pl.Float64)
    zeros = pl.Series([0.0]).new_from_index(0, len(values))
    block = Moments(values.is_not_null().cast(pl.Float64), values.fill_null(0.0), zeros)
    none = pl.Series([0.0]).new_from_index(0, len(segments.starts))
    total = Moments(none, none, none)
    for size, chosen, starts in segments.blocks():
        total = total.scattered(chosen, total.gathered(chosen).with_(block.gathered(starts)))
        block = block.with_(block.ahead(size))
    return total


def _ahead(block: pl.Series, by: int) -> pl.Series:
    return block.shift(-by).fill_null(0.0)


def _scattered(series: pl.Series, at: pl.Series, values: pl.Series) -> pl.Series:
    """A copy with some values replaced; `scatter` itself would change the series in place."""
    return series.clone().scatter(at, values)
