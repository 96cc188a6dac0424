"""How far the values of a column have moved from one profile to another. Pure.

Numbers, booleans and times are compared by buckets in their order, texts and nested values by their distinct values, or, where
there are too many to count one by one, by buckets of their hashes. A bin holds a tenth of the values of either side or more, and
a bucket that does so alone is a bin of its own: a moved value shows as soon as it leaves its bucket, which is 2 to 3 percent of a
number wide. Rows without a value are compared with those that have one, as two bins.
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

    psi: the population stability index of the values. null_psi: that of rows with and without a finite value. ks: the greatest distance of the two distributions at the edge of a bucket,
    of numbers, booleans and times (Kolmogorov-Smirnov). null_rates: the shares of rows without a finite value. values: rows with
    one; rows: all. psi and ks are None where a side has no values, or where values of the two do not compare; reason: why.
    """

    column: str
    values: tuple[int, int]
    rows: tuple[int, int]
    null_rates: tuple[float | None, float | None]
    psi: float | None = None
    ks: float | None = None
    reason: str | None = None
    comparable: bool = True

    @property
    def null_psi(self) -> float | None:
        """The population stability index of rows with and without a finite value; None where a side has no rows."""
        if not all(self.rows):
            return None
        missing = [rows - values for rows, values in zip(self.rows, self.values, strict=True)]
        return _stability_index([self.values, (missing[0], missing[1])])

    @property
    def index(self) -> float | None:
        """The greater index, of the values or of the rows that have none; None with too few rows to tell.

        Values that do not compare have none.
        """
        known = [
            index
            for index, sizes in ((self.psi, self.values), (self.null_psi, self.rows))
            if index is not None and min(sizes) >= FEWEST
        ]
        return max(known) if known and self.comparable else None

    def verdict(self, limit: float = DRIFTED) -> Verdict:
        """Whether it has drifted (an index of `limit` and more), moved, neither, or has too few rows to tell.

        The greater index decides, of the values or of the rows that have none.
        """
        index = self.index
        if index is None:
            return "unknown"
        if index >= limit:
            return "drifted"
        if index >= min(MOVED, limit):
            return "moved"
        # Rows alone say that nothing has moved only where there are no values to look at.
        return "steady" if self.psi is None or min(self.values) >= FEWEST else "unknown"


def drift_of(column: str, a: ColumnProfile, b: ColumnProfile) -> ColumnDrift:
    """The drift of a column from the profile `a` to the profile `b`."""
    sizes = (a.values, b.values), (a.rows, b.rows), (a.null_rate, b.null_rate)
    if not (a.values and b.values):
        return ColumnDrift(column, *sizes, reason=_nothing(a, b))
    if _kind(a) != _kind(b):
        reason = f"{a.dtype} and {b.dtype} do not compare"
        return ColumnDrift(column, *sizes, reason=reason, comparable=False)
    is_ordered = a.kind in _ORDERED
    counts = (a.histogram, b.histogram) if is_ordered else _categories(a, b)
    order = sorted(counts[0].keys() | counts[1].keys(), key=_order(counts[0], is_ordered))
    return ColumnDrift(
        column,
        *sizes,
        psi=_stability_index(list(_binned(order, *counts))),
        ks=_distance(order, *counts) if is_ordered else None,
    )


def _nothing(a: ColumnProfile, b: ColumnProfile) -> str:
    """The words for sides without values. Rows whose windows are still filling are in no profile."""
    if a.rows and b.rows:
        return f"no values on {'both sides' if a.values == b.values else 'one side'}"
    return f"no rows on {'both sides' if a.rows == b.rows else 'one side'} whose windows are full"


def _kind(profile: ColumnProfile) -> str:
    return "number" if profile.kind == "boolean" else profile.kind


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
    """Rows of both in bins, each with a tenth of either side's rows or more; the last one has what is left.

    A bucket that has a tenth by itself is a bin of its own, so that rows beside it do not hide in it.
    """
    least_a, least_b = sum(a.values()) / _BINS, sum(b.values()) / _BINS
    in_a = in_b = 0
    for key in order:
        of_a, of_b = a.get(key, 0), b.get(key, 0)
        if (in_a or in_b) and (of_a >= least_a or of_b >= least_b):
            yield in_a, in_b
            in_a = in_b = 0
        in_a, in_b = in_a + of_a, in_b + of_b
        if in_a >= least_a or in_b >= least_b:
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
