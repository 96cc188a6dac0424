"""A file of a source: where it is, and the stat by which a change shows without reading it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

Stat = tuple[int, int, int, int]
"""A FileStat as a plain tuple, which takes a third of the time to make."""
stat_of: Callable[[os.stat_result], Stat] = attrgetter(
    "st_size", "st_mtime_ns", "st_ctime_ns", "st_ino"
)


class FileStat(NamedTuple):
    """The stat of a file, by which a change shows without reading the file."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, result: os.stat_result) -> FileStat:
        """The parts of an `os.stat` that count."""
        return cls(*stat_of(result))


class Remote(ABC):
    """The files of a listing that are not files of this machine."""

    @abstractmethod
    def fetch(self, path: str, stat: FileStat) -> bytes | None:
        """The bytes of a file in the state of a stat; None where it is gone, or in another state by now.

        Raises NotReadNow for a file that alone may not be read, StoreError if no answer comes.
        """

    @abstractmethod
    def has(self, path: str) -> bool:
        """Whether there is a file at a path now, in whatever state; StoreError if no answer comes."""


class SourceFile(NamedTuple):
    """A file of a source; `path` is relative to the source's root, with `/` between its parts.

    remote: by which it is read, if it is no file of this machine; `absolute` is a name for it then.
    """

    path: str
    absolute: Path
    stat: FileStat
    remote: Remote | None = None

    @property
    def is_gone(self) -> bool:
        """Whether it is not there any more."""
        return not (self.remote.has(self.path) if self.remote else self.absolute.exists())

    @classmethod
    def under(cls, root: Path, path: str) -> SourceFile:
        """The file at a path of a source as it is now; raises OSError."""
        place = root / path
        return cls(path, place, FileStat.of(place.stat()))


def reused(stats: Mapping[str, Stat], known: Mapping[str, Stat]) -> dict[str, Stat]:
    """The stats by path; of those that are as they were known, the known objects, which need no further memory."""
    return {path: known[path] if known.get(path) == stat else stat for path, stat in stats.items()}
