"""A refresh's two values from the store: the snapshot it starts from, and the version that it writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from mlforge.core.manifest import Manifest, Part
from mlforge.core.values import TimeRange, Version
from mlforge.errors import UnsupportedStore
from mlforge.store.records import Books, FileStateMap


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which version is served, and a generation that every publish and rollback raises."""

    version: Version
    generation: int


@dataclass(frozen=True)
class Snapshot:
    """A feature as the store holds it, read once; later steps look at this and at nothing newer.

    latest: the served version's manifest, None before the first. versions: whole versions, ascending.
    file_states: source files as the last refresh saw them, by path.
    """

    name: str
    pointer: Pointer | None
    latest: Manifest | None
    versions: tuple[Version, ...]
    books: Books
    file_states: FileStateMap

    @property
    def highest(self) -> Version | None:
        """The highest version, None before the first."""
        return self.versions[-1] if self.versions else None


class TablePiece(NamedTuple):
    """Rows that become one part of a table, and the first and last instant among them."""

    rows: pl.DataFrame
    times: TimeRange | None


class StoredPiece(NamedTuple):
    """A part that was written elsewhere, of which the file has the bytes."""

    part: Part
    file: Path


Piece = TablePiece | StoredPiece


class Transaction(ABC):
    """A version being written: invisible before `commit`, and removed without it."""

    snapshot: Snapshot

    @abstractmethod
    def write_table(
        self, pieces: Iterable[Piece], before: Sequence[Part] = (), after: Sequence[Part] = ()
    ) -> tuple[Part, ...]:
        """Write the version's table, once; each piece becomes a part, and pieces come in the order of time.

        The files of stored pieces are taken as they are: their bytes are those of their parts.

        before, after: parts of the snapshot's served version before and after the pieces in time; they are
        shared, not written again. Returns all parts in order. Raises StoreError where they cannot be written.
        """

    def take_files(self, files: Sequence[str], parts: Sequence[Part]) -> tuple[Part, ...]:
        """Make files that another store has of these parts the version's table, in place of `write_table`.

        The files stay as they are. Returns the parts under their names here. Raises IntegrityError for a file that is not
        what its part says, UnsupportedStore from a backend that takes none.
        """
        raise UnsupportedStore(f"{type(self).__name__} takes no files of another store")

    def foresee(self, candidate: Manifest) -> None:  # noqa: B027 - to do nothing is a way, too
        """Begin to write what the manifest is going to say of partials and sources, which are known before the table.

        Only saves time: `commit` writes what is missing, and raises what went wrong.
        """

    @abstractmethod
    def scan_served(self, parts: Sequence[Part]) -> pl.LazyFrame:
        """The rows of some parts, at least one, of the snapshot's served version, lazily."""

    @abstractmethod
    def scan_table(self) -> pl.LazyFrame:
        """The rows of the table that was written, lazily."""

    @abstractmethod
    def commit(self, manifest: Manifest, books: Books | None = None) -> Pointer:
        """Make the version visible, then serve it, then replace the books, if given.

        The manifest has its number and the parts of the table. Raises VersionConflict if that version
        exists, or something other than the snapshot's version is served by now.
        """
