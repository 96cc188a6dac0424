"""Tables of other libraries: their columns in polars, and values put behind them."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import polars as pl

from mlforge.errors import RetrievalError

_EXACT = 1 << 53  # the integers that a float has all of


class Table(ABC):
    """A caller's table. Columns are converted only on request; the table itself stays unchanged."""

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """Names, in order."""

    @property
    @abstractmethod
    def temporal(self) -> list[str]:
        """Names of the columns of dates and times."""

    @property
    @abstractmethod
    def height(self) -> int:
        """The number of rows."""

    @abstractmethod
    def column(self, name: str) -> pl.Series:
        """A column as a polars Series; zoned times may arrive as UTC. RetrievalError if polars cannot hold it."""

    @abstractmethod
    def with_values(self, values: pl.DataFrame) -> Any:
        """A table of the caller's kind: the rows and columns of this one, and the values behind them."""


def taken(table: Any) -> Table:
    """A polars DataFrame or LazyFrame, a pandas DataFrame or a pyarrow Table."""
    if isinstance(table, (pl.DataFrame, pl.LazyFrame)):
        return _Polars(table)
    for module, name, kind in _FOREIGN:
        # Who has such a table has imported its library.
        if module in sys.modules and isinstance(table, getattr(sys.modules[module], name)):
            return kind(table)
    raise RetrievalError(
        f"a spine of {type(table).__name__} is not supported; give a polars DataFrame or LazyFrame, "
        "a pandas DataFrame or a pyarrow Table"
    )


class _Polars(Table):
    def __init__(self, table: pl.DataFrame | pl.LazyFrame) -> None:
        self.frame, self.is_lazy = table.lazy().collect(), isinstance(table, pl.LazyFrame)

    @property
    def columns(self) -> list[str]:
        return self.frame.columns

    @property
    def height(self) -> int:
        return self.frame.height

    @property
    def temporal(self) -> list[str]:
        kinds = (pl.Datetime, pl.Date)
        return [name for name, dtype in self.frame.schema.items() if isinstance(dtype, kinds)]

    def column(self, name: str) -> pl.Series:
        return self.frame[name]

    def with_values(self, values: pl.DataFrame) -> Any:
        frame = self.frame.hstack(values.get_columns())
        return frame.lazy() if self.is_lazy else frame


class _Pandas(Table):
    def __init__(self, table: Any) -> None:
        self.table = table

    @property
    def columns(self) -> list[str]:
        return list(self.table.columns)

    @property
    def height(self) -> int:
        return len(self.table)

    @property
    def temporal(self) -> list[str]:
        from pandas.api.types import infer_dtype

        return [
            name
            for name, column in self.table.items()
            if column.dtype.kind == "M"
            or (column.dtype.kind == "O" and infer_dtype(column) in ("date", "datetime"))
        ]

    def column(self, name: str) -> pl.Series:
        _check_single(self.columns, name)
        column = self.table[name]
        if column.dtype.kind == "M" and column.dt.tz is not None:
            column = column.dt.tz_convert("UTC")
        if column.dtype.kind == "O" and column.isna().all():
            return pl.Series(name, [None] * len(column), dtype=pl.Null)
        return _converted(pl.from_pandas, column, name)

    def with_values(self, values: pl.DataFrame) -> Any:
        import pandas as pd

        arrays = {column.name: _pandas_array(column) for column in values}
        return pd.concat([self.table, pd.DataFrame(arrays, index=self.table.index)], axis=1)


class _Arrow(Table):
    def __init__(self, table: Any) -> None:
        self.table = table

    @property
    def columns(self) -> list[str]:
        return list(self.table.column_names)

    @property
    def height(self) -> int:
        return int(self.table.num_rows)

    @property
    def temporal(self) -> list[str]:
        from pyarrow import types

        return [
            field.name
            for field in self.table.schema
            if types.is_timestamp(field.type) or types.is_date(field.type)
        ]

    def column(self, name: str) -> pl.Series:
        import pyarrow as pa

        _check_single(self.columns, name)
        column = self.table[name]
        if pa.types.is_timestamp(column.type) and column.type.tz is not None:
            column = column.cast(pa.timestamp(column.type.unit, "UTC"))
        return _converted(pl.from_arrow, column, name)

    def with_values(self, values: pl.DataFrame) -> Any:
        table = self.table
        for column in values:
            # Not every reader of Arrow knows its younger string types.
            arrays = column.to_arrow(compat_level=pl.CompatLevel.oldest())
            table = table.append_column(column.name, arrays)
        return table


_FOREIGN: tuple[tuple[str, str, Callable[[Any], Table]], ...] = (
    ("pandas", "DataFrame", _Pandas),
    ("pyarrow", "Table", _Arrow),
)


def _check_single(columns: list[str], name: str) -> None:
    if columns.count(name) > 1:
        raise RetrievalError(f"the spine has several columns {name!r}; keep one")


def _converted(convert: Callable[[Any], Any], column: Any, name: str) -> pl.Series:
    try:
        return pl.Series(name, convert(column))
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise RetrievalError(
            f"the spine's column {name!r} is not of one kind ({reason}); cast it, times to UTC"
        ) from error


def _pandas_array(column: pl.Series) -> Any:
    """A pandas array of a series; integers with nulls become floats, as in pandas, where floats hold them exactly."""
    import pandas as pd

    if column.null_count() == 0 or not column.dtype.is_integer() or _are_exact(column):
        return column.to_pandas().array
    return pd.array(column.to_list(), dtype=str(column.dtype))


def _are_exact(integers: pl.Series) -> bool:
    """Whether floats hold all of some integers. A column of few bits is not compared with numbers that it cannot hold."""
    return integers.cast(pl.Int128).is_between(-_EXACT, _EXACT).all()
