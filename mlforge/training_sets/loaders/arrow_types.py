"""Numbers of a training set in types that a library of tensors computes with, exact or refused."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa

from mlforge.errors import RetrievalError

_SIGNED: dict[type[pl.DataType], pa.DataType] = {
    pl.UInt16: pa.int32(),
    pl.UInt32: pa.int64(),
    pl.UInt64: pa.int64(),
}
"""The type that holds the numbers of one which torch does not compute with."""


def tensor_type(dtype: pl.DataType, *, has_null: bool) -> pa.DataType | None:
    """The Arrow type whose values become a tensor, in which null is NaN; None for the column's own."""
    is_float = isinstance(dtype, (pl.Float32, pl.Float64))
    if isinstance(dtype, (pl.Decimal, pl.Null)) or (has_null and not is_float):
        return pa.float64()
    return _SIGNED.get(type(dtype))


def converted(name: str, values: Any, type_: pa.DataType | None) -> Any:
    """The values of a column in such a type, decimals rounded to floats; RetrievalError for integers that it does not hold."""
    if type_ is None:
        return values
    try:
        return values.cast(type_, safe=type_ != pa.float64() or pa.types.is_integer(values.type))
    except pa.ArrowInvalid as error:
        raise RetrievalError(f"{name!r} holds numbers that {_no_room(type_)} ({error})") from error


def _no_room(type_: pa.DataType) -> str:
    if type_ == pa.float64():
        return (
            "no float holds exactly, and nulls, which no integer of torch is; give the nulls a default in the feature or the "
            "service, or leave the column out with columns=[...]"
        )
    return "torch has no integers for; make floats of them"
