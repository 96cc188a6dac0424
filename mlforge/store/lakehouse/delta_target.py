"""A Delta table that versions are written to.

deltalake reads it. The commits are written here, as it writes none that takes some files from a table and adds others: a file of
JSON lines each, by the protocol's rules, under a number that nobody may take twice.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from mlforge.core import clock
from mlforge.core.release import RELEASE
from mlforge.errors import MissingExtra, StoreError, VersionConflict
from mlforge.store.addresses import as_path
from mlforge.store.lakehouse.columns import as_parquet
from mlforge.store.lakehouse.target import NewFile, Target, Written, check_none_deleted

_CHECKPOINT_EVERY = 10
_NTZ = "timestampNtz"


class DeltaTarget(Target):
    """A table in a local folder, or at the address of a bucket."""

    format = "delta"

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._table: Any = None

    def written(self) -> Written | None:
        """The files of the newest version, and the notes in the newest commit that has any."""
        deltalake, folder = self._deltalake, self._folder
        options = None if as_path(folder.address) is None else {"allow_http": "true"}
        try:
            self._table = table = deltalake.DeltaTable(folder.address, storage_options=options)
        except deltalake.exceptions.TableNotFoundError:
            self._table = None
            return None
        except deltalake.exceptions.DeltaError as error:
            first = next(iter(str(error).splitlines()), "")
            raise StoreError(
                f"{folder.address}: no Delta table can be read or made there ({first[:300]}); name another place"
            ) from error
        if "deletionVectors" in (table.protocol().reader_features or ()):
            check_none_deleted(folder.address, pa.table(table.deletion_vectors()).num_rows)
        files = pa.table(table.get_add_actions(flatten=True))["path"].to_pylist()
        notes = (_notes(commit.get("userMetadata")) for commit in table.history())
        return Written(frozenset(files), next(filter(None, notes), {}))

    def name_of(self, part: str, schema: pa.Schema) -> str:
        """After the part."""
        return f"{part}.parquet"

    def put(self, name: str, rows: pa.Table) -> NewFile:
        """Write beside the log."""
        data = as_parquet(rows)
        self._folder.write(name, data)
        return NewFile(name, rows.num_rows, len(data))

    def commit(
        self,
        schema: pa.Schema,
        came: Sequence[NewFile],
        went: Collection[str],
        notes: Mapping[str, str],
    ) -> None:
        """Create the next file of `_delta_log`."""
        now = clock.now() // 1_000
        number = self._table.version() + 1 if self._table else 0
        removed = {"deletionTimestamp": now, "dataChange": True}
        actions: list[dict[str, Any]] = [
            {"commitInfo": _info(now, notes)},
            *self._definition(schema, now),
            *({"remove": {"path": name, **removed}} for name in sorted(went)),
            *({"add": _add(file, now)} for file in came),
        ]
        lines = "".join(f"{json.dumps(action)}\n" for action in actions)
        if not self._folder.create(f"_delta_log/{number:020}.json", lines.encode()):
            raise VersionConflict(
                f"{self._folder.address}: somebody else has written version {number} of the table meanwhile; run the same command again"
            )
        self.written()
        if number % _CHECKPOINT_EVERY == _CHECKPOINT_EVERY - 1:
            self._table.create_checkpoint()

    def _definition(self, schema: pa.Schema, now: int) -> list[dict[str, Any]]:
        """The actions that make the table, or change its columns; none where they stay."""
        table = self._table
        text = self._deltalake.Schema.from_arrow(schema).to_json()
        if table is not None and json.loads(table.schema().to_json()) == json.loads(text):
            return []
        known = table.metadata() if table is not None else None
        metadata = {
            "id": known.id if known else str(uuid.uuid4()),
            "format": {"provider": "parquet", "options": {}},
            "schemaString": text,
            "partitionColumns": [],
            "configuration": known.configuration if known else {},
            "createdTime": known.created_time if known else now,
        }
        protocol = {"minReaderVersion": 1, "minWriterVersion": 2}
        if _NTZ.lower() in text.lower().replace("_", ""):
            features = {"readerFeatures": [_NTZ], "writerFeatures": [_NTZ]}
            protocol = {"minReaderVersion": 3, "minWriterVersion": 7, **features}  # type: ignore[dict-item]
        is_there = table is not None and (
            table.protocol().min_reader_version >= protocol["minReaderVersion"]
        )
        return [*([] if is_there else [{"protocol": protocol}]), {"metaData": metadata}]

    @cached_property
    def _deltalake(self) -> Any:
        try:
            import deltalake
            import deltalake.exceptions
        except ImportError as error:
            raise MissingExtra.of("an export to a Delta table", "lakehouse") from error
        return deltalake


def _info(now: int, notes: Mapping[str, str]) -> dict[str, Any]:
    return {
        "timestamp": now,
        "operation": "WRITE",
        "operationParameters": {"mode": "Overwrite", "partitionBy": "[]"},
        "engineInfo": f"mlforge/{RELEASE}",
        "userMetadata": json.dumps(notes),
    }


def _add(file: NewFile, now: int) -> dict[str, Any]:
    return {
        "path": file.name,
        "partitionValues": {},
        "size": file.size,
        "modificationTime": now,
        "dataChange": True,
        "stats": json.dumps({"numRecords": file.rows}),
    }


def _notes(text: Any) -> dict[str, str]:
    """The notes of a commit; none of a commit that somebody else made."""
    try:
        notes = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return notes if isinstance(notes, dict) and "mlforge.version" in notes else {}
