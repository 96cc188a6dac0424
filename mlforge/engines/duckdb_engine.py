"""The kernel on DuckDB: SQL window functions, which spill to disk when memory runs short."""

from __future__ import annotations

from typing import ClassVar

import duckdb
import polars as pl

from mlforge.compilers import duckdb_compiler
from mlforge.compilers.base import ComputeContext
from mlforge.engines.base import Engine, overflow

_LISTED = 16
"""Windows of no more rows than this on average are cheaper as lists, which take memory by their rows."""


class DuckDBEngine(Engine):
    """One connection an evaluation; the kernel knows microseconds only, so no time zone matters."""

    name: ClassVar[str] = "duckdb"

    def aggregate(self, line: pl.DataFrame, context: ComputeContext) -> pl.DataFrame:
        """One statement over the whole line."""
        with duckdb.connect() as connection:
            connection.register("line", line.to_arrow())
            seen = _asked(connection, duckdb_compiler.rows_seen(context, "line")).item()
            short = seen <= _LISTED * line.height
            compiled = duckdb_compiler.select_listed if short else duckdb_compiler.select
            try:
                return _asked(connection, compiled(context, "line"))
            except duckdb.OutOfRangeException as error:
                raise overflow(
                    [m.name for m in context.metrics if m.aggregation == "sum"], "its dtype"
                ) from error


def _asked(connection: duckdb.DuckDBPyConnection, statement: str) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(connection.sql(statement).to_arrow_table()))
