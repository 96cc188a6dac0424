"""The contract of a table that versions of a feature are written to, each as a snapshot of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pyarrow as pa

from mlforge.errors import UnsupportedStore
from mlforge.store.lakehouse.folder import Folder


@dataclass(frozen=True, slots=True)
class Written:
    """The state of a table: the names of its files, and the notes of the last snapshot that has any."""

    files: frozenset[str]
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file that was put into the table's folder: its name, rows and bytes."""

    name: str
    rows: int
    size: int


def check_none_deleted(table: str, files: int) -> None:
    """Refuse a table of which somebody else has deleted rows by marks beside files: they would stay as the files do. Raises UnsupportedStore.

    files: how many of its files have such marks.
    """
    if files:
        raise UnsupportedStore(
            f"{table}: somebody else has deleted rows of the table there, of which an export knows nothing; forget them in the store, "
            "as by 'mlforge forget KEY=VALUE', and export to a place where there is none"
        )


class Target(ABC):
    """A table that an export writes. A snapshot is visible as a whole or not at all."""

    format: ClassVar[str]

    def __init__(self, address: str) -> None:
        self._folder = Folder(address)

    def __str__(self) -> str:
        """The table as a source names it: its format and its place."""
        return f"{self.format}:{self.address}"

    @property
    def address(self) -> str:
        """The table's folder, or its address in a bucket."""
        return self._folder.address

    @abstractmethod
    def written(self) -> Written | None:
        """The state of the table; None where there is none. Raises StoreError where it cannot be read, UnsupportedStore
        where somebody else has deleted rows of it."""

    @abstractmethod
    def name_of(self, part: str, schema: pa.Schema) -> str:
        """The name of the file of a part, by the part's hash, as a table of this schema has it."""

    @abstractmethod
    def put(self, name: str, rows: pa.Table) -> NewFile:
        """Write a file that no snapshot has yet, whole or not at all; one that is there is written over."""

    @abstractmethod
    def commit(
        self,
        schema: pa.Schema,
        came: Sequence[NewFile],
        went: Collection[str],
        notes: Mapping[str, str],
    ) -> None:
        """Add a snapshot with further files and without others to the table, which is made where there is none.

        Raises VersionConflict where somebody else has written to the table since `written`.
        """
