"""The kernel on DuckDB: SQL window functions, which spill to disk when memory runs short."""

from __future__ import annotations

import os
import tempfile
from typing import Any, ClassVar

import duckdb
import polars as pl

from mlforge.compilers import duckdb_compiler
from mlforge.compilers.base import ComputeContext
from mlforge.engines.base import Engine, overflow

_LEAST = 128_000_000
_LISTED = 16
"""Windows of no more rows than this on average are cheaper as lists, which take memory by their rows."""


class DuckDBEngine(Engine):
    """One connection an evaluation; the kernel knows microseconds only, so no time zone matters."""

    name: ClassVar[str] = "duckdb"

    def aggregate(self, line: pl.DataFrame, context: ComputeContext) -> pl.DataFrame:
        """One statement over the whole line."""
        with duckdb.connect(config=self._config) as connection:
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

    @property
    def _config(self) -> dict[str, Any]:
        """Half of the memory is DuckDB's, beyond which it spills; the line and the answers take the rest."""
        return {
            "memory_limit": f"{max(self.memory_limit // 2, _LEAST) // 1_000_000}MB",
            "temp_directory": f"{tempfile.gettempdir()}/mlforge-{os.getuid()}-duckdb",
        }


def _asked(connection: duckdb.DuckDBPyConnection, statement: str) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(connection.sql(statement).to_arrow_table()))
