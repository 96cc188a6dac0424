"""The contract of an engine: `value(entity, t)`, evaluated at many points at once.

The build, the training join and the online push all come here. `Engine.values` owns the algorithm;
an engine supplies one primitive, `aggregate`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar

import polars as pl

from mlforge.compilers.base import (
    ENTITY,
    ROW,
    TIME,
    ComputeContext,
    result_name,
    value_alias,
    value_columns,
    value_name,
)
from mlforge.core import time_model
from mlforge.core.aggregations import aggregation
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.metrics import MetricColumn
from mlforge.core.schema import Column
from mlforge.core.values import BEGINNING, END, TimeRange
from mlforge.engines import timeline
from mlforge.engines.events import Events
from mlforge.engines.kernels.prefix_sums import SumOverflow
from mlforge.engines.kernels.segments_kernel import aggregate_at_points
from mlforge.engines.kernels.weighted import Weights, aggregate_weighted
from mlforge.engines.known_metrics import shared_timeline, with_known_metrics
from mlforge.engines.plan import Step, line_of, plan, times_of
from mlforge.engines.tiles.build import DENSE
from mlforge.engines.tiles.held import WEIGHT
from mlforge.engines.timeline import ROW_DTYPE
from mlforge.errors import DataError
from mlforge.frames import polars_schema
from mlforge.frames.entity_times import EntityTimes, part_within

POINT = "__point"
MEMORY_LIMIT = 2 << 30
_INT64 = (-(1 << 63), (1 << 63) - 1)
# Measured: what a build takes for each row and value, with the events of the windows before.
_EVENT_BYTES, _VALUE_BYTES = 200, 40
_TASK_BYTES = 2 << 30
Kernel = Callable[[pl.DataFrame, ComputeContext], pl.DataFrame]
"""Gives ROW and the result of each aggregate from a timeline, as `Engine.aggregate` does."""


def rows_at_once(spec: FeatureSpec) -> int:
    """The number of stored rows that a full build evaluates at a time, in about 2 GiB.

    It follows from the feature alone, never from the machine: sums of floats may differ in their last bits
    with the range of time that is evaluated, and a version is to have the same bytes wherever it was built.
    """
    values = sum(aggregation(column.aggregation).most_values for column in spec.columns)
    return max(1, _TASK_BYTES // (_EVENT_BYTES + _VALUE_BYTES * values))


class Engine(ABC):
    """Evaluates a feature's metrics. Engines differ in the kernel alone, never in what it returns.

    events_at_once: about how many events an evaluation holds in memory at a time. Small in tests, so
        that seams are crossed.
    rows_a_point: from so many rows a point on, kernels look windows up at the points instead of
        rolling over all rows.
    memory_limit: the bytes that a kernel which can spill keeps in memory; no result depends on it.
    libraries: the modules of libraries whose release may show in the bytes of a result.
    adds_up_exactly: whether it rounds a sum of floats once, at its end, where a fixed point holds the sums of all values.
    """

    name: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]] = ("polars",)
    adds_up_exactly: ClassVar[bool] = False
    events_at_once: ClassVar[int] = 2_000_000
    rows_a_point: ClassVar[int] = 4

    def __init__(self, memory_limit: int = MEMORY_LIMIT) -> None:
        self.memory_limit = memory_limit

    def are_few(self, points: pl.DataFrame, line: pl.DataFrame) -> bool:
        """Whether a kernel is to look windows up at the points of a line instead of rolling over all its rows."""
        return points.height * self.rows_a_point <= line.height

    @abstractmethod
    def aggregate(
        self, line: pl.DataFrame, context: ComputeContext, points: pl.DataFrame | None = None
    ) -> pl.DataFrame:
        """Compute every aggregate of the context at every numbered row of a timeline.

        line: events and points, sorted by entity (UInt32), then time (Int64 microseconds); with the
            value columns `value_name(i)`, which are null for points. `ROW` (UInt32) numbers the rows at
            which to evaluate; it is null in all others. A window holds all rows of its range, whatever
            their order.
        points: entity, time and ROW of the points, sorted likewise, where the line has events alone; windows are then
            looked up at them. An entity of theirs need not be in the line.
        Returns ROW and `result_name(j)` for each aggregate, for the numbered rows, in their order; no
        rounding, no defaults. Raises SumOverflow where a decimal sum has more than 38 digits.
        """

    def values(self, events: Events, points: pl.DataFrame) -> pl.DataFrame:
        """`value(entity, t)` for each row of `points`, which has the feature's keys and the instant `POINT`.

        Returns the metric columns alone, one row for each point, in the order of the points. An empty window
        gives count 0 and null for every other aggregation; a result that is not finite is null. Raises
        DataError when an integer or decimal sum does not fit its dtype.
        """
        spec, columns = events.spec, events.spec.plain.values(events.schema)
        if points.is_empty():
            return polars_schema.empty(columns)
        numbered = points.select(
            *spec.entity,
            _evaluated_at(spec).alias(TIME),
            pl.int_range(pl.len(), dtype=ROW_DTYPE).alias(ROW),
        )
        answers = []
        for some in self._by_time(events, numbered):
            metrics = self._metrics_at(events, some)
            settled = (_settle(metrics, column, spec.name) for column in columns)
            answers.append(metrics.select(ROW, *settled))
        rows = timeline.by_number(pl.concat(answers), ROW)
        return rows[[column.name for column in columns]]

    def rows(self, events: Events, within: TimeRange | EntityTimes | None = None) -> pl.DataFrame:
        """The values of a continuous feature at its own events: keys, timestamp and metric columns.

        One row for each entity and instant of an event, sorted by time, then keys. within: the range of the rows, in
        UTC microseconds, or some entities, each with a range of its own. Raises DataError as `values` does.
        """
        totals = events.totals
        if within is None or totals is None:
            return self._rows_of_line(events, within)
        rows = []
        if earlier := part_within(within, TimeRange(BEGINNING, totals.since - 1)):
            rows.append(self._rows_of_line(events, earlier))
        if later := part_within(within, TimeRange(totals.since, END)):
            rows.append(self._rows_at(events, later))
        if len(rows) == 1:
            return rows[0]
        return pl.concat(rows).sort(events.spec.order)

    def _rows_of_line(self, events: Events, within: TimeRange | EntityTimes | None) -> pl.DataFrame:
        """The rows from a timeline of all events that they see."""
        spec = events.spec
        line, keys_and_times = shared_timeline(events, within, lambda: _timeline(events, within))
        dtypes = spec.value_dtypes(events.schema)

        def aggregated(metrics: Sequence[MetricColumn]) -> pl.DataFrame:
            events.of_metrics(metrics).spec.values(events.schema)  # refuses what no kernel computes
            return self._aggregated(line, metrics, dtypes, spec.name, self.aggregate)

        results = with_known_metrics((type(self), dtypes), line, spec, aggregated)
        values = (
            _settle(results, column, spec.name) for column in spec.plain.values(events.schema)
        )
        return keys_and_times.hstack(results.select(values)).sort(spec.order)

    def _rows_at(self, events: Events, within: TimeRange | EntityTimes) -> pl.DataFrame:
        """The same by evaluating the points: for windows over all time most events need not be read."""
        spec = events.spec
        time = str(spec.timestamp)
        points = events.rows(spec.identity, within).select(*spec.entity, pl.col(time).alias(POINT))
        at = points.unique().sort(POINT, *spec.entity).collect()
        rows = at.rename({POINT: time}).hstack(self.values(events, at))
        return rows.select(*spec.keys, time, *(column.name for column in spec.columns))

    def _metrics_at(self, events: Events, points: pl.DataFrame) -> pl.DataFrame:
        """ROW and each metric at some points, in any order; columns in the spec's order, whatever the steps'."""
        spec = events.spec
        keys = points.lazy().select(spec.entity)
        entities = polars_schema.in_memory(keys.unique(maintain_order=True))
        numbered = timeline.with_numbers(points.lazy(), entities).select(ENTITY, TIME, ROW)
        ordered = timeline.by_entity(polars_schema.in_memory(numbered))
        answers = ordered[[ROW]]
        for step in plan(events, points, entities, self.events_at_once):
            line, apart = self._line(step, entities, ordered)
            kernel = self._kernel(step, line, apart)
            results = self._aggregated(line, step.metrics, step.dtypes, spec.name, kernel)
            answers = answers.hstack(results.select(step.outputs))
        return answers[[ROW, *(column.name for column in spec.columns)]]

    def _line(
        self, step: Step, entities: pl.DataFrame, points: pl.DataFrame
    ) -> tuple[pl.DataFrame, pl.DataFrame | None]:
        """The timeline of a step, and the points where they are few enough to be apart from it; else they are among its rows."""
        numbered = timeline.with_numbers(step.rows, entities)
        rows = numbered.collect(engine=polars_schema.engine_for(step.most))
        if step.merged or (not step.weighted and self.are_few(points, rows)):
            return timeline.by_entity(rows), points
        return timeline.by_entity(pl.concat([rows, points], how="diagonal")), None

    def _kernel(self, step: Step, line: pl.DataFrame, apart: pl.DataFrame | None) -> Kernel:
        """The kernel for the line of a step: the engine's own where rows are events, else one that all engines share."""
        if step.weighted:
            return partial(aggregate_weighted, weights=Weights(line[WEIGHT], step.distinct_weigh))
        if step.merged and apart is not None:
            return partial(aggregate_at_points, points=apart)
        return partial(self.aggregate, points=apart)

    def _aggregated(
        self,
        line: pl.DataFrame,
        metrics: Sequence[MetricColumn],
        dtypes: Mapping[str, str],
        owner: str,
        kernel: Kernel,
    ) -> pl.DataFrame:
        """ROW and the metrics by their names, as `aggregate` has them; the kernel sees positions alone."""
        values = (
            line[value_alias(column)].alias(value_name(index))
            for index, column in enumerate(value_columns(metrics))
        )
        numbers = (line[name] for name in (ENTITY, TIME, ROW) if name in line.columns)
        plain = pl.DataFrame([*numbers, *values])
        context = ComputeContext.of(metrics, dtypes)
        try:
            results = kernel(plain, context)
        except SumOverflow as error:
            names = [metrics[position].name for position in error.positions]
            raise overflow(names, error.dtype, owner) from error
        named = (
            results[result_name(index)].alias(metric.name) for index, metric in enumerate(metrics)
        )
        return pl.DataFrame([results[ROW], *named])

    def _by_time(self, events: Events, points: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """The points in ranges of time, so that no more events than `events_at_once` are needed at once.

        Points that totals serve are apart from earlier ones.
        """
        times, totals = times_of(points), events.totals
        if totals is not None and times.start < totals.since <= times.end:
            is_served = pl.col(TIME) >= totals.since
            yield from self._by_time(events, points.filter(~is_served))
            yield from self._by_time(events, points.filter(is_served))
            return
        windows = events.windows_since(times.start)
        seen = time_model.events_seen(times, windows) if windows else times
        if totals is not None and totals.since <= times.start:
            seen = seen.union(TimeRange(min(totals.until, times.end), times.end))
        # A tile stands for several events.
        most = self.events_at_once * (DENSE if events.are_tiled(seen) else 1)
        ranges = events.within(seen).ranges(most, windows)
        if len(ranges) == 1:
            yield points
            return
        for times in ranges:
            part = points.filter(pl.col(TIME).is_between(times.start, times.end))
            if not part.is_empty():
                yield part


def _timeline(
    events: Events, within: TimeRange | EntityTimes | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The timeline of the events that rows of some range see, and the keys and times of these rows."""
    spec = events.spec
    line, inside = line_of(events, within)
    ordered = timeline.with_entities(timeline.sorted_(line, spec.entity), spec.entity)
    line = polars_schema.in_memory(timeline.numbered(ordered, inside))
    time = pl.col(TIME).cast(polars_schema.UTC_INSTANT).alias(str(spec.timestamp))
    points = line.lazy().filter(pl.col(ROW).is_not_null()).select(*spec.keys, time)
    return line, polars_schema.in_memory(points)


def _evaluated_at(spec: FeatureSpec) -> pl.Expr:
    """The instant at which the value of a point is evaluated."""
    time = pl.col(POINT).to_physical()
    return time if spec.interval is None else time - time.mod(spec.interval.us)


def _settle(results: pl.DataFrame, column: Column, owner: str) -> pl.Expr:
    """The kernel's result in the column's dtype, 0 or null for an empty window.

    Of zeros one form, -0.0 as 0.0: which of the two a least value is follows from the order of rows.
    """
    dtype = polars_schema.to_polars(column.dtype)
    value = pl.col(column.name)
    assert column.aggregation is not None
    kind = aggregation(column.aggregation).kind
    if isinstance(kind.empty, int):
        value = value.fill_null(kind.empty)
    if column.aggregation == "sum" and column.dtype == "Int64":
        _check_sum(results[column.name], owner)
    value = value.cast(dtype)
    if dtype.is_float():
        value = pl.when(value == 0).then(pl.lit(0.0, dtype)).otherwise(value)
    return polars_schema.finite(value, dtype).alias(column.name)


def _check_sum(sums: pl.Series, owner: str) -> None:
    """Refuse integer sums that do not fit: kernels add in more than 64 bits."""
    least, greatest = sums.min(), sums.max()
    if least is not None and not (_INT64[0] <= int(str(least)) and int(str(greatest)) <= _INT64[1]):
        raise overflow([sums.name], "Int64", owner)


def overflow(names: Sequence[str], dtype: str, owner: str) -> DataError:
    """The error of a feature with a sum that its dtype cannot hold."""
    return DataError(
        f"{owner}: {' or '.join(names)} does not fit into {dtype}; cast the column to Float64 in the feature's function"
    )
