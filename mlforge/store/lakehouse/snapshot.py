"""The contract of a table with a log at an instant: the files in which its rows lie, and how each reads as the table has it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of a snapshot.

    size: its bytes. written: UTC microseconds, 0 where the log does not tell. state: a text that differs wherever other rows
    or columns of the file count, as after a delete that leaves the file as it is.
    """

    size: int
    written: int
    state: str


@dataclass(frozen=True)
class Snapshot(ABC):
    """A table as one commit left it. files: by paths as listings have them. version: the commit's own name."""

    version: str
    files: Mapping[str, DataFile]

    @abstractmethod
    def read(self, path: str) -> bytes | None:
        """The rows of a file that count, in the table's columns, as the bytes of a parquet file; None where it is gone.

        Equal rows give equal bytes. Raises SourceError for a file that cannot be understood, StoreError where no answer comes.
        """

    @abstractmethod
    def has(self, path: str) -> bool:
        """Whether a file is there now; raises StoreError where no answer comes."""


def state_of(parts: Iterable[object]) -> str:
    """A short text that differs where any of the parts does."""
    return hashlib.sha256("\n".join(map(repr, parts)).encode()).hexdigest()[:32]
