"""Folds of a window's events in plain Python: the meaning of each aggregation, for audits and engines' tests.

An event is (instant, value): microseconds in UTC, and a value that is not None. A fold takes one or more, in the
order of instant, then value. Sums are exact, or rounded once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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


def std(values: Sequence[Any]) -> float | None:
    """The sample standard deviation; None for one value. Raises OverflowError as `variance`."""
    if len(values) < 2:
        return None
    return math.sqrt(_squared_deviations(values) / (len(values) - 1))


def variance(values: Sequence[Any]) -> float | None:
    """The sample variance; None for one value. Raises OverflowError where no float is as large as the squared deviations together."""
    return float(_squared_deviations(values) / (len(values) - 1)) if len(values) > 1 else None


def first(events: Sequence[Event], _: Any) -> Any:
    """The value of the least (instant, value) pair."""
    return events[0][1]


def last(events: Sequence[Event], _: Any) -> Any:
    """The value of the greatest (instant, value) pair."""
    return events[-1][1]


def first_time(events: Sequence[Event], _: Any) -> int:
    """The earliest instant that has a value."""
    return events[0][0]


def last_time(events: Sequence[Event], _: Any) -> int:
    """The latest instant that has a value."""
    return events[-1][0]


def first_values(events: Sequence[Event], most: int) -> list[Any]:
    """So many values at most, the oldest first."""
    return [value for _, value in events[:most]]


def last_values(events: Sequence[Event], most: int) -> list[Any]:
    """So many values at most, the newest first."""
    return [value for _, value in events[: -most - 1 : -1]]


def distinct(values: Sequence[Any]) -> int:
    """The number of different values."""
    return len(set(values))


def percentile(events: Sequence[Event], share: Fraction) -> float:
    """The value at a share of the way from the least to the greatest, between ranks in a straight line."""
    ordered = sorted(Fraction(value) for _, value in events)
    place = share * (len(ordered) - 1)
    below = ordered[math.floor(place)]
    above = ordered[math.ceil(place)]
    return float(below + (above - below) * (place - math.floor(place)))


def mode(values: Sequence[Any]) -> Any:
    """The most frequent value; of several the least."""
    return top([(0, value) for value in values], 1)[0]


def top(events: Sequence[Event], most: int) -> list[Any]:
    """So many of the most frequent values, the most frequent first; equally frequent ones from the least on."""
    counts = Counter(value for _, value in events)
    return sorted(counts, key=lambda value: (-counts[value], value))[:most]


def order_of(value: Any) -> Any:
    """The key that orders values: lists and structs by their parts, a null before all else."""
    if value is None:
        return (False,)
    if isinstance(value, Mapping):
        return (True, [order_of(part) for part in value.values()])
    if isinstance(value, (list, tuple)):
        return (True, [order_of(part) for part in value])
    return (True, value)


def _squared_deviations(values: Sequence[Any]) -> Fraction:
    middle = _exact(values) / len(values)
    together = sum(((Fraction(value) - middle) ** 2 for value in values), Fraction(0))
    # An OverflowError where no float is so large: engines, which add them up as floats, have no value then.
    float(together)
    return together


def _exact(values: Sequence[Any]) -> Fraction:
    return sum(map(Fraction, values), Fraction(0))
