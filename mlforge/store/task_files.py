"""Files of a build's tasks: what they share, and the events, parts and results that they leave until the build takes or publishes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from mlforge.core.manifest import Part, Partial
from mlforge.store.file_tasks import PartialWrite
from mlforge.store.transaction import TablePiece


class TaskFiles(ABC):
    """The files that the tasks of one feature's builds share, in the store that all their processes reach.

    Each file appears whole or not at all, and is named after what it holds: two processes that run the same task write
    the same files. They may be deleted between builds. Nothing is written before `prepare`, nor after `clear`: a process that
    is late leaves no rows of a feature that was erased meanwhile, or of an entity that was forgotten.
    """

    @abstractmethod
    def prepare(self) -> None:
        """Let files be written, as a build begins; call with the feature's lock held."""

    @abstractmethod
    def check_open(self) -> None:
        """Raise VersionConflict where no build has its tasks here: it has ended, or another process has published meanwhile."""

    @abstractmethod
    def share(self, partials: Sequence[Partial]) -> None:
        """Let every process that has the store read the events of these partials, some of which no version may name yet."""

    @abstractmethod
    def write_document(self, document: Mapping[str, Any], name: str | None = None) -> str:
        """Keep a JSON document under a name, by default the hash of its text; returns the name."""

    @abstractmethod
    def document(self, name: str) -> Any:
        """The document of that name; None where there is none, or it is damaged."""

    @abstractmethod
    def write_frame(self, frame: pl.DataFrame) -> str:
        """Keep a frame; returns the hash of its file."""

    @abstractmethod
    def write_part(self, piece: TablePiece) -> Part:
        """Keep rows as the file that a table has of them; returns the part, which has no name yet."""

    @abstractmethod
    def frame(self, hash_: str) -> Path | None:
        """The file of a frame on this machine; None where there is none, or it is damaged."""

    def frames(self, hashes: Sequence[str]) -> list[Path | None]:
        """The files of frames on this machine, as `frame`, side by side where they come from elsewhere."""
        return [*map(self.frame, hashes)]

    @abstractmethod
    def parts(self, hashes: Sequence[str]) -> list[Path | None]:
        """The files of parts on this machine, side by side where they come from elsewhere; None for a part that is gone or damaged."""

    @abstractmethod
    def write_partials(
        self, writes: Sequence[PartialWrite], sorted_by: str | None = None
    ) -> list[str]:
        """Keep partials as the store has them; returns the names of their files, for `take_partials`.

        sorted_by: as in `PartialStorage.write_partials`.
        """

    @abstractmethod
    def lacks_partials(self, files: Sequence[str]) -> set[str]:
        """The files of partials among these that are gone or damaged."""

    @abstractmethod
    def take_partials(self, files: Sequence[str]) -> None:
        """Let the store have the partials of these files, which stay; call with the feature's lock held."""

    @abstractmethod
    def clear(self) -> None:
        """Delete everything; from then on writes raise VersionConflict. Call with the feature's lock held."""
