"""Columns and dtypes as text, and the rules about them, without an engine at hand.

A dtype is written as polars names it, with its parameters in parentheses: `Int64`, `String`,
`Datetime(us, UTC)`, `Decimal(38, 2)`. `mlforge.frames.polars_schema` translates to and from polars.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from mlforge.core.nested import NULL, agree, filled
from mlforge.errors import DataError

INSTANT = "Datetime(us, UTC)"
INTEGERS = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
FLOATS = ("Float32", "Float64")
KEY_DTYPES = (*INTEGERS, "String", "Boolean", "Date")
DIGITS = 38
"""The most digits of a decimal; 128 bits."""
_DECIMAL = re.compile(r"Decimal\((\d+), (\d+)\)")


@dataclass(frozen=True, slots=True)
class Column:
    """A column's name and dtype; for a metric also what it aggregates, over which window.

    narrow: a column of long integers, all of which a Float64 holds exactly; False where that is not known.
    listed: a column of texts that a function returned as members of a list (Enum), so that nobody can say which is the least; False where
        that is not known.
    """

    name: str
    dtype: str
    aggregation: str | None = None
    window: str | None = None
    narrow: bool = False
    listed: bool = False


Schema = tuple[Column, ...]


@lru_cache(maxsize=128)
def shared(schema: Schema) -> Schema:
    """The one object that all equal schemas share, so that thousands of partials compare by identity."""
    return schema


def dtypes(schema: Schema) -> dict[str, str]:
    """The schema as a mapping from name to dtype, in order."""
    return {column.name: column.dtype for column in schema}


def same_columns(a: Schema, b: Schema) -> bool:
    """Whether two schemas have the same columns; one that was null throughout, or had empty lists alone, goes with any dtype."""
    return len(a) == len(b) and all(
        x.name == y.name and agree(x.dtype, y.dtype) for x, y in zip(a, b, strict=True)
    )


def with_dtypes_of(schema: Schema, other: Schema) -> Schema:
    """The schema, with the other's columns of the same names in place of those that are null throughout, or of their parts that are."""
    if all(NULL not in column.dtype for column in schema):
        return schema
    theirs = {column.name: column for column in other}
    return tuple(_with_dtype_of(own, theirs.get(own.name, own)) for own in schema)


def _with_dtype_of(own: Column, other: Column) -> Column:
    return other if own.dtype == NULL else replace(own, dtype=filled(own.dtype, other.dtype))


def integer_range(dtype: str) -> tuple[int, int]:
    """The least and the greatest value of one of INTEGERS."""
    bits = int(dtype.removeprefix("U").removeprefix("Int"))
    return (0, 2**bits - 1) if dtype.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def list_of(dtype: str) -> str:
    """The dtype of lists of a dtype."""
    return f"List({dtype})"


def inner_of(dtype: str) -> str | None:
    """The dtype of a list's elements, None for any other dtype."""
    return dtype[5:-1] if dtype.startswith("List(") and dtype.endswith(")") else None


def decimal_scale(dtype: str) -> int | None:
    """The scale of a decimal dtype, None for any other."""
    match = _DECIMAL.fullmatch(dtype)
    return int(match[2]) if match else None


def decimal_digits(dtype: str) -> tuple[int, int] | None:
    """The digits of a decimal dtype before and after the point, None for any other."""
    match = _DECIMAL.fullmatch(dtype)
    return (int(match[1]) - int(match[2]), int(match[2])) if match else None


def check_condition(name: str, dtype: str, owner: str) -> None:
    """Refuse a column of `where` that is not boolean; DataError says how to make one."""
    if dtype not in ("Boolean", "Null"):
        works = f"pl.col({name!r}) " + ("!= 0" if dtype in (*INTEGERS, *FLOATS) else "== ...")
        raise DataError(
            f"{owner}: where={name!r} is {dtype}, but it says of each event whether it counts, so it is Boolean; "
            f"have the function return a comparison as that column, as in {works}"
        )
