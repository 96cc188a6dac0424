"""The kernel on DuckDB: SQL window functions, which spill to disk when memory runs short."""

from __future__ import annotations

import os
import tempfile
from typing import ClassVar

import duckdb
import polars as pl

from mlforge.compilers import duckdb_compiler
from mlforge.compilers.base import ENTITY, ROW, TIME, ComputeContext, result_name
from mlforge.core.time_model import Window
from mlforge.engines import duckdb_database
from mlforge.engines.base import Engine, SumOverflow
from mlforge.engines.folds import FOLDS, Folds
from mlforge.engines.point_windows import TimelineIndex

_LEAST_MEMORY = 128_000_000
_LIST_ROWS = 16
"""Windows of no more rows than this on average are cheaper as lists, which take memory by their rows."""


class DuckDBEngine(Engine):
    """A connection of its own for each evaluation; the kernel knows microseconds only, so no time zone matters."""

    name: ClassVar[str] = "duckdb"

    def aggregate(self, line: pl.DataFrame, context: ComputeContext) -> pl.DataFrame:
        """A statement over the whole line; over the windows of the points alone, where those are few."""
        points = line.filter(pl.col(ROW).is_not_null())
        in_sql = [a for a in context.aggregates if a.aggregation.kind.name not in FOLDS]
        answers = points.select(ROW)
        if in_sql:
            try:
                answers = self._queried(line, points, ComputeContext(tuple(in_sql), context.dtypes))
            except duckdb.OutOfRangeException as error:
                sums = [i for i, a in enumerate(context.aggregates) if a.aggregation.name == "sum"]
                raise SumOverflow(sums, "its dtype") from error
            answers = points.select(ROW).join(answers, on=ROW, how="left", maintain_order="left")
        queried, folds, index = iter(answers.drop(ROW)), Folds(line, context), TimelineIndex(line)
        results = (
            folds.folded(a, index.windows(points, [a.window])[a.window].segments)
            if a.aggregation.kind.name in FOLDS
            else next(queried)
            for a in context.aggregates
        )
        named = (result.alias(result_name(number)) for number, result in enumerate(results))
        return pl.DataFrame([answers[ROW], *named])

    def _queried(
        self, line: pl.DataFrame, points: pl.DataFrame, context: ComputeContext
    ) -> pl.DataFrame:
        with duckdb_database.connection(self._config) as connection:
            if self.are_few(points, line):
                return _at_points(connection, line, points, context)
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
    context: ComputeContext,
) -> pl.DataFrame:
    """The windows of the points alone: one value of an entity costs its events once."""
    bounds, bound_names = [points[ROW]], duckdb_compiler.bound_names(context)
    windows = TimelineIndex(line).windows(points, list(bound_names))
    for window, (start, end) in bound_names.items():
        segments = windows[window].segments
        ends = segments.starts + segments.lengths
        bounds += [segments.starts.alias(start), ends.alias(end)]
    place = pl.int_range(pl.len(), dtype=pl.Int64).alias(duckdb_compiler.PLACE)
    connection.register("line", line.drop(ENTITY, TIME, ROW).with_columns(place).to_arrow())
    connection.register("points", pl.DataFrame(bounds).to_arrow())
    return _query(connection, duckdb_compiler.select_at_points(context, "line", "points"))


def _query(connection: duckdb.DuckDBPyConnection, statement: str) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(connection.sql(statement).to_arrow_table()))
