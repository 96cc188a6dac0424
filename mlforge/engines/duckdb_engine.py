"""The kernel on DuckDB: SQL window functions, which spill to disk when memory runs short."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import ClassVar

import duckdb
import polars as pl

from mlforge.compilers import duckdb_compiler
from mlforge.compilers.base import ENTITY, ROW, TIME, Aggregate, ComputeContext, result_name
from mlforge.core.time_model import Window
from mlforge.engines import duckdb_database
from mlforge.engines.base import Engine
from mlforge.engines.kernels import overlapping
from mlforge.engines.kernels.folds import FOLDS, Folds
from mlforge.engines.kernels.point_windows import DistinctPoints, PointWindows, TimelineIndex
from mlforge.engines.kernels.prefix_sums import SumOverflow

_LEAST_MEMORY = 128_000_000
_OVERLAP = {"min": 0.5, "max": 0.5, "median": 8, "pN": 8}
"""As of `overlapping.overlaps`: before ranks over the whole line pay."""
_LIST_ROWS = 16
"""Windows of no more rows than this on average are cheaper as lists, which take memory by their rows."""


class DuckDBEngine(Engine):
    """A connection of its own for each evaluation; the kernel knows microseconds only, so no time zone matters."""

    name: ClassVar[str] = "duckdb"
    libraries: ClassVar[tuple[str, ...]] = ("polars", "duckdb")

    def aggregate(
        self, line: pl.DataFrame, context: ComputeContext, points: pl.DataFrame | None = None
    ) -> pl.DataFrame:
        """A statement over the whole line; over the windows of the points alone, where those are few."""
        are_apart, aggregates = points is not None, context.aggregates
        points = line.filter(pl.col(ROW).is_not_null()) if points is None else points
        few = are_apart or self.are_few(points, line)
        tiny = overlapping.tiny_percentiles(line, context)
        folded = [a for a in aggregates if a.aggregation.kind.name in FOLDS or a in tiny]
        looked_up = {a.window: None for a in (aggregates if few else folded)}
        at_points = TimelineIndex.of(line, points).windows(points, list(looked_up))
        chosen = DistinctPoints.of(points, at_points, all_windows=few)
        folds, wide = Folds(line, context), overlapping.wide_columns(line, context)
        apart: dict[int, pl.Series] = {}
        for position, a in enumerate(aggregates):
            if a.aggregation.kind.name in FOLDS:
                apart[position] = folds.folded(a, chosen.windows[a.window].segments)
            elif a in tiny or (few and overlapping.overlaps(a, chosen.windows[a.window], _OVERLAP)):
                apart[position] = overlapping.ranked(a, chosen.windows[a.window], wide)
        in_sql = tuple(a for position, a in enumerate(aggregates) if position not in apart)
        queried = iter(self._answers(line, chosen, in_sql, context, few) if in_sql else ())
        named = (
            (apart[position] if position in apart else next(queried)).alias(result_name(position))
            for position in range(len(aggregates))
        )
        return chosen.spread(pl.DataFrame([chosen.points[ROW], *named]))

    def _answers(
        self,
        line: pl.DataFrame,
        chosen: DistinctPoints,
        in_sql: tuple[Aggregate, ...],
        context: ComputeContext,
        few: bool,
    ) -> pl.DataFrame:
        """Some of the aggregates at each point by SQL. Raises SumOverflow."""
        by_sql, windows = ComputeContext(in_sql, context.dtypes), chosen.windows if few else None
        try:
            answers = self._queried(line, chosen.points, windows, by_sql)
        except duckdb.OutOfRangeException as error:
            sums = [i for i, a in enumerate(context.aggregates) if a.aggregation.name == "sum"]
            raise SumOverflow(sums, "its dtype") from error
        numbered = chosen.points.select(ROW)
        return numbered.join(answers, on=ROW, how="left", maintain_order="left").drop(ROW)

    def _queried(
        self,
        line: pl.DataFrame,
        points: pl.DataFrame,
        windows: Mapping[Window, PointWindows] | None,
        context: ComputeContext,
    ) -> pl.DataFrame:
        """The aggregates by SQL; windows: those of the points, where these are few."""
        with duckdb_database.connection(self._config) as connection:
            if windows is not None:
                return _at_points(connection, line, points, windows, context)
            return _over_all(connection, line, context)

    @property
    def _config(self) -> dict[str, str]:
        """Half of the memory is DuckDB's, beyond which it spills; the line and the answers take the rest."""
        return {
            "memory_limit": f"{max(self.memory_limit // 2, _LEAST_MEMORY) // 1_000_000}MB",
            "temp_directory": f"{tempfile.gettempdir()}/mlforge-{os.getuid()}-duckdb",
        }


def _over_all(
    connection: duckdb.DuckDBPyConnection, line: pl.DataFrame, context: ComputeContext
) -> pl.DataFrame:
    """Windows at every row of the line, of which those of the points are kept."""
    ranges = [
        bound.alias(name)
        for window, names in duckdb_compiler.varying(context).items()
        for bound, name in zip(_range(window), names, strict=True)
    ]
    connection.register("line", line.with_columns(ranges).to_arrow())
    rows_seen = _query(connection, duckdb_compiler.rows_seen(context, "line")).item()
    few = rows_seen <= _LIST_ROWS * line.height
    compiled = duckdb_compiler.select_by_lists if few else duckdb_compiler.select
    return _query(connection, compiled(context, "line"))


def _range(window: Window) -> tuple[pl.Expr, pl.Expr]:
    """How long before a row its window's first and last events lie at most and at least; none lies 0 to 1 before it."""
    time = pl.col(TIME)
    most, least = time - window.first(time), time - window.last(time)
    is_empty = most < least
    return (
        pl.when(is_empty).then(0).otherwise(most),
        pl.when(is_empty).then(1).otherwise(least),
    )


def _at_points(
    connection: duckdb.DuckDBPyConnection,
    line: pl.DataFrame,
    points: pl.DataFrame,
    windows: Mapping[Window, PointWindows],
    context: ComputeContext,
) -> pl.DataFrame:
    """The windows of the points alone: one value of an entity costs its events once."""
    bounds = [points[ROW]]
    for window, (start, end) in duckdb_compiler.bound_names(context).items():
        segments = windows[window].segments
        ends = segments.starts + segments.lengths
        bounds += [segments.starts.alias(start), ends.alias(end)]
    place = pl.int_range(pl.len(), dtype=pl.Int64).alias(duckdb_compiler.PLACE)
    connection.register(
        "line", line.drop(ENTITY, TIME, ROW, strict=False).with_columns(place).to_arrow()
    )
    connection.register("points", pl.DataFrame(bounds).to_arrow())
    return _query(connection, duckdb_compiler.select_at_points(context, "line", "points"))


def _query(connection: duckdb.DuckDBPyConnection, statement: str) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(connection.sql(statement).to_arrow_table()))
