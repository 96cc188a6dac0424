"""From an Arrow table to types that polars holds: mended where values allow it, else left out by name.

A column that polars cannot hold does no harm to who does not ask for it: it is left out of the frame, and
the reason is kept for whoever does ask.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from mlforge.core.schema import DIGITS
from mlforge.sources.damage import POLARS_FAULTS

_LEFT_OUT = b"mlforge.left_out"
# Digits after the point that a decimal of more than 38 digits keeps, unless its values say otherwise.
_SCALE = DIGITS // 2


def held_by_polars(table: pa.Table, left_out: Mapping[str, str] | None) -> pa.Table:
    """The table in types that polars holds, without the columns that cannot be converted.

    left_out: columns left out so far, with reasons; `left_out_of` lists all of them. Raises
    pyarrow.ArrowException for values that are damaged.
    """
    reasons, names = dict(left_out or {}), table.schema.names
    if len(set(names)) == len(names) and all(map(_is_held, table.schema.types)):
        return table.replace_schema_metadata({_LEFT_OUT: json.dumps(reasons)} if reasons else None)
    columns: list[pa.ChunkedArray] = []
    fields: list[pa.Field] = []
    counts = Counter(names)
    for field, column in zip(table.schema, table.columns, strict=True):
        if counts[field.name] > 1:
            times = counts[field.name]
            reasons[field.name] = f"the file has {times} columns of that name; rename all but one"
            continue
        mended, reason = _mended(column)
        if mended is None:
            reasons[field.name] = reason
        else:
            columns.append(mended)
            fields.append(field.with_type(mended.type))  # polars keeps categories in its metadata
    schema = pa.schema(fields, {_LEFT_OUT: json.dumps(reasons)})
    return pa.Table.from_arrays(columns, schema=schema)


def left_out_of(table: pa.Table) -> dict[str, str]:
    """The columns that a table of `held_by_polars` had and has no more, each with the reason."""
    metadata = table.schema.metadata
    reasons: dict[str, str] = json.loads(metadata[_LEFT_OUT]) if metadata else {}
    return reasons


def pandas_ranges(schema: pa.Schema) -> dict[str, str]:
    """The named ranges that pandas made of an index of consecutive integers, each with the reason why it is no column.

    pandas shows such an index as it shows one that is a column of the file, so nothing tells its author of the difference.
    """
    noted = (schema.metadata or {}).get(b"pandas", b"")
    if b'"kind": "range", "name": "' not in noted:
        return {}
    try:
        indexes = json.loads(noted)["index_columns"]
        names = [index["name"] for index in indexes if isinstance(index, dict)]
        names = [name for name in names if isinstance(name, str)]
    except (ValueError, KeyError, TypeError):
        return {}  # what is noted is for people: the rows can be read without it
    why = "it is pandas' index, a range that the file holds no column of; write df.reset_index()"
    return {name: why for name in names if name not in schema.names}


@lru_cache
def _is_held(dtype: pa.DataType) -> bool:
    """Whether polars holds a type as it is, whatever its values."""
    return not (_repeats_a_field(dtype) or _has_view(dtype)) and _plain(dtype, None) == dtype


def _mended(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray | None, str]:
    """The column in a type that polars holds; else None and the reason."""
    dtype = column.type
    if _repeats_a_field(dtype):
        return None, f"{dtype} names a field twice, which polars cannot hold"
    if _has_view(dtype):
        column = pa.chunked_array([_without_views(chunk) for chunk in column.chunks])
        if not column.num_chunks or _has_view(column.type):
            return None, f"polars cannot hold {dtype}"
        dtype = column.type
    for scale in (None, *range(DIGITS + 1)):
        target = _plain(dtype, scale)
        if target == dtype:
            return column, ""
        try:
            return column.cast(target), ""
        except pa.ArrowNotImplementedError:
            break
        except pa.ArrowInvalid:
            if not _has_wide_decimal(dtype):
                raise
    return None, f"polars cannot hold {dtype} with such values"


def _plain(dtype: pa.DataType, scale: int | None) -> pa.DataType:
    """The type to hand to polars; an equal one where polars knows it.

    scale: the digits after the point of decimals that are too wide; None is as their type suggests.
    """
    if isinstance(dtype, pa.BaseExtensionType):
        return _plain(dtype.storage_type, scale)
    if pa.types.is_decimal256(dtype):
        declared = dtype.scale
        if scale is None:
            scale = declared if 0 <= declared <= _SCALE else _SCALE
        return pa.decimal128(DIGITS, scale)
    if pa.types.is_timestamp(dtype) and dtype.tz is not None and not _knows_zone(dtype.tz):
        return pa.timestamp(dtype.unit, "UTC")
    if pa.types.is_dictionary(dtype):
        values = _plain(dtype.value_type, scale)
        return dtype if values == dtype.value_type else values
    if pa.types.is_struct(dtype):
        return pa.struct([_field(field, scale) for field in dtype])
    if pa.types.is_fixed_size_list(dtype):
        return pa.list_(_field(dtype.value_field, scale), dtype.list_size)
    if pa.types.is_map(dtype):
        return pa.map_(_plain(dtype.key_type, scale), _field(dtype.item_field, scale))
    if pa.types.is_large_list(dtype):
        return pa.large_list(_field(dtype.value_field, scale))
    if pa.types.is_list(dtype):
        return pa.list_(_field(dtype.value_field, scale))
    return dtype


def _field(field: pa.Field, scale: int | None) -> pa.Field:
    return field.with_type(_plain(field.type, scale))


def _children(dtype: pa.DataType) -> list[pa.DataType]:
    if isinstance(dtype, pa.BaseExtensionType):
        return [dtype.storage_type]
    if pa.types.is_dictionary(dtype):
        return [dtype.value_type]
    return [dtype.field(index).type for index in range(dtype.num_fields)]


def _is_view(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_list_view(dtype) or pa.types.is_large_list_view(dtype))


def _has_view(dtype: pa.DataType) -> bool:
    return _is_view(dtype) or any(map(_has_view, _children(dtype)))


def _without_views(array: pa.Array) -> pa.Array:
    """The array with lists in place of list views, also within lists and structs.

    Not by a cast: Arrow's leaves out the last offset.
    """
    dtype = array.type
    if not _has_view(dtype):
        return array
    if _is_view(dtype) or pa.types.is_list(dtype) or pa.types.is_large_list(dtype):
        lengths = pc.fill_null(pc.list_value_length(array), 0).cast(pa.int64())
        offsets = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths)])
        values = _without_views(array.flatten())
        return pa.LargeListArray.from_arrays(offsets, values, mask=array.is_null())
    if pa.types.is_struct(dtype):
        children = [_without_views(array.field(index)) for index in range(dtype.num_fields)]
        names = [field.name for field in dtype]
        return pa.StructArray.from_arrays(children, names=names, mask=array.is_null())
    return array


def _has_wide_decimal(dtype: pa.DataType) -> bool:
    return pa.types.is_decimal256(dtype) or any(map(_has_wide_decimal, _children(dtype)))


def _repeats_a_field(dtype: pa.DataType) -> bool:
    names = [field.name for field in dtype] if pa.types.is_struct(dtype) else []
    return len(set(names)) < len(names) or any(map(_repeats_a_field, _children(dtype)))


@lru_cache
def _knows_zone(zone: str) -> bool:
    try:
        pl.Series([0]).cast(pl.Datetime("us", zone))
    except POLARS_FAULTS:
        return False
    return True


def to_frame(table: pa.Table) -> tuple[pl.DataFrame, dict[str, str]]:
    """The table of `held_by_polars` as a frame, and the columns that it lacks, each with the reason.

    A type that polars knows no more, or not yet, costs its column alone.
    """
    reasons = left_out_of(table)
    try:
        return _frame(table), reasons
    except POLARS_FAULTS as error:
        series = {}
        for name in table.column_names:
            try:
                series[name] = _frame(table.select([name]))[name]
            except POLARS_FAULTS:
                reasons[name] = f"polars cannot hold {table.schema.field(name).type}"
        if len(series) == table.num_columns:
            raise error from None
        return pl.DataFrame(series), reasons


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table, rechunk=False)
    assert isinstance(frame, pl.DataFrame)
    return frame
