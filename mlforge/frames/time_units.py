"""Units of the dtypes of times, in microseconds: known here alone."""

from __future__ import annotations

from fractions import Fraction
from typing import TypeVar

import polars as pl

from mlforge.core.values import DAY_US

T = TypeVar("T", int, pl.Expr)

_UNITS_US = {"ns": Fraction(1, 1000), "us": Fraction(1), "ms": Fraction(1000)}


def unit_us(dtype: pl.DataType) -> Fraction:
    """The microseconds for which a one stands in the physical integers of a Datetime, Duration, Time or Date."""
    if isinstance(dtype, (pl.Datetime, pl.Duration)):
        return _UNITS_US[dtype.time_unit]
    if dtype == pl.Time:
        return _UNITS_US["ns"]
    assert dtype == pl.Date, dtype
    return Fraction(DAY_US)


def in_us(physical: T, dtype: pl.DataType) -> T:
    """Physical integers of such a dtype in microseconds; nanoseconds are floored.

    An expression must be wide enough for the result, or it wraps around; Python's integers do not.
    """
    unit = unit_us(dtype)
    if unit.numerator != 1:
        physical = physical * unit.numerator
    if unit.denominator != 1:
        physical = physical // unit.denominator
    return physical
