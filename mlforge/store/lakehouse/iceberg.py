"""Iceberg tables, by the library pyiceberg: in a folder, or under a name in a catalog that pyiceberg is configured for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlforge.errors import MissingExtra, SourceError
from mlforge.sources.lake_table import METADATA
from mlforge.store.lakehouse.columns import as_parquet
from mlforge.store.lakehouse.folder import Folder
from mlforge.store.lakehouse.snapshot import DataFile, Snapshot, state_of

NAMED = re.compile(r"([A-Za-z0-9_-]+):(?!/)([^/:]+)")
"""A table by its catalog and name, `prod:shop.events`."""
_DOCUMENT = re.compile(r"v?(\d+)[^/]*\.metadata\.json")
_FIELD_ID = b"PARQUET:field_id"


@dataclass(frozen=True)
class IcebergSnapshot(Snapshot):
    """A snapshot of an Iceberg table. tasks: what pyiceberg would read, by path."""

    table: Any = field(repr=False)
    tasks: Mapping[str, Any] = field(repr=False)

    def read(self, path: str) -> bytes | None:
        """The file's own bytes, unless rows of it are deleted, or it has other columns than the table."""
        task = self.tasks[path]
        try:
            with self.table.io.new_input(task.file.file_path).open() as file:
                raw = bytes(file.read())
            return raw if self._is_plain(raw, task) else as_parquet(self._rows(task))
        except FileNotFoundError:
            return None
        except (pa.ArrowException, OSError, ValueError, NotImplementedError) as error:
            raise SourceError(f"{path}: cannot be read ({error})") from error

    def has(self, path: str) -> bool:
        """Whether pyiceberg finds it."""
        return bool(self.table.io.new_input(self.tasks[path].file.file_path).exists())

    def _is_plain(self, raw: bytes, task: Any) -> bool:
        """Whether a file has the table's columns, by name and number, and all of its rows count."""
        if task.delete_files:
            return False
        own = pq.ParquetFile(pa.BufferReader(raw)).schema_arrow
        numbers = {each.name: (each.metadata or {}).get(_FIELD_ID) for each in own}
        nested = any(pa.types.is_nested(each.type) for each in own)
        columns = self.table.schema().fields
        return not nested and numbers == {c.name: str(c.field_id).encode() for c in columns}

    def _rows(self, task: Any) -> pa.Table:
        from pyiceberg.expressions import AlwaysTrue
        from pyiceberg.io.pyarrow import ArrowScan

        table = self.table
        return ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue()).to_table([task])


def open_iceberg(source: str, address: str, known: Snapshot | None) -> Snapshot | None:
    """The table's newest snapshot, as `open_delta` gives one of a Delta table.

    address: a folder, a document of its metadata, or `catalog:namespace.table`.
    """
    _check_installed()
    with _errors(source):
        table = _table(source, address)
        if table is None:
            return None
        current = table.current_snapshot()
        version = f"{current.snapshot_id if current else 0}-{table.metadata.current_schema_id}"
        if known is not None and known.version == version:
            return known
        return _snapshot(source, table, version)


def _snapshot(source: str, table: Any, version: str) -> IcebergSnapshot:
    files, tasks = {}, {}
    schema = [(c.field_id, c.name, str(c.field_type)) for c in table.schema().fields]
    folder = f"{table.location().rstrip('/')}/"
    for task in table.scan().plan_files() if table.current_snapshot() else ():
        file = task.file
        if str(file.file_format).upper().rpartition(".")[2] != "PARQUET":
            raise SourceError(
                f"source {source!r}: {file.file_path} is {file.file_format}; mlforge reads parquet: set write.format.default "
                "to parquet and rewrite the table's files"
            )
        path = file.file_path.removeprefix(folder)
        deletes = sorted((each.file_path, str(each.content)) for each in task.delete_files)
        files[path] = DataFile(file.file_size_in_bytes, 0, state_of((schema, deletes)))
        tasks[path] = task
    return IcebergSnapshot(version, files, table, tasks)


def _table(source: str, address: str) -> Any:
    """The table as pyiceberg opens it; None where there is none."""
    from pyiceberg.exceptions import NoSuchTableError

    from mlforge.store.lakehouse.iceberg_io import catalog_of, table_of

    if named := NAMED.fullmatch(address):
        # Closed, as each look opens one: its connections would stay until they are collected, to a database that lends out few.
        with catalog_of(named[1]) as catalog:
            try:
                return catalog.load_table(named[2])
            except NoSuchTableError:
                return None
    document = address if address.endswith(".metadata.json") else _document(source, address)
    return None if document is None else table_of(document)


def _document(source: str, address: str) -> str | None:
    """The document of a folder's newest commit, of which no catalog tells: the one with the highest number."""
    folder = Folder(address)
    numbered = [(int(m[1]), m[0]) for m in map(_DOCUMENT.fullmatch, folder.names(METADATA)) if m]
    newest = max((number for number, _ in numbered), default=None)
    names = [name for number, name in numbered if number == newest]
    if len(names) > 1:
        raise SourceError(
            f"source {source!r}: {address}/{METADATA} has {' and '.join(names)}, and nothing there tells which of them counts; "
            "name the table as its catalog does, 'iceberg:CATALOG:NAMESPACE.TABLE', or one of these files"
        )
    return f"{address.rstrip('/')}/{METADATA}/{names[0]}" if names else None


@contextmanager
def _errors(source: str) -> Iterator[None]:
    try:
        yield
    except SourceError:
        raise
    except Exception as error:  # pyiceberg's errors have no base of their own
        first = next(iter(str(error).splitlines()), type(error).__name__)
        hint = ""
        if "equality delete" in first:
            hint = "; have its writer rewrite the files (rewrite_data_files), which leaves no such deletes behind"
        raise SourceError(
            f"source {source!r}: the Iceberg table cannot be read ({first[:300]}){hint}"
        ) from error


def _check_installed() -> None:
    try:
        import pyiceberg.table  # noqa: F401
    except ImportError as error:
        raise MissingExtra.of("an Iceberg table as a source", "lakehouse") from error
