"""Sums and deviations of a value column over many slices, made once for all windows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import polars as pl

from mlforge.core.schema import DIGITS, decimal_scale
from mlforge.engines import pairwise
from mlforge.engines.base import overflow
from mlforge.engines.fixed_point import Fixed
from mlforge.engines.pairwise import Segments

_SURE = 1.5 * 10.0**DIGITS
"""Where a sum as a float is below this, it fits into 128 bits."""


@dataclass(frozen=True)
class Sums:
    """A column, its dtype, and how long the longest slice is; in fixed point where that is exact, else by folds."""

    values: pl.Series
    dtype: str
    longest: int

    def totals(self, slices: Segments, name: str) -> pl.Series:
        """The sum of each slice: 128 bits for integers, Decimal(38, s), Float64. Raises DataError as `name`."""
        if self._scale is None:
            return self._sums(slices)
        found = self._sums(slices)
        limit = 10**DIGITS
        too_large = not found.is_between(-limit, limit, closed="none").all()
        if too_large or not self._fits(slices):
            raise overflow([name], f"Decimal({DIGITS}, {self._scale})")
        as_decimal = pl.col(found.name).reinterpret(dtype=pl.Decimal(DIGITS, self._scale))
        return found.to_frame().select(as_decimal).to_series()

    def floats(self, slices: Segments) -> pl.Series:
        """The sum of each slice as a float."""
        return self._sums(slices).cast(pl.Float64) / 10.0 ** (self._scale or 0)

    def deviations(self, slices: Segments, count: pl.Series) -> pl.Series:
        """The sum of squared deviations from each slice's mean; `count` is of its values."""
        if self._squarable is not None:
            return self._squarable.deviations(slices, count)
        return pairwise.moments(self._floats, slices).squares

    def _sums(self, slices: Segments) -> pl.Series:
        exact = self._fixed
        return pairwise.sums(self._floats, slices) if exact is None else exact.sums(slices)

    def _fits(self, slices: Segments) -> bool:
        """Whether no sum is so large that 128 bits would have wrapped around unseen."""
        most = self._physical.abs().max()
        if not isinstance(most, int) or most * max(self.longest, 1) < 10**DIGITS:
            return True
        greatest = pairwise.sums(self._physical, slices).abs().max()
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
