"""How far the values of a column have moved from one profile to another. Pure.

Numbers, booleans and times are compared by buckets in their order, texts and nested values by their distinct values, or, where
there are too many to count one by one, by buckets of their hashes. The first profile sets the bins: each holds a tenth of its
values or more. A moved value shows as soon as it leaves its bucket, which is 2 to 3 percent of a number wide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from mlforge.profiles.column_profile import ColumnProfile

Verdict = Literal["drifted", "moved", "steady", "unknown"]
DRIFTED, MOVED = 0.2, 0.1
"""The population stability indexes from which on a column has drifted, and has moved, by the usual rule of thumb."""
FEWEST = 100
"""Values on both sides below which an index says nothing."""
_BINS = 10
_ORDERED = ("number", "boolean", "time")
_UNSEEN = 0.5  # rows that each bin has beside its own, so that one without rows has a logarithm


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """A column's drift from `a` to `b`.

    psi: the population stability index. ks: the greatest distance of the two distributions at the edge of a bucket,
    of numbers, booleans and times (Kolmogorov-Smirnov). null_rates: the shares of rows without a finite value. values: rows with
    one. Figures are None where a side has no values, or where values of the two do not compare; reason: why.
    """

    column: str
    values: tuple[int, int]
    null_rates: tuple[float | None, float | None]
    psi: float | None = None
    ks: float | None = None
    reason: str | None = None

    def verdict(self, limit: float = DRIFTED) -> Verdict:
        """Whether it has drifted (an index of `limit` and more), moved, neither, or has too few values to tell."""
        if self.psi is None or min(self.values) < FEWEST:
            return "unknown"
        if self.psi >= limit:
            return "drifted"
        return "moved" if self.psi >= min(MOVED, limit) else "steady"


def drift_of(column: str, a: ColumnProfile, b: ColumnProfile) -> ColumnDrift:
    """The drift of a column from the profile `a` to the profile `b`."""
    values, null_rates = (a.values, b.values), (a.null_rate, b.null_rate)
    reason = _incomparable(a, b)
    if reason is not None:
        return ColumnDrift(column, values, null_rates, reason=reason)
    is_ordered = a.kind in _ORDERED
    counts = (a.histogram, b.histogram) if is_ordered else _categories(a, b)
    order = sorted(counts[0].keys() | counts[1].keys(), key=_order(counts[0], is_ordered))
    return ColumnDrift(
        column,
        values,
        null_rates,
        psi=_stability_index(list(_binned(order, *counts))),
        ks=_distance(order, *counts) if is_ordered else None,
    )


def _incomparable(a: ColumnProfile, b: ColumnProfile) -> str | None:
    if not (a.values and b.values):
        return "no values on both sides" if a.values == b.values else "no values on one side"
    kinds = {"number" if each.kind == "boolean" else each.kind for each in (a, b)}
    return None if len(kinds) == 1 else f"{a.dtype} and {b.dtype} do not compare"


def _categories(a: ColumnProfile, b: ColumnProfile) -> tuple[Mapping[int, int], Mapping[int, int]]:
    """Rows by distinct value where both profiles count all of them, else by buckets of hashes."""
    if a.is_complete and b.is_complete:
        counted = [{each.hash: each.rows for each in profile.sample} for profile in (a, b)]
        return counted[0], counted[1]
    return a.histogram, b.histogram


def _order(reference: Mapping[int, int], is_ordered: bool) -> Callable[[int], tuple[int, int]]:
    """The order in which buckets fill bins: of values where they have one, else the most frequent first."""
    return lambda key: (0 if is_ordered else -reference.get(key, 0), key)


def _binned(
    order: Iterable[int], a: Mapping[int, int], b: Mapping[int, int]
) -> Iterable[tuple[int, int]]:
    """Rows of both in bins, each with a tenth of the first one's rows or more; the last one has what is left."""
    least = sum(a.values()) / _BINS
    in_a = in_b = 0
    for key in order:
        in_a, in_b = in_a + a.get(key, 0), in_b + b.get(key, 0)
        if in_a >= least:
            yield in_a, in_b
            in_a = in_b = 0
    if in_a or in_b:
        yield in_a, in_b


def _stability_index(bins: list[tuple[int, int]]) -> float:
    totals = [sum(bin_[side] for bin_ in bins) + _UNSEEN * len(bins) for side in (0, 1)]
    shares = [
        [(rows + _UNSEEN) / total for rows, total in zip(bin_, totals, strict=True)]
        for bin_ in bins
    ]
    return math.fsum((b - a) * math.log(b / a) for a, b in shares)


def _distance(order: Iterable[int], a: Mapping[int, int], b: Mapping[int, int]) -> float:
    of_a, of_b = sum(a.values()), sum(b.values())
    in_a = in_b = 0
    greatest = 0.0
    for key in order:
        in_a, in_b = in_a + a.get(key, 0), in_b + b.get(key, 0)
        greatest = max(greatest, abs(in_a / of_a - in_b / of_b))
    return greatest
