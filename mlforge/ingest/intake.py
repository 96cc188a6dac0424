"""The result of an ingestion, and what may go wrong with a file in one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from polars.exceptions import PanicException

from mlforge.core.manifest import Partial, SourceRecord, TableRecord
from mlforge.core.schema import Schema
from mlforge.errors import DataError, FunctionError, MlforgeError, SourceError, ValidationError
from mlforge.sources.source_file import SourceFile
from mlforge.store import FileStateMap, Quarantined

FAULTS = (SourceError, FunctionError, DataError, ValidationError)
"""Errors for which a file is set aside; a full disk or a wrong definition is no file's fault."""
FUNCTION_FAULTS = (Exception, SystemExit, PanicException)
"""All that a user's function may raise, or end in; an order to stop is none of these."""
AS_DECLARED = "incremental=False"
"""Why a function sees the whole source, where its author has said so."""


@dataclass(frozen=True, slots=True)
class Outvoted:
    """Files whose rows count in the latest version but would not in the next: their number, and an example."""

    files: int
    rows: int
    reason: str

    def __str__(self) -> str:
        files = "1 file" if self.files == 1 else f"{self.files} files"
        return f"{self.rows:,} rows of {files}, which count now, would be set aside: {self.reason}"


@dataclass(frozen=True)
class Intake:
    """The present state of a source as a feature sees it: partials, lineage, and files set aside.

    evidence: how files differ in their columns, for the change summary. outvoted: the files whose rows
    counted until now and no more do, as most files have another dtype. unread: the files that had to be read, each alone.
    is_shared: whether tasks of other processes have read some. has_all: whether each listed file was looked at; not where one could
    not be read yet.
    """

    rowwise: bool
    why: str
    schema: Schema | None
    partials: tuple[Partial, ...]
    records: tuple[SourceRecord, ...]
    quarantine: Mapping[str, Quarantined]
    errors: tuple[MlforgeError, ...]
    file_states: FileStateMap
    files_read: int
    warnings: tuple[str, ...]
    evidence: Mapping[str, Any]
    outvoted: Outvoted | None
    tables: Mapping[str, tuple[TableRecord, ...]]
    unread: tuple[SourceFile, ...]
    has_all: bool
    is_shared: bool = False


class NotProvenError(Exception):
    """A turn in the flow, never seen outside: the function must see the whole source."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
