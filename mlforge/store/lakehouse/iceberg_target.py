"""An Iceberg table that versions are written to: in a folder of its own, with no catalog (`metadata/vN.metadata.json`).

pyiceberg makes schemas, manifests and snapshots. A commit creates the document of the next number, which nobody may take
twice; any catalog can register the newest one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlforge.errors import MissingExtra, StoreError, VersionConflict
from mlforge.sources.lake_table import METADATA
from mlforge.store.lakehouse.columns import as_parquet
from mlforge.store.lakehouse.folder import Folder
from mlforge.store.lakehouse.private_names import private
from mlforge.store.lakehouse.snapshot import state_of
from mlforge.store.lakehouse.target import NewFile, Target, Written, check_none_deleted

_HINT = f"{METADATA}/version-hint.text"
_DOCUMENT = re.compile(r"v(\d+)\.metadata\.json")


class IcebergTarget(Target):
    """A table in a local folder, or at the address of a bucket."""

    format = "iceberg"

    def __init__(self, address: str) -> None:
        _check_installed()
        super().__init__(address)
        self._number = 0
        self._table: Any = None
        self._files: dict[str, Any] = {}
        self._change: Any = None
        self._schema: pa.Schema | None = None
        self._footers: dict[str, pq.FileMetaData] = {}

    def written(self) -> Written | None:
        """The files of the newest snapshot, and the notes of the newest one that has any."""
        from mlforge.store.lakehouse.iceberg_io import table_of

        names = self._folder.names(METADATA)
        numbers = map(_DOCUMENT.fullmatch, names)
        self._number = max((int(each[1]) for each in numbers if each), default=0)
        self._table, self._files, self._change = None, {}, None
        if not self._number:
            # Manifests alone are what a killed export left.
            if any(name.endswith(".metadata.json") for name in names):
                raise StoreError(
                    f"{self._folder.address}: the table there is kept by a catalog; name a place where there is none"
                )
            return None
        self._hint()
        document = f"{self._folder.address}/{METADATA}/v{self._number}.metadata.json"
        try:
            self._table = table = table_of(document)
        except Exception as error:  # those of pyiceberg have no base of their own
            first = next(iter(str(error).splitlines()), "")
            raise StoreError(
                f"{document} is no table's ({first[:300]}); restore it, or name another place"
            ) from error
        if table.current_snapshot():
            tasks = list(table.scan().plan_files())
            check_none_deleted(self._folder.address, sum(bool(t.delete_files) for t in tasks))
            self._files = {self._name(task.file.file_path): task.file for task in tasks}
        return Written(frozenset(self._files), _notes(table))

    def name_of(self, part: str, schema: pa.Schema) -> str:
        """After the part and the numbers of its columns, which are in the file."""
        columns = self._changed(schema).table_metadata.schema().fields
        numbers = state_of((c.field_id, c.name, str(c.field_type)) for c in columns)
        return f"data/{part}-{numbers[:8]}.parquet"

    def put(self, name: str, rows: pa.Table) -> NewFile:
        """Write below `data`."""
        from pyiceberg.io.pyarrow import schema_to_pyarrow

        numbered = schema_to_pyarrow(self._change.table_metadata.schema())
        data = as_parquet(rows.select(numbered.names).cast(numbered))
        self._folder.write(name, data)
        self._footers[name] = pq.read_metadata(pa.BufferReader(data))
        return NewFile(name, rows.num_rows, len(data))

    def commit(
        self,
        schema: pa.Schema,
        came: Sequence[NewFile],
        went: Collection[str],
        notes: Mapping[str, str],
    ) -> None:
        """Create the next document of `metadata`."""
        change = self._changed(schema)
        with change.update_snapshot(snapshot_properties=dict(notes)).overwrite() as snapshot:
            for file in came:
                snapshot.append_data_file(self._described(file))
            for name in went:
                snapshot.delete_data_file(self._files[name])
        change.commit_transaction()
        self.written()

    def _changed(self, schema: pa.Schema) -> Any:
        """A transaction in which the table has the columns of a schema; those that stay keep their numbers."""
        if self._change is not None and schema.equals(self._schema):
            return self._change
        self._schema = schema
        if self._table is None:
            self._change = _new_table(self._folder, schema, self._commit).transaction()
            return self._change
        from pyiceberg.io.pyarrow import schema_to_pyarrow
        from pyiceberg.table import Table

        known = self._table
        table = Table(
            known.name(),
            known.metadata,
            known.metadata_location,
            known.io,
            _catalog(self._folder, self._commit),
        )
        self._change = change = table.transaction()
        before = schema_to_pyarrow(table.schema(), include_field_ids=False)
        gone = [f.name for f in before if f.name not in schema.names or not _alike(f, schema)]
        new = [f for f in schema if f.name not in before.names or f.name in gone]
        if gone or new:
            with change.update_schema(allow_incompatible_changes=True) as update:
                for name in gone:
                    update.delete_column((name,))
                for field in new:
                    update.add_column((field.name,), _iceberg_type(field.type))
        return change

    def _described(self, file: NewFile) -> Any:
        """A file as manifests describe it, with the statistics of its columns."""
        from pyiceberg.io.pyarrow import (
            compute_statistics_plan,
            data_file_statistics_from_parquet_metadata,
            parquet_path_to_id_mapping,
        )
        from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
        from pyiceberg.typedef import Record

        metadata = self._change.table_metadata
        schema = metadata.schema()
        statistics = data_file_statistics_from_parquet_metadata(
            parquet_metadata=self._footers.pop(file.name),
            stats_columns=compute_statistics_plan(schema, metadata.properties),
            parquet_column_mapping=parquet_path_to_id_mapping(schema),
        )
        return DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=f"{self._folder.address}/{file.name}",
            file_format=FileFormat.PARQUET,
            partition=Record(),
            file_size_in_bytes=file.size,
            sort_order_id=None,
            spec_id=metadata.default_spec_id,
            equality_ids=None,
            key_metadata=None,
            **statistics.to_serialized_dict(),
        )

    def _commit(self, document: str) -> str:
        """Create the document of the next number; returns its address."""
        number = self._number + 1
        path = f"{METADATA}/v{number}.metadata.json"
        if not self._folder.create(path, document.encode()):
            raise VersionConflict(
                f"{self._folder.address}: somebody else has written version {number} of the table meanwhile; run the same command again"
            )
        self._number = number
        self._hint()
        return f"{self._folder.address}/{path}"

    def _hint(self) -> None:
        """Say which document is the newest, for readers that list no folder."""
        text = str(self._number).encode()
        if self._folder.read(_HINT) != text:
            self._folder.write(_HINT, text)

    def _name(self, path: str) -> str:
        return path.removeprefix(f"{self._folder.address}/")


def _new_table(folder: Folder, schema: pa.Schema, commit: Any) -> Any:
    """A table that nobody has seen yet."""
    from pyiceberg.catalog import Catalog
    from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
    from pyiceberg.table import Table
    from pyiceberg.table.metadata import new_table_metadata
    from pyiceberg.table.sorting import UNSORTED_SORT_ORDER

    from mlforge.store.lakehouse.iceberg_io import files_at

    metadata = new_table_metadata(
        schema=private(Catalog, "_convert_schema_if_needed")(schema),
        partition_spec=UNPARTITIONED_PARTITION_SPEC,
        sort_order=UNSORTED_SORT_ORDER,
        location=folder.address,
    )
    io = files_at(folder.address)
    name = folder.address.rpartition("/")[2]
    return Table((name,), metadata, "", io, _catalog(folder, commit))


def _catalog(folder: Folder, commit: Any) -> Any:
    """The catalog of one table: a commit to it is a new document."""
    from pyiceberg.catalog.noop import NoopCatalog
    from pyiceberg.table import CommitTableResponse
    from pyiceberg.table.update import update_table_metadata

    class FolderCatalog(NoopCatalog):  # type: ignore[misc]  # pyiceberg is seen untyped
        def commit_table(self, table: Any, requirements: Any, updates: Any) -> Any:
            for requirement in requirements:
                requirement.validate(table.metadata)
            before = table.metadata_location or None
            metadata = update_table_metadata(table.metadata, updates, metadata_location=before)
            place = commit(metadata.model_dump_json())
            return CommitTableResponse(metadata=metadata, metadata_location=place)

    return FolderCatalog(folder.address)


def _alike(field: pa.Field, schema: pa.Schema) -> bool:
    """Whether a schema has a field of that type; of Iceberg's own types, as they come back from a table."""
    return str(_iceberg_type(field.type)) == str(_iceberg_type(schema.field(field.name).type))


def _iceberg_type(dtype: pa.DataType) -> Any:
    from pyiceberg.io import pyarrow as of_arrow

    return of_arrow.visit_pyarrow(dtype, private(of_arrow, "_ConvertToIcebergWithoutIDs")())


def _notes(table: Any) -> dict[str, str]:
    """The notes of the newest snapshot that an export made."""
    snapshot = table.current_snapshot()
    while snapshot is not None:
        notes = dict(snapshot.summary.additional_properties) if snapshot.summary else {}
        if "mlforge.version" in notes:
            return notes
        parent = snapshot.parent_snapshot_id
        snapshot = table.snapshot_by_id(parent) if parent is not None else None
    return {}


def _check_installed() -> None:
    try:
        import pyiceberg.table  # noqa: F401
    except ImportError as error:
        raise MissingExtra.of("an export to an Iceberg table", "lakehouse") from error
