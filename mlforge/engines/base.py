"""The contract of an engine: `value(entity, t)`, evaluated at many points at once.

The build, the training join and the online push all come here. `Engine.values` owns the algorithm;
an engine supplies one primitive, `aggregate`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from mlforge import frames, timemodel
from mlforge.compilers.base import ENTITY, ROW, TIME, ComputeContext, value_alias
from mlforge.errors import DataError
from mlforge.manifest import Partial
from mlforge.schema import Column, Schema, dtypes
from mlforge.spec import FeatureSpec
from mlforge.values import TimeRange

POINT = "__point"
_INT64 = (-(1 << 63), (1 << 63) - 1)


@dataclass(frozen=True)
class Events:
    """A version's events: stored partials, the schema that they share, and what they mean.

    `where` gives the file of a partial's hash; it is asked only for those that are read.
    """

    spec: FeatureSpec
    schema: Schema
    partials: tuple[Partial, ...]
    where: Callable[[str], Path]

    def within(self, times: TimeRange | None) -> Events:
        """Only the partials that hold an event in the range."""
        if times is None:
            return self
        kept = tuple(p for p in self.partials if p.times and p.times.overlaps(times))
        return Events(self.spec, self.schema, kept, self.where)

    def scan(
        self, columns: Sequence[str] | None = None, times: TimeRange | None = None
    ) -> pl.LazyFrame:
        """The events, lazily: some columns, those of a time range, in no particular order."""
        wanted = tuple(c for c in self.schema if columns is None or c.name in columns)
        chosen = self.within(times)
        groups: dict[Schema, list[Path]] = {}
        for partial in chosen.partials:
            groups.setdefault(partial.schema, []).append(self.where(partial.hash))
        scans = [
            frames.select_typed(pl.scan_parquet(paths, glob=False), dtypes(schema), wanted)
            for schema, paths in groups.items()
        ]
        found = pl.concat(scans) if scans else frames.empty(wanted).lazy()
        if times is None or self.spec.timestamp is None:
            return found
        time = pl.col(self.spec.timestamp)
        return found.filter(time.is_between(frames.instant(times.start), frames.instant(times.end)))


class Engine(ABC):
    """Evaluates a feature's metrics. Engines differ in the kernel alone, never in what it returns."""

    name: ClassVar[str]

    @abstractmethod
    def aggregate(self, line: pl.DataFrame, context: ComputeContext) -> pl.DataFrame:
        """Every metric at every instant that is asked for.

        line: events, and points where no event is, sorted by entity (UInt32), then time (Int64
            microseconds), with the value columns, which are null for points. `ROW` (UInt32) numbers the
            rows at which to evaluate, one of each entity and instant; it is null in all others.
        Returns ROW and one column a metric for the numbered rows, in any order; no rounding, no defaults.
        """

    def values(self, events: Events, points: pl.DataFrame) -> pl.DataFrame:
        """`value(entity, t)` for each row of `points`: its keys and `POINT`, an instant, in its order.

        Returns the metric columns alone, one row for each point: count 0 and null for all else where
        a window is empty, results that are not finite as null. Raises DataError when an integer or
        decimal sum does not fit its dtype.
        """
        spec = events.spec
        columns = spec.values(events.schema)
        if points.is_empty():
            return frames.empty(columns)
        asked = _asked(points, spec)
        entities = asked.select(spec.keys).unique(maintain_order=True).with_row_index(ENTITY)
        asked = asked.join(
            entities, on=list(spec.keys), how="left", nulls_equal=True, maintain_order="left"
        ).select(ENTITY, TIME)
        least, greatest = asked[TIME].min(), asked[TIME].max()
        assert isinstance(least, int)
        assert isinstance(greatest, int)
        seen = timemodel.events_seen(TimeRange(least, greatest), spec.windows)
        context = ComputeContext(spec.columns, dtypes(events.schema))
        line = _line(_gather(events, seen, entities, context), asked.unique())
        found = self.aggregate(line, context).sort(ROW)
        numbered = line.filter(pl.col(ROW).is_not_null()).select(ENTITY, TIME)
        answers = numbered.hstack(found.drop(ROW))
        answers = asked.join(answers, on=[ENTITY, TIME], how="left", maintain_order="left")
        return answers.select(_settle(answers, column, spec.name) for column in columns)


def _asked(points: pl.DataFrame, spec: FeatureSpec) -> pl.DataFrame:
    """The points with their time moved to where it is evaluated."""
    time = pl.col(POINT).to_physical()
    if spec.interval is not None:
        time = time - time.mod(spec.interval.us)
    return points.select(*spec.keys, time.alias(TIME))


def _gather(
    events: Events, seen: TimeRange, entities: pl.DataFrame, context: ComputeContext
) -> pl.DataFrame:
    """The events of those entities that any window sees, in the kernel's columns."""
    spec = events.spec
    assert spec.timestamp is not None
    return (
        events.scan(spec.needed(), seen)
        .join(entities.lazy(), on=list(spec.keys), how="inner", coalesce=False)
        .select(
            pl.col(ENTITY),
            frames.microseconds(spec.timestamp).alias(TIME),
            *(pl.col(column).alias(value_alias(column)) for column in context.value_columns()),
        )
        .collect()
    )


def _line(events: pl.DataFrame, asked: pl.DataFrame) -> pl.DataFrame:
    """Events and the points that coincide with none, sorted, the rows to evaluate numbered."""
    where = [ENTITY, TIME]
    absent = asked.join(events.select(where), on=where, how="anti")
    line = pl.concat([events, absent], how="diagonal").sort(where)
    new = pl.any_horizontal(pl.col(where).ne_missing(pl.col(where).shift()))
    line = line.with_columns(pl.when(new).then(pl.int_range(pl.len(), dtype=pl.UInt32)).alias(ROW))
    if line.height - line[ROW].null_count() == asked.height:
        return line
    wanted = asked.with_columns(pl.lit(True).alias("__wanted"))
    line = line.join(wanted, on=where, how="left", maintain_order="left")
    return line.with_columns(pl.when(pl.col("__wanted")).then(pl.col(ROW))).drop("__wanted")


def _settle(found: pl.DataFrame, column: Column, owner: str) -> pl.Expr:
    """The engine's result in the column's dtype, with what an empty window means."""
    dtype = frames.to_polars(column.dtype)
    value = pl.col(column.name)
    if column.aggregation == "count":
        return value.fill_null(0).cast(dtype)
    if column.aggregation == "sum" and column.dtype == "Int64":
        _check_sum(found[column.name], owner)
    return frames.finite(value.cast(dtype), dtype).alias(column.name)


def _check_sum(sums: pl.Series, owner: str) -> None:
    """Engines add integers in more than 64 bits, so one that does not fit is seen here."""
    least, greatest = sums.min(), sums.max()
    if least is not None and not (_INT64[0] <= int(str(least)) and int(str(greatest)) <= _INT64[1]):
        raise overflow([sums.name], "Int64", owner)


def overflow(names: Sequence[str], dtype: str, owner: str = "") -> DataError:
    """A sum that its dtype cannot hold."""
    where = f"{owner}: " if owner else ""
    return DataError(
        f"{where}{' or '.join(names)} does not fit into {dtype}; cast the column to Float64 in the feature's function"
    )
