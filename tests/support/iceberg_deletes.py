"""Deletes of rows that leave their files as they are, added to Iceberg tables as Spark, Trino and Flink add them; pyiceberg reads such, and writes none."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestWriterV2,
)
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _FastAppendFiles
from pyiceberg.typedef import Record

_PATH, _POSITION = 2147483546, 2147483545
_numbers = itertools.count()


def delete_rows_at(table: Any, file: str, rows: Sequence[int]) -> None:
    """Mark rows of a data file as deleted, by their positions."""
    schema = pa.schema(
        [_field("file_path", pa.string(), _PATH), _field("pos", pa.int64(), _POSITION)]
    )
    deleted = pa.table([[file] * len(rows), list(rows)], schema=schema)
    bound = {_PATH: file.encode()}
    _append(table, deleted, DataFileContent.POSITION_DELETES, None, bound)


def delete_where_equal(table: Any, column: str, values: pa.Array) -> None:
    """Mark rows as deleted, by the values of a column."""
    number = table.schema().find_field(column).field_id
    schema = pa.schema([_field(column, values.type, number)])
    deleted = pa.table([values], schema=schema)
    _append(table, deleted, DataFileContent.EQUALITY_DELETES, [number], {})


def _append(
    table: Any,
    deleted: pa.Table,
    content: DataFileContent,
    equality: list[int] | None,
    bounds: dict[int, bytes],
) -> None:
    path = f"{table.location()}/data/deletes-{next(_numbers)}.parquet"
    pq.write_table(deleted, path)
    described = DataFile.from_args(
        content=content,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=Record(),
        file_size_in_bytes=pa.fs.LocalFileSystem().get_file_info(path).size,
        record_count=deleted.num_rows,
        lower_bounds=bounds,
        upper_bounds=bounds,
        equality_ids=equality,
        spec_id=table.metadata.default_spec_id,
    )
    with table.transaction() as change:
        append = _AppendDeletes(Operation.APPEND, change, table.io)
        append.append_data_file(described)
        append.commit()


class _DeletesWriter(ManifestWriterV2):
    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


class _AppendDeletes(_FastAppendFiles):
    def new_manifest_writer(self, spec: Any) -> Any:
        metadata = self._transaction.table_metadata
        output = self.new_manifest_output()
        return _DeletesWriter(spec, metadata.schema(), output, self._snapshot_id, "deflate")


def _field(name: str, dtype: pa.DataType, number: int) -> pa.Field:
    return pa.field(name, dtype, nullable=False, metadata={"PARQUET:field_id": str(number)})
