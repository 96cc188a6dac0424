"""Columns in types that tables of every format have: values stay what they are, types may become wider."""

from __future__ import annotations

import pyarrow as pa

from mlforge.errors import DataError

_INSTEAD = {
    pa.int8(): pa.int32(),
    pa.int16(): pa.int32(),
    pa.uint8(): pa.int32(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.float16(): pa.float32(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
    pa.null(): pa.string(),
}
_AS_THEY_ARE = (
    *(pa.bool_(), pa.int32(), pa.int64(), pa.float32(), pa.float64()),
    *(pa.string(), pa.binary(), pa.date32()),
)


def in_a_table(schema: pa.Schema, where: str) -> pa.Schema:
    """The schema that a table has for rows of this one. Raises DataError for a column of a type that none has."""
    return pa.schema([_field(field, f"{where}: column {field.name!r}") for field in schema])


def _field(field: pa.Field, where: str) -> pa.Field:
    return pa.field(field.name, _type(field.type, where))


def _type(dtype: pa.DataType, where: str) -> pa.DataType:
    if dtype in _INSTEAD:
        return _INSTEAD[dtype]
    if dtype in _AS_THEY_ARE or pa.types.is_decimal128(dtype):
        return dtype
    if pa.types.is_dictionary(dtype):
        return pa.string()
    if pa.types.is_timestamp(dtype):
        return pa.timestamp("us", "UTC" if dtype.tz else None)
    if pa.types.is_struct(dtype):
        return pa.struct([_field(dtype.field(place), where) for place in range(dtype.num_fields)])
    if (
        pa.types.is_list(dtype)
        or pa.types.is_large_list(dtype)
        or pa.types.is_fixed_size_list(dtype)
    ):
        return pa.list_(pa.field("element", _type(dtype.value_type, where)))
    raise DataError(
        f"{where} is {dtype}, which tables of this format do not have; have the function return it as another type"
    )
