"""Tables that keep a log of which of their files count, and stores of mlforge: their folders are refused as plain sources."""

from __future__ import annotations

import os
from pathlib import Path

from mlforge.errors import SourceError

LOGS = {"_delta_log": "Delta", ".hoodie": "Hudi", ".hoodie_partition_metadata": "Hudi"}
"""The names of tables' logs, and their formats."""
_READS = {
    "Delta": "name the table: 'delta:{folder}'",
    "Iceberg": "name the table: 'iceberg:{folder}'",
    "Hudi": "write its present rows elsewhere, as spark.read.format('hudi').load('{folder}') gives them, and name that place",
}
METADATA = "metadata"
"""The folder of an Iceberg table's log, which other folders may be called, too."""
STORE = "_metadata"
"""The folder of what a store of mlforge knows of itself, which other folders may be called, too."""
_IDENTITY = "store.json"


def check_store(source: str, folder: Path) -> None:
    """Raise SourceError for a folder of a source that is a store of mlforge, as where one was moved there by hand."""
    if os.path.isfile(f"{folder}/{STORE}/{_IDENTITY}"):  # noqa: PTH113 - False where pathlib raises
        raise SourceError(_is_store(source, str(folder)))


def _is_store(source: str, folder: str) -> str:
    return (
        f"source {source!r}: {folder} is a store of mlforge: its files are versions of features, which hold the same events many "
        "times; move it out of the source"
    )


def check_log(source: str, folder: Path, name: str) -> None:
    """Refuse a folder that holds an entry of this name, if that is a table's log.

    Raises SourceError that names the folder, the table's format, and how to read its rows.
    """
    kind = LOGS.get(name)
    if kind is None and name == METADATA and _is_iceberg(folder / name):
        kind = "Iceberg"
    if kind is not None:
        read = _READS[kind].format(folder=folder)
        raise SourceError(
            f"source {source!r}: {folder} is a table in {kind} format (it holds {name}): its files as they "
            f"lie include deleted and replaced rows; {read}"
        )


def check_key(source: str, bucket: str, key: str) -> None:
    """Refuse a bucket that holds an object with this key, if that belongs to a table's log; raises as `check_log`."""
    *folders, name = key.split("/")
    kinds = [LOGS[part] for part in (*folders, name) if part in LOGS]
    if folders[-1:] == [METADATA] and name.endswith(".metadata.json"):
        kinds.append("Iceberg")
    if kinds:
        raise SourceError(
            f"source {source!r}: {bucket}/{key} belongs to a table in {kinds[0]} format: its files as they lie include "
            "deleted and replaced rows; name the table, 'delta:s3://...' or 'iceberg:s3://...', or write its present rows elsewhere"
        )


def check_store_key(source: str, bucket: str, key: str) -> None:
    """Raise as `check_store` for a bucket that holds an object with this key, if that is a store's own."""
    *folders, name = key.split("/")
    if name == _IDENTITY and folders[-1:] == [STORE]:
        raise SourceError(_is_store(source, "/".join((bucket.rstrip("/"), *folders[:-1]))))


def check_above(source: str, root: Path) -> None:
    """Raise SourceError for a folder inside a table with a log, such as a partition."""
    for folder in root.parents:
        for name in (*LOGS, METADATA):
            # Each refresh asks some twenty times: paths are dear.
            if os.path.lexists(f"{folder}/{name}"):
                check_log(source, folder, name)


def _is_iceberg(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(entry.name.endswith(".metadata.json") for entry in entries)
    except OSError:  # no folder, or one that may not be read
        return False
