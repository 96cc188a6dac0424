"""What callers bring to a retrieval: spines of several kinds, and entities."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl

from mlforge import frames
from mlforge.encoding import entity_key
from mlforge.engines import POINT
from mlforge.errors import RetrievalError
from mlforge.events import as_utc
from mlforge.manifest import Manifest
from mlforge.online import OnlineBooks
from mlforge.schema import FLOATS, INTEGERS, dtypes
from mlforge.values import to_us

# What a calendar holds, in days: whatever lies outside was made with the wrong unit.
_FIRST, _LAST = (
    to_us(end.replace(tzinfo=UTC)) // 86_400_000_000 for end in (datetime.min, datetime.max)
)
_PER_DAY = {"ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}


class Spine(ABC):
    """A caller's table. Only the columns that are asked for are read; all of them go back untouched."""

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """Names, in order."""

    @property
    @abstractmethod
    def temporal(self) -> list[str]:
        """Names of the columns of dates and times."""

    @abstractmethod
    def column(self, name: str) -> pl.Series:
        """A column as polars has it."""

    @abstractmethod
    def with_values(self, values: pl.DataFrame) -> Any:
        """The same kind of table: its own rows and columns, and the values behind them."""


class _Polars(Spine):
    def __init__(self, table: pl.DataFrame | pl.LazyFrame) -> None:
        self.frame, self.lazy = table.lazy().collect(), isinstance(table, pl.LazyFrame)

    @property
    def columns(self) -> list[str]:
        return self.frame.columns

    @property
    def temporal(self) -> list[str]:
        return [
            name
            for name, dtype in self.frame.schema.items()
            if isinstance(dtype, (pl.Datetime, pl.Date))
        ]

    def column(self, name: str) -> pl.Series:
        return self.frame[name]

    def with_values(self, values: pl.DataFrame) -> Any:
        frame = self.frame.hstack(values)
        return frame.lazy() if self.lazy else frame


class _Pandas(Spine):
    def __init__(self, table: Any) -> None:
        self.table = table

    @property
    def columns(self) -> list[str]:
        return list(self.table.columns)

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
        column = self.table[name]
        if column.ndim != 1:
            raise RetrievalError(f"the spine has several columns {name!r}; keep one")
        if column.dtype.kind == "M" and getattr(column.dt, "tz", None) is not None:
            column = column.dt.tz_convert("UTC")
        if column.dtype.kind == "O" and column.isna().all():
            return pl.Series(name, [None] * len(column), dtype=pl.Null)
        return _converted(pl.from_pandas, column, name)

    def with_values(self, values: pl.DataFrame) -> Any:
        import pandas as pd

        made = {column.name: _exact(column) for column in values}
        return pd.concat([self.table, pd.DataFrame(made).set_axis(self.table.index)], axis=1)


class _Arrow(Spine):
    def __init__(self, table: Any) -> None:
        self.table = table

    @property
    def columns(self) -> list[str]:
        return list(self.table.column_names)

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

        if self.columns.count(name) > 1:
            raise RetrievalError(f"the spine has several columns {name!r}; keep one")
        column = self.table[name]
        if pa.types.is_timestamp(column.type) and column.type.tz is not None:
            column = column.cast(pa.timestamp(column.type.unit, "UTC"))
        return _converted(pl.from_arrow, column, name)

    def with_values(self, values: pl.DataFrame) -> Any:
        table = self.table
        for column in values:
            # Arrow's younger string types are not understood everywhere.
            made = column.to_arrow(compat_level=pl.CompatLevel.oldest())
            table = table.append_column(column.name, made)
        return table


_FOREIGN: tuple[tuple[str, str, Callable[[Any], Spine]], ...] = (
    ("pandas", "DataFrame", _Pandas),
    ("pyarrow", "Table", _Arrow),
)


def taken(table: Any) -> Spine:
    """The spine in whatever kind of table it comes."""
    if isinstance(table, (pl.DataFrame, pl.LazyFrame)):
        return _Polars(table)
    for module, name, kind in _FOREIGN:
        # Who has one has imported its library.
        if module in sys.modules and isinstance(table, getattr(sys.modules[module], name)):
            return kind(table)
    raise RetrievalError(
        f"a spine of {type(table).__name__} is not supported; give a polars DataFrame or LazyFrame, "
        "a pandas DataFrame or a pyarrow Table"
    )


def points(spine: Spine, manifest: Manifest, timestamp: str | None) -> pl.DataFrame:
    """The feature's keys in its dtypes, and the instant of each row where it has a timestamp."""
    spec, given = manifest.spec, dtypes(manifest.events)
    columns = [_key(spine, key, given[key], manifest.name) for key in spec.keys]
    if spec.timestamp is not None:
        name = _time_column(spine, manifest, timestamp)
        columns.append(_instants(spine.column(name), manifest.name))
    return pl.DataFrame(columns)


def entities(
    asked: Sequence[Mapping[str, object]], books: Mapping[str, OnlineBooks]
) -> list[dict[str, Any]]:
    """The entities with their keys in the features' dtypes; wrong names are refused."""
    if isinstance(asked, Mapping) or not all(isinstance(entity, Mapping) for entity in asked):
        raise RetrievalError("entities must be a list of dicts, each with the features' keys")
    keys = {key.name: key for book in books.values() for key in book.keys}
    return [entity_key(entity, tuple(keys.values())) for entity in asked]


def own_keys(entity: Mapping[str, Any], books: OnlineBooks) -> dict[str, Any]:
    """Those of an entity's keys that a feature has."""
    return {key.name: entity[key.name] for key in books.keys}


def _converted(convert: Callable[[Any], Any], column: Any, name: str) -> pl.Series:
    try:
        return pl.Series(name, convert(column))
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise RetrievalError(
            f"the spine's column {name!r} is not of one kind ({reason}); cast it, times to UTC"
        ) from error


def _exact(column: pl.Series) -> Any:
    """For pandas: integers with nulls are floats there, unless they are too large to be exact."""
    if column.dtype.is_integer() and column.null_count():
        made = column.to_pandas()
        if pl.Series(made, nan_to_null=True).cast(column.dtype, strict=False).equals(column):
            return made
        return column.to_pandas().astype("Int64") if False else _nullable(column)
    return column.to_pandas()


def _key(spine: Spine, key: str, dtype: str, feature: str) -> pl.Series:
    if key not in spine.columns:
        raise RetrievalError(
            f"{feature}: the spine has no key column {key!r}; it has {_listed(spine)}"
        )
    values, wanted = spine.column(key), frames.to_polars(dtype)
    if values.dtype == wanted:
        return values
    if dtype == "String" and isinstance(values.dtype, (pl.Categorical, pl.Enum)):
        return values.cast(pl.String)
    if values.dtype == pl.Null:
        return values.cast(wanted)
    kind = frames.dtype_text(values.dtype)
    if dtype in INTEGERS and kind in INTEGERS:
        # An id that does not fit the feature's width is an entity never seen.
        return values.cast(wanted, strict=False)
    if dtype in INTEGERS and kind in FLOATS:
        known = values.fill_nan(None)
        whole = known.drop_nulls()
        if bool((whole == whole.floor()).all()):
            return known.cast(wanted, strict=False)
        raise RetrievalError(
            f"{feature}: the spine's key {key!r} has fractions, the feature's is {dtype}"
        )
    raise RetrievalError(
        f"{feature}: the spine's key {key!r} is {kind}, the feature's is {dtype}; cast it first"
    )
