"""Sums and deviations of a value column over many segments, computed once for all windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from mlforge.core.schema import DIGITS, decimal_scale
from mlforge.engines.kernels import pairwise
from mlforge.engines.kernels.fixed_point import Fixed
from mlforge.engines.kernels.ordered import by_value
from mlforge.engines.kernels.pairwise import Segments

_SURE = 1.5 * 10.0**DIGITS
"""Where a sum as a float is below this, it fits into 128 bits."""


class DecimalOverflow(Exception):
    """A sum of decimals has more digits than its dtype; the kernel tells which aggregate it was."""

    def __init__(self, dtype: str) -> None:
        super().__init__(dtype)
        self.dtype = dtype


class SumOverflow(Exception):
    """Some of these aggregates, by position, have a sum that `dtype` cannot hold; raised by kernels."""

    def __init__(self, positions: Sequence[int], dtype: str) -> None:
        super().__init__(positions, dtype)
        self.positions = positions
        self.dtype = dtype


@dataclass(frozen=True)
class Sums:
    """The sums of a value column of a timeline; in fixed point where that is exact, else pairwise.

    dtype: the column's. longest: the length of the longest segment.
    """

    line: pl.DataFrame
    column: str
    dtype: str
    longest: int

    def over(self, segments: Segments) -> SegmentSums:
        """The sums of some segments, none of which is computed yet."""
        return SegmentSums(self, segments)

    def of(self, segments: Segments) -> pl.Series:
        """The sum of each segment, of decimals as the integers that they are physically."""
        exact = self._fixed
        return pairwise.sums(self.in_order, segments) if exact is None else exact.sums(segments)

    @property
    def values(self) -> pl.Series:
        """The column."""
        return self.line[self.column]

    @cached_property
    def scale(self) -> int | None:
        """The digits behind the point of decimals; None for other dtypes."""
        return decimal_scale(self.dtype)

    @cached_property
    def physical(self) -> pl.Series:
        """The values, of decimals as integers."""
        return self.values if self.scale is None else self.values.to_physical()

    @cached_property
    def most(self) -> int | None:
        """The greatest magnitude of whole numbers, of decimals as integers; None where there is none."""
        ends = self.physical.min(), self.physical.max()
        magnitudes = [abs(end) for end in ends if isinstance(end, int)]
        return max(magnitudes, default=None)

    @cached_property
    def floats(self) -> pl.Series:
        """The values as floats."""
        return self.values.cast(pl.Float64)

    @cached_property
    def in_order(self) -> pl.Series:
        """The values as floats, those of one instant by their values: the order of rows and files has no part in what is rounded."""
        return by_value(self.line, self.floats)

    @cached_property
    def _fixed(self) -> Fixed | None:
        return Fixed.exactly(self.physical, self.longest)

    @cached_property
    def squarable(self) -> Fixed | None:
        """The values in a fixed point whose squares can be summed; None where that is too coarse."""
        return Fixed.for_squares(self.floats, self.longest)


@dataclass(frozen=True)
class SegmentSums:
    """The sums of a column over the segments of one window; sums and means share them."""

    column: Sums
    segments: Segments

    def totals(self) -> pl.Series:
        """The sum of each segment: Int128 for integers, Decimal(38, s), Float64. Raises DecimalOverflow."""
        totals, scale = self._sums, self.column.scale
        if scale is None:
            return totals
        limit = 10**DIGITS
        too_large = not totals.is_between(-limit, limit, closed="none").all()
        if too_large or not self._fits():
            raise DecimalOverflow(f"Decimal({DIGITS}, {scale})")
        as_decimal = pl.col(totals.name).reinterpret(dtype=pl.Decimal(DIGITS, scale))
        return totals.to_frame().select(as_decimal).to_series()

    def floats(self) -> pl.Series:
        """The sum of each segment as a float; of decimals so large that 128 bits may not hold it, added up as floats."""
        scale = self.column.scale
        if scale is None:
            return self._sums.cast(pl.Float64)
        if not self._fits():
            return pairwise.sums(self.column.in_order, self.segments)
        return self._sums.cast(pl.Float64) / 10.0**scale

    def deviations(self, count: pl.Series) -> pl.Series:
        """The sum of squared deviations from each segment's mean; `count` is of its values."""
        exact = self.column.squarable
        if exact is not None:
            return exact.deviations(self.segments, count)
        return pairwise.moments(self.column.in_order, self.segments).squares

    @cached_property
    def _sums(self) -> pl.Series:
        return self.column.of(self.segments)

    def _fits(self) -> bool:
        """Whether no sum is so large that 128 bits would have wrapped around unseen."""
        most = self.column.most
        if most is None or most * max(self.column.longest, 1) < 10**DIGITS:
            return True
        greatest = pairwise.sums(self.column.physical, self.segments).abs().max()
        return not isinstance(greatest, float) or greatest < _SURE
