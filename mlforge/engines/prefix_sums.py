"""Sums and deviations of a value column over many segments, computed once for all windows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import polars as pl

from mlforge.core.schema import DIGITS, decimal_scale
from mlforge.engines import pairwise
from mlforge.engines.fixed_point import Fixed
from mlforge.engines.pairwise import Segments

_SURE = 1.5 * 10.0**DIGITS
"""Where a sum as a float is below this, it fits into 128 bits."""


class DecimalOverflow(Exception):
    """A sum of decimals has more digits than its dtype; the kernel tells which aggregate it was."""

    def __init__(self, dtype: str) -> None:
        super().__init__(dtype)
        self.dtype = dtype


@dataclass(frozen=True)
class Sums:
    """The sums of one value column; in fixed point where that is exact, else pairwise.

    dtype: the column's. longest: the length of the longest segment.
    """

    values: pl.Series
    dtype: str
    longest: int

    def totals(self, segments: Segments) -> pl.Series:
        """The sum of each segment: Int128 for integers, Decimal(38, s), Float64. Raises DecimalOverflow."""
        if self._scale is None:
            return self._sums(segments)
        totals = self._sums(segments)
        limit = 10**DIGITS
        too_large = not totals.is_between(-limit, limit, closed="none").all()
        if too_large or not self._fits(segments):
            raise DecimalOverflow(f"Decimal({DIGITS}, {self._scale})")
        as_decimal = pl.col(totals.name).reinterpret(dtype=pl.Decimal(DIGITS, self._scale))
        return totals.to_frame().select(as_decimal).to_series()

    def floats(self, segments: Segments) -> pl.Series:
        """The sum of each segment as a float."""
        return self._sums(segments).cast(pl.Float64) / 10.0 ** (self._scale or 0)

    def deviations(self, segments: Segments, count: pl.Series) -> pl.Series:
        """The sum of squared deviations from each segment's mean; `count` is of its values."""
        if self._squarable is not None:
            return self._squarable.deviations(segments, count)
        return pairwise.moments(self._floats, segments).squares

    def _sums(self, segments: Segments) -> pl.Series:
        exact = self._fixed
        return pairwise.sums(self._floats, segments) if exact is None else exact.sums(segments)

    def _fits(self, segments: Segments) -> bool:
        """Whether no sum is so large that 128 bits would have wrapped around unseen."""
        most = self._physical.abs().max()
        if not isinstance(most, int) or most * max(self.longest, 1) < 10**DIGITS:
            return True
        greatest = pairwise.sums(self._physical, segments).abs().max()
        return not isinstance(greatest, float) or greatest < _SURE

    @cached_property
    def _scale(self) -> int | None:
        return decimal_scale(self.dtype)

    @cached_property
    def _physical(self) -> pl.Series:
        return self.values if self._scale is None else self.values.to_physical()

    @cached_property
    def _floats(self) -> pl.Series:
        return self.values.cast(pl.Float64)

    @cached_property
    def _fixed(self) -> Fixed | None:
        return Fixed.exactly(self._physical, self.longest)

    @cached_property
    def _squarable(self) -> Fixed | None:
        return Fixed.for_squares(self._floats, self.longest)
