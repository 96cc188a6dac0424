"""The profile of a column: sums, extremes and sketches of its values, each of which merges exactly.

The profile of a whole is the merge of its parts' profiles, bit for bit, whatever the parts and their order. So
the sums of numbers and of their squares are kept as fractions without any rounding, not as floats: an exact sum
does not depend on the order, where one that is rounded does, and mean and standard deviation are rounded once, at the end.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from mlforge.errors import DataError
from mlforge.profiles import registers

Kind = Literal["number", "time", "boolean", "text", "nested", "null"]
Scalar = int | float | bool | str | Decimal
"""A value as profiles hold it: instants and dates as UTC microseconds, nested values as JSON."""
SAMPLED = 128
"""Distinct values whose rows a profile counts one by one."""
_COMPARED_AS_NUMBERS = ("number", "boolean")


@dataclass(frozen=True, slots=True)
class Counted:
    """A distinct value by its hash, and the number of rows that hold it."""

    hash: int
    value: Scalar
    rows: int


@dataclass(frozen=True)
class ColumnProfile:
    """The profile of a column's values.

    rows: all rows. nulls, nans, infinities: rows without a finite value, which all else here leaves out. total,
    squares: the exact sums of numbers and of their squares; of times in microseconds since 1970. histogram: rows
    by bucket: of numbers as `mlforge.profiles.buckets` cuts them, of times weeks since 1970, of others by 8
    bits of their hash. registers: a sketch of the hashes. sample: the distinct values with the least hashes, ascending
    by hash, with exact counts: all of them where they are fewer than `SAMPLED`.
    """

    kind: Kind
    dtype: str
    rows: int = 0
    nulls: int = 0
    nans: int = 0
    infinities: int = 0
    least: Scalar | None = None
    greatest: Scalar | None = None
    total: Fraction = Fraction(0)
    squares: Fraction = Fraction(0)
    histogram: Mapping[int, int] = field(default_factory=dict)
    registers: bytes = registers.EMPTY
    sample: tuple[Counted, ...] = ()

    @property
    def missing(self) -> int:
        """Rows without a finite value: NaN and infinities count as null."""
        return self.nulls + self.nans + self.infinities

    @property
    def values(self) -> int:
        """Rows with a finite value."""
        return self.rows - self.missing

    @property
    def null_rate(self) -> float | None:
        """The share of rows without a finite value; None without rows."""
        return self.missing / self.rows if self.rows else None

    @property
    def mean(self) -> float | None:
        """The mean of numbers, correctly rounded; None without values, or where there is no sum of such values."""
        if self.kind not in _COMPARED_AS_NUMBERS or not self.values:
            return None
        return _float(self.total / self.values)

    @property
    def std(self) -> float | None:
        """The standard deviation of a sample (n - 1); None of fewer than two numbers."""
        n = self.values
        if self.kind not in _COMPARED_AS_NUMBERS or n < 2:
            return None
        return _square_root((n * self.squares - self.total**2) / (n * (n - 1)))

    @property
    def is_complete(self) -> bool:
        """Whether the sample holds every distinct value."""
        return len(self.sample) < SAMPLED

    @property
    def distinct(self) -> int:
        """How many distinct values there are: exact below `SAMPLED`, else an estimate."""
        if self.is_complete:
            return len(self.sample)
        return max(round(registers.estimate(self.registers)), SAMPLED)

    def top(self, count: int) -> list[Counted]:
        """The most frequent values of the sample, the most frequent first."""
        return sorted(self.sample, key=lambda value: (-value.rows, value.hash))[:count]

    def merged(self, other: ColumnProfile) -> ColumnProfile:
        """The profile of the rows of both.

        Raises DataError where both hold values of different dtypes. A column that is null throughout goes with any.
        """
        if self.dtype != other.dtype:
            if other.kind == "null":
                return replace(self, rows=self.rows + other.rows, nulls=self.nulls + other.nulls)
            if self.kind == "null":
                return other.merged(self)
            raise DataError(
                f"profiles of {self.dtype} and of {other.dtype} values do not merge; "
                "profile columns of one dtype together"
            )
        return ColumnProfile(
            kind=self.kind,
            dtype=self.dtype,
            rows=self.rows + other.rows,
            nulls=self.nulls + other.nulls,
            nans=self.nans + other.nans,
            infinities=self.infinities + other.infinities,
            least=_pick(min, self.least, other.least),
            greatest=_pick(max, self.greatest, other.greatest),
            total=self.total + other.total,
            squares=self.squares + other.squares,
            histogram=_added(self.histogram, other.histogram),
            registers=registers.merged(self.registers, other.registers),
            sample=_merged_samples(self.sample, other.sample),
        )

    def filled(self, value: ColumnProfile) -> ColumnProfile:
        """The profile of the rows with a value in place of each null; `value` is the profile of one row that has it."""
        times = self.nulls
        if not times:
            return self
        placed = replace(
            value,
            rows=value.rows * times,
            total=value.total * times,
            squares=value.squares * times,
            histogram={bucket: rows * times for bucket, rows in value.histogram.items()},
            sample=tuple(replace(each, rows=each.rows * times) for each in value.sample),
        )
        return replace(self, rows=self.rows - times, nulls=0).merged(placed)


def _pick(choose: object, a: Scalar | None, b: Scalar | None) -> Scalar | None:
    present = [value for value in (a, b) if value is not None]
    return choose(present) if present else None  # type: ignore[operator]


def _added(a: Mapping[int, int], b: Mapping[int, int]) -> dict[int, int]:
    return dict(sorted((Counter(a) + Counter(b)).items()))


def _merged_samples(a: tuple[Counted, ...], b: tuple[Counted, ...]) -> tuple[Counted, ...]:
    """The distinct values of both with the least hashes.

    A value that is among the least of both together is among the least of each that holds it: so its count is exact.
    """
    by_hash = {counted.hash: counted for counted in a}
    for counted in b:
        known = by_hash.get(counted.hash)
        by_hash[counted.hash] = counted if known is None else _both(known, counted)
    return tuple(by_hash[hash_] for hash_ in sorted(by_hash)[:SAMPLED])


def _both(a: Counted, b: Counted) -> Counted:
    return replace(a, rows=a.rows + b.rows)


def _float(value: Fraction) -> float:
    """The nearest float; infinite beyond the greatest."""
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def _square_root(value: Fraction) -> float:
    """The square root to 64 bits and more, also of fractions that no float holds."""
    bits = value.denominator.bit_length() - value.numerator.bit_length() + 160
    shift = max(bits + bits % 2, 0)
    root = math.isqrt((value.numerator << shift) // value.denominator)
    return _float(Fraction(root, 1 << (shift // 2)))
