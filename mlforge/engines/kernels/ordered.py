"""A value column of a timeline in the order of (entity, instant, value), and windows as slices of it.

A window holds all rows of its instants, so ordering the rows of one instant by value leaves every window
the same set: the first and the last of a slice then are the least and the greatest (instant, value) pair, in
whatever order files and rows came.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import polars as pl

from mlforge.compilers.base import ENTITY, TIME
from mlforge.engines.kernels.occurrences import Codes
from mlforge.engines.kernels.pairwise import Segments

_INDEX, _GROUP, _VALUE = "__index", "__group", "__value"


@dataclass(frozen=True)
class OrderedValues:
    """The values of a column that are not null, by entity, instant and value, and their instants (Int64).

    before: for each row of the line, and for its end, the number of values in earlier rows (Int64). weights: how often each
    of them counts (Int64); None for once.
    """

    values: pl.Series
    times: pl.Series
    before: pl.Series
    weights: pl.Series | None = None

    @property
    def codes(self) -> Codes:
        """The values as numbers."""
        return self._coded[0]

    @property
    def distinct(self) -> pl.Series:
        """The distinct values in ascending order: their positions are their codes."""
        return self._coded[1]

    @cached_property
    def _coded(self) -> tuple[Codes, pl.Series]:
        return Codes.of(self.values, self.weights)

    @classmethod
    def of(cls, line: pl.DataFrame, column: str, weights: pl.Series | None = None) -> OrderedValues:
        """The values of a line, which is sorted by entity, then time; with weights those of an instant are in any order."""
        present = line[column].is_not_null()
        before = pl.Series([0], dtype=pl.Int64).append(present.cast(pl.Int64).cum_sum())
        rows = line.select(ENTITY, TIME, pl.col(column).alias(_VALUE)).filter(present)
        values = rows[_VALUE]
        if values.dtype.is_float() and (zero := values == 0.0).any():
            values = values.set(zero, 0.0)  # of equal values one form: -0.0 becomes 0.0
        if weights is not None:
            return cls(values, rows[TIME], before, weights.filter(present))
        return cls(by_value(rows, values), rows[TIME], before)

    def slices(self, segments: Segments) -> Segments:
        """Segments of the line's rows as segments of the values."""
        starts = self.before.gather(segments.starts)
        return Segments(starts, self.before.gather(segments.starts + segments.lengths) - starts)


def by_value(rows: pl.DataFrame, values: pl.Series) -> pl.Series:
    """The values of rows by entity, then time, with those of one entity and instant in order, nulls first; most instants have one."""
    differs = (pl.col(name).ne_missing(pl.col(name).shift()) for name in (ENTITY, TIME))
    begins = rows.select(pl.any_horizontal(differs)).to_series()
    tied = (~(begins & begins.shift(-1, fill_value=True))).arg_true()
    if tied.is_empty():
        return values
    groups = begins.cum_sum().gather(tied).alias(_GROUP)
    among = pl.DataFrame([groups, values.gather(tied).alias(_VALUE), tied.alias(_INDEX)])
    at = pl.int_range(len(values), dtype=pl.Int64, eager=True)
    in_order = among.sort(_GROUP, _VALUE)[_INDEX].cast(pl.Int64)
    return values.gather(at.scatter(tied, in_order))
