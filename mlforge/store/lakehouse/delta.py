"""Delta tables, by the library deltalake: which files count is read from `_delta_log`, their bytes from beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from mlforge.errors import MissingExtra, SourceError
from mlforge.store.addresses import as_path
from mlforge.store.lakehouse.columns import as_table_has_them
from mlforge.store.lakehouse.folder import Folder
from mlforge.store.lakehouse.snapshot import DataFile, Snapshot, state_of

_PARTITION = "partition."
_READS = {"deletionVectors", "timestampNtz", "vacuumProtocolCheck", "v2Checkpoint", "typeWidening"}
_MAPPING = "delta.columnMapping.mode"


@dataclass(frozen=True)
class DeltaSnapshot(Snapshot):
    """A version of a Delta table.

    table: its id, which one that is made anew in its place does not have. partitions: the values that folders' names hold, by path;
    kept: rows that count, by path.
    """

    table: str
    folder: Folder
    schema: pa.Schema = field(repr=False)
    partitions: Mapping[str, Mapping[str, Any]] = field(repr=False)
    kept: Mapping[str, pa.Array] = field(repr=False)

    def read(self, path: str) -> bytes | None:
        """The file's own bytes, unless rows of it are deleted, or columns are in its folder's name or newer than it."""
        raw = self.folder.read(path)
        if raw is None:
            return None
        try:
            return as_table_has_them(raw, self.schema, self.partitions[path], self.kept.get(path))
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{path}: cannot be read ({error})") from error

    def has(self, path: str) -> bool:
        """Whether it lies in the table's folder."""
        return self.folder.has(path)


def open_delta(source: str, address: str, known: Snapshot | None) -> Snapshot | None:
    """The table's newest version; None where there is no table.

    source: its name in messages. known: an earlier version, which is returned if it is the newest.
    Raises SourceError for a table that cannot be read, MissingExtra.
    """
    deltalake = _deltalake()
    with _errors(source, deltalake):
        options = None if as_path(address) is None else {"allow_http": "true"}
        try:
            table = deltalake.DeltaTable(address, storage_options=options)
        except deltalake.exceptions.TableNotFoundError:
            return None
        version, id_ = str(table.version()), str(table.metadata().id)
        if isinstance(known, DeltaSnapshot) and (known.version, known.table) == (version, id_):
            return known
        _check(source, table)
        return _snapshot(source, Folder(address), table, version)


def _snapshot(source: str, folder: Folder, table: Any, version: str) -> DeltaSnapshot:
    schema = pa.schema(table.schema().to_arrow())
    kept = _kept(table)
    files, partitions = {}, {}
    for row in pa.table(table.get_add_actions(flatten=True)).to_pylist():
        path = unquote(row["path"])  # the log holds URLs
        if "://" in path or path.startswith("/") or ".." in path.split("/"):
            raise SourceError(
                f"source {source!r}: it is a clone, whose file {path} belongs to another table; name that table"
            )
        values = {k.removeprefix(_PARTITION): v for k, v in row.items() if k.startswith(_PARTITION)}
        mask = kept[path].to_pylist() if path in kept else None
        state = state_of((schema, sorted(values.items()), mask))
        files[path] = DataFile(row["size_bytes"], _us(row["modification_time"]), state)
        partitions[path] = values
    if unknown := sorted(kept.keys() - files.keys()):
        raise SourceError(
            f"source {source!r}: rows are deleted of {unknown[0]}, which is none of its files by that name; "
            "have its writer rewrite the files, as by OPTIMIZE or REORG, which leaves no deletion vectors behind"
        )
    id_ = str(table.metadata().id)
    return DeltaSnapshot(version, files, id_, folder, schema, partitions, kept)


def _kept(table: Any) -> dict[str, pa.Array]:
    """Whether each row counts, by the paths of files that have deletion vectors."""
    if "deletionVectors" not in (table.protocol().reader_features or ()):
        return {}
    vectors, folder = pa.table(table.deletion_vectors()), f"{table.table_uri.rstrip('/')}/"
    urls, masks = vectors["filepath"].to_pylist(), vectors["selection_vector"].combine_chunks()
    return {unquote(url.removeprefix(folder)): masks[row].values for row, url in enumerate(urls)}


def _check(source: str, table: Any) -> None:
    """Refuse tables whose files mean something else than they hold, in ways that deltalake does not read."""
    needed = {*(table.protocol().reader_features or ())}
    mapping = table.metadata().configuration.get(_MAPPING, "none")
    if mapping == "none":
        needed.discard("columnMapping")
    elif table.protocol().min_reader_version == 2:
        needed.add("columnMapping")
    if more := sorted(needed - _READS):
        raise SourceError(
            f"source {source!r}: the Delta table uses {', '.join(more)}, which mlforge does not read; "
            "write it anew without, as by CREATE TABLE ... AS SELECT * FROM it, and name the new one"
        )


def _us(instant: Any) -> int:
    """UTC microseconds of an instant, which the log has in milliseconds."""
    return (
        int(instant.timestamp() * 1_000) * 1_000
        if hasattr(instant, "timestamp")
        else instant * 1_000
    )


@contextmanager
def _errors(source: str, deltalake: Any) -> Iterator[None]:
    try:
        yield
    except (deltalake.exceptions.DeltaError, OSError, ValueError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise SourceError(
            f"source {source!r}: the Delta table cannot be read ({first[:300]})"
        ) from error


def _deltalake() -> Any:
    try:
        import deltalake
        import deltalake.exceptions
    except ImportError as error:
        raise MissingExtra.of("a Delta table as a source", "lakehouse") from error
    return deltalake
