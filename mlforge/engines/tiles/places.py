"""Places: an entity and an interval as one number, by which polars groups and sorts in less time than by two columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import polars as pl

from mlforge.compilers.base import TIME
from mlforge.core.feature_spec import FeatureSpec
from mlforge.engines import timeline

_MOST = 1 << 62
_NUMBER = "__number"


@dataclass(frozen=True, slots=True)
class Places:
    """The places of some events, in the order of time, then of the key.

    least: the least key. keys: how many there are from that one to the greatest. first: the number of the first interval.
    """

    key: str
    dtype: pl.DataType
    least: int
    keys: int
    first: int
    interval_us: int

    @classmethod
    def of(cls, events: pl.DataFrame, spec: FeatureSpec) -> Self | None:
        """The places of events, which have keys and TIME; None where an entity is no integer, or is null, or numbers would not fit."""
        key, *others = spec.entity
        if others or spec.interval is None or not events.height or events[key].null_count():
            return None
        least, greatest = events[key].min(), events[key].max()
        if not isinstance(least, int) or not isinstance(greatest, int):
            return None
        first, last = (time // spec.interval.us for time in timeline.extremes(events))
        keys = greatest - least + 1
        if least <= -_MOST or greatest >= _MOST or keys * (last - first + 1) >= _MOST:
            return None
        return cls(key, events[key].dtype, least, keys, first, spec.interval.us)

    @property
    def numbers(self) -> pl.Expr:
        """The number of an event's place."""
        entity = pl.col(self.key).cast(pl.Int64) - self.least
        interval = pl.col(TIME) // self.interval_us - self.first
        return (interval * self.keys + entity).alias(_NUMBER)

    def apart(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows with keys, and the start of the interval as TIME, in the place of numbers."""
        number = pl.col(_NUMBER)
        entity = (number % self.keys + self.least).cast(self.dtype).alias(self.key)
        time = ((number // self.keys + self.first) * self.interval_us).alias(TIME)
        return rows.select(entity, time, pl.exclude(_NUMBER))

    def distinct(self, events: pl.DataFrame) -> pl.DataFrame:
        """The distinct places of events, as `apart` gives them, by time, then by key."""
        numbers = events.select(self.numbers).to_series().unique().sort()
        return self.apart(numbers.to_frame())
