"""The rows of a data file as its table has them: without deleted ones, with the table's columns in place of the file's."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def as_table_has_them(
    raw: bytes, schema: pa.Schema, constants: Mapping[str, Any], kept: pa.Array | None
) -> bytes:
    """The bytes themselves where nothing differs, else those of another parquet file.

    constants: values of the table's columns that the folder's name has, and the file lacks. kept: whether each row counts;
    None, and what lies behind the end, for rows that do. A column that the file lacks is null.
    """
    parquet = pq.ParquetFile(pa.BufferReader(raw), coerce_int96_timestamp_unit="us")
    names = parquet.schema_arrow.names
    if kept is None and set(names) == set(schema.names):
        return raw
    table = parquet.read(columns=[name for name in names if name in schema.names])
    if kept is not None:
        table = table.filter(_as_long(kept, parquet.metadata.num_rows))
    columns = {field.name: _column(table, field, constants) for field in schema}
    return as_parquet(pa.table(columns))


def as_parquet(table: pa.Table) -> bytes:
    """A table as the bytes of a parquet file, equal ones for equal tables."""
    written = io.BytesIO()
    pq.write_table(table.combine_chunks(), written, write_page_checksum=True)
    return written.getvalue()


def _column(
    table: pa.Table, field: pa.Field, constants: Mapping[str, Any]
) -> pa.ChunkedArray | pa.Array:
    if field.name in table.column_names:
        return table.column(field.name)
    value = constants.get(field.name)
    if value is None:
        return pa.nulls(table.num_rows, field.type)
    return pa.repeat(pa.scalar(value).cast(field.type), table.num_rows)


def _as_long(kept: pa.Array, rows: int) -> pa.Array:
    """A mask for all rows: those that it does not reach are kept."""
    missing = rows - len(kept)
    return kept if missing <= 0 else pa.concat_arrays([kept, pc.is_null(pa.nulls(missing))])
