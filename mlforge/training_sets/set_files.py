"""The contracts of a training set's place, and of the files that those share who make it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from mlforge.training_sets.document import SetPart


class SetFiles(ABC):
    """Files of a set that is being made, as one process sees them. Each appears whole or not at all; the same task writes the same bytes.

    scratch: a folder of this process, for what it puts aside. address: by which a task names the files. prefix: ahead of the
    names that parts have in the set.
    """

    scratch: Path
    address: str
    prefix: str = ""

    @abstractmethod
    def text(self, name: str) -> str:
        """The text of a file; TaskRefused where there is none: the set is finished or given up, or this process does not reach it."""

    @abstractmethod
    def written(self, name: str) -> AbstractContextManager[Path]:
        """A path to write to, whose file lies under the name once the block ends; raises as `text`."""

    @abstractmethod
    def read(self, folder: str) -> Sequence[Path]:
        """The files below a folder of names, on this machine."""

    @abstractmethod
    def shared(self, path: Path) -> str:
        """The text by which others find a file of the caller's, or of `scratch`."""

    @abstractmethod
    def found(self, text: str) -> Path:
        """The file that `shared` told of, on this machine; raises as `text`."""

    @abstractmethod
    def place(self, path: Path) -> None:
        """Make a written file of `scratch` a part of the set, under its own name; raises as `text`."""

    @abstractmethod
    def has(self, part: SetPart) -> bool:
        """Whether a part lies there as it was written, as far as this can be told without reading a bucket's objects."""


class SetPlace(ABC):
    """The place of a training set, which is there once it is whole. address: as messages and the store's notes have it."""

    address: str

    @property
    def name(self) -> str:
        """The last part of its address."""
        return self.address.rstrip("/").rpartition("/")[2]

    @abstractmethod
    def check_free(self) -> None:
        """Raise RetrievalError where something is there: training sets are never overwritten."""

    @abstractmethod
    def making(self, set_id: str) -> AbstractContextManager[SetFiles]:
        """The files of a set that is being made; but for a set that is published nothing is left of them when the block ends."""

    @abstractmethod
    def publish(self, files: SetFiles, document: str, lock: str) -> None:
        """Let the set be there, whose parts are written, by one step at the end; raises as `check_free`."""

    @abstractmethod
    def document(self) -> str | None:
        """The text of the document of the set that is there; None where none is."""

    @abstractmethod
    def is_given_up(self, set_id: str) -> bool:
        """Whether it is known that a set is not being made any more, as its process was killed."""

    @abstractmethod
    def remove(self, set_id: str) -> None:
        """Delete what a process left that was killed while it made a set."""
