"""The contract of a bucket below a prefix: whole objects by key, created and replaced in one step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from mlforge.errors import StoreError, StoreUnavailable

T = TypeVar("T")
R = TypeVar("R")
_AT_ONCE = 32


class Tag(NamedTuple):
    """The state of an object, by which a later request tells whether it is still the same."""

    e_tag: str | None
    version: str | None


class Blob(NamedTuple):
    """The bytes of an object, and the state that they were read in."""

    data: bytes
    tag: Tag


class Entry(NamedTuple):
    """An object of a listing; `modified` is when it was written, in UTC microseconds by the server's clock.

    tag: its state, where the server lists it.
    """

    key: str
    size: int
    modified: int
    tag: Tag = Tag(None, None)


class Level(NamedTuple):
    """Objects, and the keys, without a final slash, below which there are further ones."""

    entries: list[Entry]
    folders: list[str]


class NotReadable(StoreUnavailable):
    """The object is there, and its server refuses to read it, or never comes to, while others may be read."""


class NoAnswer(StoreUnavailable):
    """No good answer came for an object, and nothing tells whether others fare better."""


class ConditionFailed(StoreError):
    """The object is not as the request supposed: it exists already, or has changed since it was read."""


class Objects(ABC):
    """Objects below a prefix of a bucket. Keys are relative to it; every method raises StoreError where no answer comes."""

    url: str
    """The address of the prefix, without credentials."""

    @abstractmethod
    def at(self, url: str) -> Objects:
        """The client of another address of the same server; nothing is asked."""

    @abstractmethod
    def read(self, key: str, unless: Tag | None = None) -> Blob | None:
        """The object, or None where there is none; NotChanged where it still is in the state `unless`.

        Raises NotReadable for an object that may not be read, or for which alone no answer comes, as do `download` and `look`.
        """

    @abstractmethod
    def create(self, key: str, data: bytes) -> Tag:
        """Write an object that does not exist; ConditionFailed where it does."""

    @abstractmethod
    def replace(self, key: str, data: bytes, expected: Tag) -> Tag:
        """Write an object that is in the expected state; ConditionFailed where it is in another."""

    @abstractmethod
    def put(self, key: str, data: bytes | Path) -> Tag:
        """Write an object, or a file's bytes as one, whatever was there."""

    @abstractmethod
    def download(self, key: str, path: Path) -> bool:
        """Write an object's bytes to a file, which need not exist; returns whether there is such an object."""

    @abstractmethod
    def look(self, key: str) -> Entry | None:
        """An object's entry without its bytes, None where there is none."""

    @abstractmethod
    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; an object that is not there is as good as deleted."""

    @abstractmethod
    def entries(self, folder: str) -> list[Entry]:
        """All objects below `folder/`, at any depth."""

    @abstractmethod
    def level(self, folder: str) -> Level:
        """Objects and folders directly below `folder/`, or below the prefix for ''."""

    def folders(self, folder: str) -> list[str]:
        """The names directly below `folder/`, or below the prefix for '', that have objects below them."""
        return [below.rpartition("/")[2] for below in self.level(folder).folders]


class NotChanged(Exception):
    """The object is in the state that the reader knows."""


def each(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """The results of a function that waits for answers, for many items at a time; the first error is raised."""
    todo = list(items)
    if len(todo) < 2:
        return [function(item) for item in todo]
    with ThreadPoolExecutor(min(len(todo), _AT_ONCE), "mlforge-objects") as threads:
        return list(threads.map(function, todo))


def together(calls: Sequence[Callable[[], object]]) -> None:
    """Make calls that wait for answers at the same time; the first error is raised once all have ended."""
    each(lambda call: call(), calls)
