"""Lists, arrays and structs in the form that events have: what they hold within is brought into the form of plain columns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import polars as pl

NESTED = (pl.List, pl.Array, pl.Struct)
PlainTypes = Callable[[pl.DataType], bool]
PlainForm = Callable[[pl.Expr, pl.DataType], pl.Expr]
"""From an expression and its plain dtype to the form that events have."""


def unheld(dtype: pl.DataType, held: Collection[Any]) -> pl.DataType | None:
    """The first plain dtype within a dtype that is not held, None if all are; a struct without fields is not."""
    if not dtype.is_nested():
        return None if dtype.base_type() in held else dtype
    parts = _parts(dtype)
    if not parts:
        return dtype
    return next((bad for part in parts if (bad := unheld(part, held)) is not None), None)


def in_form(value: pl.Expr, dtype: pl.DataType, plain: PlainForm, changed: PlainTypes) -> pl.Expr:
    """The expression with all values within in their form. changed: the plain dtypes whose form is another.

    Nulls stay nulls, and lists as long as they are.
    """
    if not dtype.is_nested():
        return plain(value, dtype)
    if not _holds_any(dtype, changed):
        return value
    if isinstance(dtype, pl.List):
        within = in_form(pl.element(), dtype.inner, plain, changed)  # type: ignore[arg-type]
        return value.list.eval(within)
    if isinstance(dtype, pl.Array):
        lists = in_form(value.arr.to_list(), pl.List(dtype.inner), plain, changed)
        return lists.list.to_array(dtype.size)
    assert isinstance(dtype, pl.Struct)
    fields = [
        in_form(value.struct.field(field.name), field.dtype, plain, changed).alias(field.name)  # type: ignore[arg-type]
        for field in dtype.fields
    ]
    return pl.when(value.is_not_null()).then(pl.struct(fields))


def leaves(values: pl.Series, chosen: PlainTypes) -> Iterator[pl.Series]:
    """The values of chosen plain dtypes within a column, each dtype's place in a series of its own."""
    dtype = values.dtype
    if not _holds_any(dtype, chosen):
        return
    if isinstance(dtype, pl.Struct):
        for field in dtype.fields:
            yield from leaves(values.struct.field(field.name), chosen)
    elif dtype.is_nested():
        lists = values.arr.to_list() if isinstance(dtype, pl.Array) else values
        yield from leaves(lists.explode(), chosen)
    else:
        yield values


def count_non_finite(values: pl.Series) -> int:
    """The number of floats within that are NaN or infinite."""
    floats = leaves(values, lambda dtype: dtype.is_float())
    return sum(int((~each.is_finite()).sum()) for each in floats)


def _parts(dtype: pl.DataType) -> list[pl.DataType]:
    if isinstance(dtype, pl.Struct):
        return [field.dtype for field in dtype.fields]  # type: ignore[misc]
    assert isinstance(dtype, (pl.List, pl.Array))
    return [dtype.inner]  # type: ignore[list-item]


def _holds_any(dtype: pl.DataType, test: PlainTypes) -> bool:
    return (
        any(_holds_any(part, test) for part in _parts(dtype)) if dtype.is_nested() else test(dtype)
    )
