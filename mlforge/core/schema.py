"""Columns and dtypes as text, and the rules about them, without an engine at hand.

A dtype is written as polars names it, with its parameters in parentheses: `Int64`, `String`,
`Datetime(us, UTC)`, `Decimal(38, 2)`. `mlforge.frames.polars_schema` translates to and from polars.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from mlforge.errors import DataError

Aggregation = Literal["count", "sum", "mean", "min", "max", "std", "median"]
AGGREGATIONS: tuple[str, ...] = get_args(Aggregation)

INSTANT = "Datetime(us, UTC)"
INTEGERS = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
FLOATS = ("Float32", "Float64")
KEY_DTYPES = (*INTEGERS, "String", "Boolean", "Date")
DIGITS = 38
"""The most digits of a decimal; 128 bits."""
_ORDERED = ("String", "Date", "Time", INSTANT)
_DECIMAL = re.compile(r"Decimal\((\d+), (\d+)\)")


@dataclass(frozen=True, slots=True)
class Column:
    """A column's name and dtype; for a metric also what it aggregates, over which window.

    narrow: a column of long integers, all of which a Float64 holds exactly; False where that is not known.
    """

    name: str
    dtype: str
    aggregation: str | None = None
    window: str | None = None
    narrow: bool = False


Schema = tuple[Column, ...]


@lru_cache(maxsize=128)
def shared(schema: Schema) -> Schema:
    """The one object that all equal schemas share, so that thousands of partials compare by identity."""
    return schema


def dtypes(schema: Schema) -> dict[str, str]:
    """The schema as a mapping from name to dtype, in order."""
    return {column.name: column.dtype for column in schema}


def same_columns(a: Schema, b: Schema) -> bool:
    """Whether two schemas have the same columns; a column that was null throughout goes with any dtype."""
    return len(a) == len(b) and all(
        x.name == y.name and (x.dtype == y.dtype or "Null" in (x.dtype, y.dtype))
        for x, y in zip(a, b, strict=True)
    )


def decimal_scale(dtype: str) -> int | None:
    """The scale of a decimal dtype, None for any other."""
    match = _DECIMAL.fullmatch(dtype)
    return int(match[2]) if match else None


def decimal_digits(dtype: str) -> tuple[int, int] | None:
    """The digits of a decimal dtype before and after the point, None for any other."""
    match = _DECIMAL.fullmatch(dtype)
    return (int(match[1]) - int(match[2]), int(match[2])) if match else None


def output_dtype(aggregation: str, dtype: str, what: str) -> str:
    """The dtype of an aggregate, or DataError naming `what` where the two do not go together."""
    if aggregation == "count":
        return "Int64"
    numeric = dtype in INTEGERS or dtype in FLOATS or dtype == "Boolean"
    scale = decimal_scale(dtype)
    if aggregation in ("min", "max") and (numeric or scale is not None or dtype in _ORDERED):
        return dtype
    if aggregation in ("mean", "std", "median") and (numeric or scale is not None):
        return "Float64"
    if aggregation == "sum" and scale is not None:
        return f"Decimal(38, {scale})"
    if aggregation == "sum" and numeric:
        return "Float64" if dtype in FLOATS else "Int64"
    works = [
        name
        for name in AGGREGATIONS
        if name == "count" or (name in ("min", "max") and dtype in _ORDERED)
    ]
    raise DataError(
        f"{what}: {aggregation} of {dtype} is not possible; {', '.join(works)} would be, or a cast"
    )


def check_condition(name: str, dtype: str, owner: str) -> None:
    """Refuse a column of `where` that is not boolean; DataError says how to make one."""
    if dtype not in ("Boolean", "Null"):
        works = f"pl.col({name!r}) " + ("!= 0" if dtype in (*INTEGERS, *FLOATS) else "== ...")
        raise DataError(
            f"{owner}: where={name!r} is {dtype}, but it says of each event whether it counts, so it is Boolean; "
            f"have the function return a comparison as that column, as in {works}"
        )
