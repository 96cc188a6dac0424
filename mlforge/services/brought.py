"""Values that callers bring, as a service's columns have them: request columns of a spine and of an online request, and defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl

from mlforge.core.arguments import shown
from mlforge.core.expression import kinds
from mlforge.core.expression.kinds import kind_of
from mlforge.core.schema import INTEGERS, decimal_scale
from mlforge.core.values import from_us, to_us
from mlforge.errors import RetrievalError
from mlforge.frames import polars_schema
from mlforge.frames.keys import perhaps_rounded
from mlforge.services.spec import ServiceSpec

_CLASSES: dict[str, tuple[type, ...]] = {
    kinds.INT: (int,),
    kinds.FLOAT: (float, int, Decimal),
    kinds.BOOL: (bool,),
    kinds.TEXT: (str,),
    kinds.INSTANT_KIND: (datetime,),
    kinds.DATE: (date,),
}
"""The Python values of a kind; those of other kinds cannot be brought by a caller."""


def request_rows(
    service: ServiceSpec, rows: Sequence[Mapping[str, Any]] | None, entities: int
) -> list[dict[str, Any]]:
    """The request's values for each entity, as the columns' dtypes have them; RetrievalError for those that do not fit."""
    names = [column.name for column in service.request]
    works = f"give request=[{{{', '.join(f'{name!r}: ...' for name in names)}}}, ...], a dict for each entity"
    if rows is None and not names:
        return [{} for _ in range(entities)]
    if not names:
        raise RetrievalError(f"{service.name} has no request columns; leave request= out")
    several = isinstance(rows, Sequence) and not isinstance(rows, (str, bytes))
    if rows is None or not several or not all(isinstance(row, Mapping) for row in rows):
        raise RetrievalError(f"{service.name}: request is {shown(rows)}; {works}")
    if len(rows) != entities:
        raise RetrievalError(
            f"{service.name}: request has {len(rows)} rows for {entities} entities; {works}"
        )
    for row in rows:
        if row.keys() != set(names):
            raise RetrievalError(f"{service.name}: request row {shown(dict(row))}; {works}")
    dtype_of = [(column.name, column.dtype) for column in service.request]
    return [
        {
            name: brought_as(row[name], dtype, f"{service.name}: request {name!r}")
            for name, dtype in dtype_of
        }
        for row in rows
    ]


def request_columns(service: ServiceSpec, spine: Mapping[str, pl.Series]) -> list[pl.Series]:
    """The request's columns from a spine's, in their dtypes; RetrievalError for those that do not fit without loss."""
    columns = []
    for column in service.request:
        values, dtype = spine[column.name], polars_schema.to_polars(column.dtype)
        try:
            columns.append(_cast(values, dtype))
        except (TypeError, pl.exceptions.PolarsError):
            raise RetrievalError(
                f"{service.name}: the spine's column {column.name!r} is {polars_schema.dtype_text(values.dtype)}, the "
                f"request's is {column.dtype}; cast it first"
            ) from None
    return columns


def _cast(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    """The values in a dtype that holds them; TypeError or an error of polars where none of the kind is meant."""
    own = values.dtype
    if own in (dtype, pl.Null):
        return values.cast(dtype)
    numbers = own.is_integer() and (dtype.is_integer() or dtype.is_float())
    floats = own == pl.Float32 and dtype == pl.Float64
    texts = isinstance(own, (pl.Categorical, pl.Enum)) and dtype == pl.String
    days = own == pl.Date and isinstance(dtype, pl.Datetime)
    if isinstance(own, pl.Datetime) and isinstance(dtype, pl.Datetime):
        zoned = values.dt.replace_time_zone("UTC") if own.time_zone is None else values
        return zoned.dt.convert_time_zone("UTC").cast(dtype)
    if own.is_float() and dtype.is_integer():  # what pandas makes of whole numbers beside nulls
        known = values.fill_nan(None)
        if bool((known == known.floor()).all()) and perhaps_rounded(known).is_empty():
            return known.cast(dtype)
    if own == pl.Float64 and dtype == pl.Float32:  # rounded, as a float of Python is online
        rounded = values.cast(dtype)
        if bool((rounded.is_infinite() & values.is_finite()).any()):
            raise TypeError(own)
        return rounded
    if numbers and dtype == pl.Float32:  # rounded twice, as an integer of Python is online
        return values.cast(pl.Float64).cast(dtype)
    if numbers or floats or texts:
        return values.cast(dtype)
    if days:
        return values.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    raise TypeError(own)


def brought_as(value: Any, dtype: str, what: str) -> Any:
    """A value as a column of the dtype has it; null and what counts as null are None.

    what: the words for it in an error. Raises RetrievalError for one that the column does not hold.
    """
    if value is None:
        return None
    value = value.item() if hasattr(value, "item") else value  # numpy's
    kind = kind_of(dtype)
    is_bool, is_instant = isinstance(value, bool), isinstance(value, datetime)
    fits = isinstance(value, _CLASSES.get(kind, ())) and is_bool == (kind == kinds.BOOL)
    if not fits or is_instant != (kind == kinds.INSTANT_KIND):
        raise RetrievalError(f"{what} is {dtype}, not {shown(value)}")
    try:
        if is_instant:
            return from_us(to_us(value if value.tzinfo is None else value.astimezone(UTC)))
        if kind == kinds.TEXT:
            value.encode()  # half a character of UTF-16 is no text of a column
        if dtype in INTEGERS:
            return pl.Series([value], dtype=polars_schema.to_polars(dtype)).item()
        if kind == kinds.FLOAT and not math.isfinite(value):
            return None
        if kind == kinds.FLOAT and decimal_scale(dtype) is None:
            return _as_float(float(value), dtype)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        raise RetrievalError(f"{what} is {dtype}, which does not hold {shown(value)}") from None
    return value


def _as_float(value: float, dtype: str) -> float:
    """The value as a column of floats has it; OverflowError where it has none."""
    held = value if dtype == "Float64" else float(pl.Series([value], dtype=pl.Float32).item())
    if not math.isfinite(held):
        raise OverflowError(value)
    return held
