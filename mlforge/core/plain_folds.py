"""Folds of a window's events in plain Python: the meaning of each aggregation, for audits and engines' tests.

An event is (instant, value): microseconds in UTC, and a value that is not None. A fold takes one or more, in the
order of instant, then value. Sums are exact, or rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

Event = tuple[int, Any]
Fold = Callable[[Sequence[Event], Any], Any]
"""A fold of events, given the aggregation's parameter (None where it has none)."""


def of_values(fold: Callable[[Sequence[Any]], Any]) -> Fold:
    """The fold that sees values alone."""
    return lambda events, _: fold([value for _, value in events])


def total(values: Sequence[Any]) -> Any:
    """The sum, in the values' own type; of booleans an int."""
    first = values[0]
    if isinstance(first, float):
        return math.fsum(values)
    if isinstance(first, Decimal):
        exponent = first.as_tuple().exponent
        assert isinstance(exponent, int)
        return Decimal(int(_exact(values) * 10**-exponent)).scaleb(exponent)
    return int(sum(values))


def mean(values: Sequence[Any]) -> float:
    """The mean as a float."""
    if isinstance(values[0], float):
        return math.fsum(values) / len(values)
    return float(_exact(values) / len(values))


def median(values: Sequence[Any]) -> float:
    """The mean of the two middle values, which are one where their number is odd."""
    ordered, count = sorted(values), len(values)
    return mean(ordered[(count - 1) // 2 : count // 2 + 1])


def std(values: Sequence[Any]) -> float | None:
    """The sample standard deviation; None for one value."""
    if len(values) < 2:
        return None
    return math.sqrt(_squared_deviations(values) / (len(values) - 1))


def _squared_deviations(values: Sequence[Any]) -> Fraction:
    middle = _exact(values) / len(values)
    return sum(((Fraction(value) - middle) ** 2 for value in values), Fraction(0))


def _exact(values: Sequence[Any]) -> Fraction:
    return sum(map(Fraction, values), Fraction(0))
