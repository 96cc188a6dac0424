"""Exact sums over many overlapping segments of a column: running totals in fixed point.

A sliding sum of floats that subtracts what leaves its window keeps a rounding error of the size of the largest
value that ever passed through. Integers have no such error: as 128-bit integers of the least bit that any
value has, totals are exact, and so is a difference of two. It is so even where a running total has
wrapped around, as long as the segment's own sum fits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Self, TypeVar

import polars as pl

from mlforge.engines.kernels.pairwise import Segments

_ROOM = 126
_MANTISSA = 53
_MOST_BITS = 900
"""Powers of two up to here are floats; for squares up to half of it."""
# So far below the least value may lie what is rounded off for squares: a billionth, and a little more.
_GUARD = 32

Column = TypeVar("Column", pl.Series, pl.Expr)


@dataclass(frozen=True, slots=True)
class Extent:
    """The least magnitude of floats above zero, and the greatest; None where all values are zero."""

    least: float | None
    greatest: float | None

    @classmethod
    def of(cls, values: pl.Series) -> Self:
        """The extent of a column."""
        return cls(*values.to_frame().select(extent(pl.first())).row(0))

    def union(self, other: Extent) -> Extent:
        """The extent of both columns."""
        least = [bound for bound in (self.least, other.least) if bound is not None]
        greatest = [bound for bound in (self.greatest, other.greatest) if bound is not None]
        return Extent(min(least, default=None), max(greatest, default=None))

    @property
    def exponents(self) -> tuple[int, int] | None:
        """The exponents of the least and the greatest magnitude."""
        if self.least is None or self.greatest is None:
            return None
        return math.frexp(self.least)[1], math.frexp(self.greatest)[1]


def extent(values: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """The expressions of an Extent's least and greatest magnitude."""
    sizes = values.cast(pl.Float64).abs()
    least = pl.when(sizes > 0).then(sizes).min()  # a filter would copy them
    return least.alias("least"), sizes.max().alias("greatest")


@dataclass(frozen=True, slots=True)
class Scale:
    """Numbers as multiples of `2 ** -bits`, 128 bits wide; sums of floats are floats, whatever their bits."""

    bits: int
    of_floats: bool = True

    @classmethod
    def exactly(cls, extent: Extent, longest: int) -> Self | None:
        """The scale that holds every float as it is, if sums of so many fit; else None."""
        ends = extent.exponents
        if ends is None:
            return cls(0)
        least, greatest = ends
        # Monotone: more values never give a coarser scale, nor one where fewer have none.
        bits = max(_MANTISSA - least, -_MOST_BITS)
        if greatest + bits + _log2(longest) > _ROOM or bits > _MOST_BITS:
            return None
        return cls(bits)

    @classmethod
    def for_squares(cls, extent: Extent, longest: int) -> Self | None:
        """The scale to which values are rounded so that sums of so many squares fit; None if too coarse for some."""
        ends = extent.exponents
        if ends is None:
            return cls(0)
        if not math.isfinite(extent.greatest or 0):
            return None
        least, greatest = ends
        bits = (_ROOM - _log2(longest)) // 2 - greatest
        if bits + least < _GUARD or 2 * abs(bits) > _MOST_BITS:
            return None
        return cls(bits)

    def whole(self, values: Column) -> Column:
        """Values as multiples of the scale, nulls as 0."""
        if not self.of_floats:
            return values.cast(pl.Int128).fill_null(0)
        return (values.cast(pl.Float64) * 2.0**self.bits).round().fill_null(0.0).cast(pl.Int128)

    def number(self, sums: Column) -> Column:
        """Sums in units of the column: exact until the last rounding of Float64, else Int128."""
        return sums.cast(pl.Float64) * 2.0**-self.bits if self.of_floats else sums

    def deviations(self, sums: Column, squares: Column, count: Column) -> Column:
        """The sum of squared deviations from the mean, of so many values with these sums.

        About a whole number near the mean nothing large is left that could cancel out.
        """
        many = count.cast(pl.Int128)
        # Not `fill_nan` of no values' 0 / 0: polars evaluates what it fills three times.
        near = (sums.cast(pl.Float64) / count.clip(lower_bound=1)).round().cast(pl.Int128)
        remainder = sums - near * many
        about = squares - near * (sums + remainder)
        squared = about.cast(pl.Float64) - remainder.cast(pl.Float64).pow(2) / count
        return squared.clip(lower_bound=0.0) * 2.0 ** (-2 * self.bits)


WHOLE = Scale(0, of_floats=False)
"""The scale of integers, and of decimals as the integers that they are physically."""


@dataclass(frozen=True)
class Fixed:
    """A column, taken as multiples of its scale."""

    values: pl.Series
    scale: Scale

    @classmethod
    def exactly(cls, values: pl.Series, longest: int) -> Self | None:
        """Every value as it is, if segments of so many values have sums of 128 bits; else None."""
        if not values.dtype.is_float():
            return cls(values, WHOLE)
        return cls._at(Scale.exactly(Extent.of(values), longest), values)

    @classmethod
    def for_squares(cls, values: pl.Series, longest: int) -> Self | None:
        """Values rounded so that segments have sums of squares of 128 bits; None if too coarse for some."""
        return cls._at(Scale.for_squares(Extent.of(values), longest), values)

    @classmethod
    def _at(cls, scale: Scale | None, values: pl.Series) -> Self | None:
        return None if scale is None else cls(values, scale)

    @cached_property
    def _totals(self) -> pl.Series:
        return self._running(self._whole)

    @cached_property
    def _squares(self) -> pl.Series:
        return self._running(self._whole * self._whole)

    @property
    def _whole(self) -> pl.Expr:
        return self.scale.whole(pl.first())

    def _running(self, numbers: pl.Expr) -> pl.Series:
        """Totals before each number and after the last."""
        totals = self.values.to_frame().select(numbers.cum_sum()).to_series()
        return pl.Series(totals.name, [0], dtype=pl.Int128).append(totals)

    def sums(self, segments: Segments) -> pl.Series:
        """The sum of each segment, as a number of the column."""
        return self.scale.number(_between(self._totals, segments))

    def deviations(self, segments: Segments, count: pl.Series) -> pl.Series:
        """The sum of squared deviations from each segment's mean; `count` is of its values."""
        sums, squares = _between(self._totals, segments), _between(self._squares, segments)
        return self.scale.deviations(sums, squares, count)


def _between(totals: pl.Series, segments: Segments) -> pl.Series:
    return totals[segments.starts + segments.lengths] - totals[segments.starts]


def _log2(count: int) -> int:
    return max(count, 1).bit_length()
