"""The result of an ingestion, and what may go wrong with a file in one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlforge.core.manifest import Partial, SourceRecord
from mlforge.core.schema import Schema
from mlforge.errors import DataError, FunctionError, MlforgeError, SourceError, ValidationError
from mlforge.store import Quarantined, Seen

FAULTS = (SourceError, FunctionError, DataError, ValidationError)
"""Errors for which a file is set aside; a full disk or a wrong definition is no file's fault."""


@dataclass(frozen=True)
class Intake:
    """The present state of a source as a feature sees it: partials, lineage, and files set aside."""

    rowwise: bool
    why: str
    schema: Schema | None
    partials: tuple[Partial, ...]
    records: tuple[SourceRecord, ...]
    quarantine: Mapping[str, Quarantined] = field(default_factory=dict)
    errors: tuple[MlforgeError, ...] = ()
    seen: Mapping[str, Seen] = field(default_factory=dict)
    files_read: int = 0
    warnings: tuple[str, ...] = ()


class NotProvenError(Exception):
    """A turn in the flow, never seen outside: the function must see the whole source."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
