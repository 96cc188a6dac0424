"""Tables with a log, written by the libraries that others write theirs with."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog import sql
from pyiceberg.catalog.sql import SqlCatalog
from sqlalchemy import NullPool, create_engine

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_B85 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"


class DeltaEvents:
    """A Delta table that rows are added to and taken from."""

    prefix = "delta"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def append(self, frame: pl.DataFrame, **options: Any) -> None:
        write_deltalake(self.folder, frame, mode="append", **options)

    def delete(self, predicate: str) -> None:
        DeltaTable(self.folder).delete(predicate)

    def compact(self) -> None:
        DeltaTable(self.folder).optimize.compact()

    def vacuum(self) -> None:
        """Delete the files that no snapshot of today has."""
        DeltaTable(self.folder).vacuum(0, dry_run=False, enforce_retention_duration=False)

    def add_column(self, frame: pl.DataFrame) -> None:
        self.append(frame, schema_mode="merge")

    def data_files(self) -> list[Path]:
        return [Path(url) for url in DeltaTable(self.folder).file_uris()]

    def paths(self) -> list[str]:
        """The paths of files, as the log has them."""
        return pa.table(DeltaTable(self.folder).get_add_actions())["path"].to_pylist()

    def commit(self, *actions: dict[str, Any]) -> None:
        """Write a commit by hand, as another writer may."""
        number = DeltaTable(self.folder).version() + 1
        text = "\n".join(map(json.dumps, actions))
        (self.folder / f"_delta_log/{number:020}.json").write_text(text)

    def delete_by_vector(self, name: str, rows: Sequence[int]) -> None:
        """Mark rows of a file as deleted and leave the file as it is, as Spark and Databricks do."""
        [log] = [
            action["add"]
            for entry in sorted(self.folder.glob("_delta_log/*.json"))
            for action in map(json.loads, entry.read_text().splitlines())
            if action.get("add", {}).get("path") == name
        ][-1:]
        features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
        vector = {
            "storageType": "i",
            "pathOrInlineDv": _z85(_bitmap(rows)),
            "sizeInBytes": len(_bitmap(rows)),
            "cardinality": len(rows),
        }
        removed = {"path": name, "deletionTimestamp": 1, "dataChange": True}
        if "deletionVector" in log:
            removed["deletionVector"] = log["deletionVector"]
        self.commit(
            {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **features}},
            {"remove": removed},
            {"add": {**log, "deletionVector": vector, "dataChange": True}},
        )


class IcebergEvents:
    """An Iceberg table in a catalog of SQLite, which lies in a folder beside it."""

    prefix = "iceberg"

    def __init__(self, folder: Path) -> None:
        self.folder, self._catalog = folder, catalog_in(folder.parent, warehouse=str(folder.parent))

    @property
    def table(self) -> Any:
        return self._catalog.load_table(f"lake.{self.folder.name}")

    def append(self, frame: pl.DataFrame) -> None:
        rows = frame.to_arrow()
        if not self._catalog.table_exists(f"lake.{self.folder.name}"):
            self._catalog.create_namespace_if_not_exists("lake")
            self._catalog.create_table(
                f"lake.{self.folder.name}", rows.schema, location=str(self.folder)
            )
        self.table.append(rows.cast(self.table.schema().as_arrow()))

    def delete(self, predicate: str) -> None:
        self.table.delete(predicate)

    def compact(self) -> None:
        self.table.overwrite(self.table.scan().to_arrow())

    def vacuum(self) -> None:
        """Delete the files that no snapshot of today has."""
        there = set(self.data_files())
        for file in (self.folder / "data").rglob("*.parquet"):
            if file not in there:
                file.unlink()

    def add_column(self, frame: pl.DataFrame) -> None:
        with self.table.update_schema() as update:
            update.union_by_name(frame.to_arrow().schema)
        self.append(frame)

    def data_files(self) -> list[Path]:
        return [
            Path(task.file.file_path.removeprefix("file://"))
            for task in self.table.scan().plan_files()
        ]


def catalog_in(folder: Path, **options: str) -> SqlCatalog:
    """A catalog of SQLite in a folder, which keeps no connection open: Python 3.13 complains of those that nobody closed."""
    folder.mkdir(parents=True, exist_ok=True)
    without_pool = partial(create_engine, poolclass=NullPool)
    with mock.patch.object(sql, "create_engine", without_pool):
        return SqlCatalog("test", uri=f"sqlite:///{folder}/catalog.db", **options)


def _bitmap(rows: Sequence[int]) -> bytes:
    """A deletion vector: a magic number and a roaring bitmap of one array container, padded to words."""
    container = struct.pack(f"<{len(rows)}H", *rows)
    head = struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16)
    vector = struct.pack("<IQI", 1681511377, 1, 0) + head + container
    return vector + bytes(-len(vector) % 4)


def _z85(data: bytes) -> str:
    return base64.b85encode(data).decode().translate(str.maketrans(_B85, _Z85))
