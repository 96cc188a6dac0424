"""Slices of a spine by time: near instants together, so that each slice needs the events of a short time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from mlforge.core.values import HOUR_US, TimeRange

_MOST_BUCKETS = 100_000
_BUCKET, _ROWS, _SLICE, _NTH = "__bucket", "__rows", "__slice", "__nth"


@dataclass
class TimeHistogram:
    """How many rows lie in each stretch of time; stretches widen as they become many, so that memory stays flat."""

    most: int = _MOST_BUCKETS
    width: int = HOUR_US
    counts: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema={_BUCKET: pl.Int64, _ROWS: pl.UInt64})
    )

    def add(self, instants: pl.Series) -> None:
        """Count some UTC instants; null ones have a stretch of their own."""
        times = instants.to_physical().cast(pl.Int64).alias(_BUCKET)
        new = times.to_frame().with_columns(pl.lit(1, pl.UInt64).alias(_ROWS))
        self.counts = self._merged(pl.concat([self.counts, self._merged(new)]))
        while self.counts.height > self.most:
            self.width *= 2
            self.counts = self._merged(self.counts)

    def merge(self, other: TimeHistogram) -> None:
        """Count the rows of another histogram, too: in whatever order, the sum is that of one which all were added to."""
        self.width = max(self.width, other.width)
        self.counts = self._merged(pl.concat([self.counts, other.counts]))
        while self.counts.height > self.most:
            self.width *= 2
            self.counts = self._merged(self.counts)

    def rows_at(self, starts: Collection[int | None], width: int) -> Counter[int | None]:
        """How many rows lie in each of some stretches of a width, which is one of this histogram's own doubled."""
        wide = replace(self, width=width)._merged(self.counts)
        return Counter({start: rows for start, rows in wide.iter_rows() if start in starts})

    def slices(self, rows: int) -> Slices:
        """Slices of about so many rows: runs of stretches; a stretch with more rows is cut by row."""
        starts, number, held = [], -1, rows
        bases, crowded = [], []
        for start, count in self.counts.sort(_BUCKET, nulls_last=False).iter_rows():
            if held + count > rows:
                number, held = number + 1, 0
            held += count
            starts.append(start)
            bases.append(number)
            if count > rows:
                crowded.append(start)
                number += -(-count // rows) - 1
                held = rows
        table = pl.DataFrame(
            {_BUCKET: starts, _SLICE: bases}, schema={_BUCKET: pl.Int64, _SLICE: pl.Int64}
        )
        return Slices(self.width, rows, number + 1, table, frozenset(crowded))

    def _merged(self, counts: pl.DataFrame) -> pl.DataFrame:
        bucket = pl.col(_BUCKET)
        return counts.group_by(bucket - bucket.mod(self.width)).agg(pl.col(_ROWS).sum())


@dataclass
class Slices:
    """Which slice a row belongs to, by its instant. Rows are to be numbered in one pass over all of them.

    count: how many slices there are. crowded: stretches that are several slices, filled one after the other.
    """

    width: int
    rows: int
    count: int
    table: pl.DataFrame
    crowded: frozenset[int | None]
    _seen: Counter[int | None] = field(default_factory=Counter)

    def numbers(self, instants: pl.Series) -> pl.Series:
        """The number of each row's slice."""
        bucket = pl.col(_BUCKET)
        times = instants.to_physical().cast(pl.Int64).alias(_BUCKET).to_frame()
        buckets = times.select(bucket - bucket.mod(self.width))
        numbers = buckets.join(
            self.table, on=_BUCKET, how="left", nulls_equal=True, maintain_order="left"
        )[_SLICE]
        for start in self.crowded:
            is_here = buckets.select(bucket.eq_missing(pl.lit(start, pl.Int64))).to_series()
            nth = is_here.cast(pl.Int64).cum_sum() - 1 + self._seen[start]
            numbers = (numbers + nth // self.rows).zip_with(is_here, numbers)
            self._seen[start] += int(is_here.sum())
        return numbers

    def bounds(self, first: int, end: int) -> tuple[TimeRange | None, bool]:
        """The time of all stretches with rows in the slices from `first` until before `end`, and whether rows without a time are among them."""
        following = pl.col(_SLICE).shift(-1, fill_value=self.count)
        most = pl.max_horizontal(pl.col(_SLICE) + 1, following)
        own = self.table.filter((pl.col(_SLICE) < end) & (most > first))[_BUCKET]
        known = own.drop_nulls().sort()
        if known.is_empty():
            return None, len(own) > 0
        return TimeRange(known[0], known[-1] + self.width - 1), len(known) < len(own)

    def from_row(self, seen: Iterable[tuple[int | None, int]]) -> Slices:
        """The same slices, for rows before which so many of each crowded stretch were numbered."""
        return replace(self, _seen=Counter(dict(seen)))

    def to_json(self) -> dict[str, Any]:
        """The slices as a document."""
        table = [self.table[_BUCKET].to_list(), self.table[_SLICE].to_list()]
        crowded = [*self.crowded]
        return {"width": self.width, "rows": self.rows, "count": self.count, "table": table, "crowded": crowded}  # fmt: skip

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Slices:
        """Read what `to_json` wrote."""
        starts, numbers = document["table"]
        table = pl.DataFrame({_BUCKET: starts, _SLICE: numbers}, schema={_BUCKET: pl.Int64, _SLICE: pl.Int64})  # fmt: skip
        width, rows, count = document["width"], document["rows"], document["count"]
        return cls(width, rows, count, table, frozenset(document["crowded"]))
