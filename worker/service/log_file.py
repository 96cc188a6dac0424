"""A log on disk that never grows beyond a few files of bounded size."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TextIO

from mlforge.errors import Unavailable

MOST_BYTES = 10_000_000
"""The size at which a log is put aside."""
KEPT = 3
"""How many logs that were put aside are kept: `up.log.1` is the newest."""


class LogFile:
    """The log of a run at a path, written to by several threads; the log of the run before is put aside first.

    Only its owner can read it. Raises OSError where it cannot be created.
    """

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES, kept: int = KEPT) -> None:
        self._path, self._most_bytes, self._kept = path, most_bytes, kept
        self._lock = threading.Lock()
        self._file = self._begin()
        self._bytes = 0

    def write(self, text: str) -> None:
        """Write lines; a log that would grow too large is put aside before. Raises Unavailable where the disk refuses."""
        size = len(text.encode(errors="replace"))
        with self._lock:
            try:
                self._write(text, size)
            except OSError as error:
                raise Unavailable(
                    f"{self._path}: {error.strerror or error}; lines are lost until there is room"
                ) from error

    def _write(self, text: str, size: int) -> None:
        if self._bytes and self._bytes + size > self._most_bytes:
            before, self._file = self._file, self._begin()
            before.close()
            self._bytes = 0
        self._file.write(text)
        self._bytes += size

    def close(self) -> None:
        """Close the file; nothing can be written any more. Lines that the disk has refused are lost."""
        with self._lock, suppress(OSError):
            self._file.close()

    def _begin(self) -> TextIO:
        """A new file at the path; the files that were put aside move up by one, and the oldest goes."""
        put_aside(self._path, self._kept)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        return os.fdopen(descriptor, "w", buffering=1, encoding="utf-8", errors="replace")


def put_aside(path: Path, kept: int = KEPT) -> None:
    """Rename a log and those that were put aside before it; the oldest goes."""
    names = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, kept + 1))]
    for older, place in reversed(list(pairwise(names))):
        if older.exists():
            older.replace(place)
