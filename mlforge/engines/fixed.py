"""Exact sums over many overlapping slices of a column: running totals in fixed point.

A sliding sum of floats that subtracts what leaves its window keeps a rounding error of the size of the largest
value that ever passed through. Integers have no such error: as 128-bit integers of the least bit that any
value has, totals are exact, and so is a difference of two. It is so even where a running total has
wrapped around, as long as the slice's own sum fits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import polars as pl

from mlforge.engines.folds import Slices

_ROOM = 126
_MANTISSA = 53
_MOST_BITS = 900
"""Powers of two up to here are floats; for squares up to half of it."""
# So far below the least value may lie what is rounded off for squares: a billionth, and a little more.
_GUARD = 32


@dataclass(frozen=True)
class Fixed:
    """A column as multiples of `2 ** -bits`, nulls as nothing; sums of floats are floats, whatever their bits."""

    values: pl.Series
    bits: int
    of_floats: bool = True

    @classmethod
    def exactly(cls, values: pl.Series, longest: int) -> Self | None:
        """Every value as it is, if slices of so many values have sums of 128 bits; else None."""
        if not values.dtype.is_float():
            return cls(values.cast(pl.Int128).fill_null(0), 0, of_floats=False)
        ends = _exponents(values)
        if ends is None:
            return cls(_whole(values, 0), 0)
        least, greatest = ends
        bits = _MANTISSA - least
        if greatest + bits + _log2(longest) > _ROOM or abs(bits) > _MOST_BITS:
            return None
        return cls(_whole(values, bits), bits)

    @classmethod
    def for_squares(cls, values: pl.Series, longest: int) -> Self | None:
        """Values rounded so that slices have sums of squares of 128 bits; None if too coarse for some."""
        values = values.cast(pl.Float64)
        ends = _exponents(values)
        if ends is None:
            return cls(_whole(values, 0), 0)
        least, greatest = ends
        bits = (_ROOM - _log2(longest)) // 2 - greatest
        if bits + least < _GUARD or 2 * abs(bits) > _MOST_BITS:
            return None
        return cls(_whole(values, bits), bits)

    @cached_property
    def _totals(self) -> pl.Series:
        return _running(self.values)

    @cached_property
    def _squares(self) -> pl.Series:
        return _running(self.values * self.values)

    def sums(self, slices: Slices) -> pl.Series:
        """The sum of each slice, in units of the column: exact until the last rounding of Float64, else Int128."""
        found = _between(self._totals, slices)
        return found.cast(pl.Float64) * 2.0**-self.bits if self.of_floats else found

    def deviations(self, slices: Slices, count: pl.Series) -> pl.Series:
        """The sum of squared deviations from each slice's mean; `count` is of its values.

        About a whole number near the mean nothing large is left that could cancel out.
        """
        sums, squares = _between(self._totals, slices), _between(self._squares, slices)
        many = count.cast(pl.Int128)
        near = (sums.cast(pl.Float64) / count).round().fill_nan(0.0).cast(pl.Int128)
        rest = sums - near * many
        about = squares - near * (sums + rest)
        found = about.cast(pl.Float64) - rest.cast(pl.Float64).pow(2) / count
        return found.clip(lower_bound=0.0) * 2.0 ** (-2 * self.bits)


def _exponents(values: pl.Series) -> tuple[int, int] | None:
    """Those of the least and the greatest magnitude; None if there is no value but zeros."""
    sizes = values.abs()
    greatest = sizes.max()
    least = sizes.filter(sizes > 0).min()
    if not isinstance(greatest, float) or not isinstance(least, float):
        return None
    return math.frexp(least)[1], math.frexp(greatest)[1]


def _whole(values: pl.Series, bits: int) -> pl.Series:
    return (values.cast(pl.Float64) * 2.0**bits).round().fill_null(0.0).cast(pl.Int128)


def _running(values: pl.Series) -> pl.Series:
    """Totals before each value and after the last."""
    nothing = pl.Series(values.name, [0], dtype=pl.Int128)
    return nothing.append(values.cum_sum())


def _between(totals: pl.Series, slices: Slices) -> pl.Series:
    return totals.gather(slices.starts + slices.lengths) - totals.gather(slices.starts)


def _log2(count: int) -> int:
    return max(count, 1).bit_length()
