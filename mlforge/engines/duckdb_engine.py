"""The kernel on DuckDB: SQL window functions, which spill to disk when memory runs short."""

from __future__ import annotations

from typing import ClassVar

import duckdb
import polars as pl

from mlforge.compilers import duckdb_compiler
from mlforge.compilers.base import ComputeContext
from mlforge.engines.base import Engine, overflow


class DuckDBEngine(Engine):
    """One connection an evaluation; the kernel knows microseconds only, so no time zone matters."""

    name: ClassVar[str] = "duckdb"

    def aggregate(self, line: pl.DataFrame, context: ComputeContext) -> pl.DataFrame:
        """One statement over the whole line."""
        with duckdb.connect() as connection:
            connection.register("line", line.to_arrow())
            try:
                found = connection.sql(duckdb_compiler.select(context, "line")).to_arrow_table()
            except duckdb.OutOfRangeException as error:
                raise overflow(
                    [m.name for m in context.metrics if m.aggregation == "sum"], "its dtype"
                ) from error
        return pl.DataFrame(pl.from_arrow(found))
