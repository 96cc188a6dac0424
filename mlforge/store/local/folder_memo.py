"""A folder as it was last listed, for as long as it stays as it is: with thousands of entries a listing takes a while."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

# After so long a change of a folder shows in its time: file systems' clocks tick, some by the second.
_SETTLED_NS, _COARSE_NS = 50_000_000, 2_000_000_000


class FolderMemo(Generic[T]):
    """Remembers what a listing of a folder gave until an entry comes, goes or is replaced."""

    def __init__(self, folder: Path, listed: Callable[[], T]) -> None:
        self._folder, self._listed = folder, listed
        self._known: tuple[tuple[int, int], T] | None = None

    def look(self) -> T:
        """The listing as it is now, made again where the folder has changed, or changed just before it was last listed."""
        try:
            folder = os.lstat(self._folder)
        except (FileNotFoundError, NotADirectoryError):
            return self._listed()
        state = folder.st_ino, folder.st_mtime_ns
        if self._known is not None and self._known[0] == state:
            return self._known[1]
        after_ns = _COARSE_NS if _is_coarse(folder.st_mtime_ns) else _SETTLED_NS
        settled = time.time_ns() - folder.st_mtime_ns > after_ns
        listing = self._listed()
        self._known = (state, listing) if settled else None
        return listing

    def keep(self, listing: T) -> None:
        """Know this for the listing of the folder as it is now, after a change of the caller's own, so that it need not be listed.

        The folder gets a time between the ticks of the file system's clock: each later change shows. Where it cannot have one, it is listed
        again.
        """
        self._known, now = None, time.time_ns()
        with suppress(OSError):  # another user's, who alone may say when it was changed
            os.utime(self._folder, ns=(now, now))
            folder = os.lstat(self._folder)
            if folder.st_mtime_ns == now and not _is_coarse(now):
                self._known = (folder.st_ino, now), listing

    def forget(self) -> None:
        """Let the folder be listed again."""
        self._known = None


def _is_coarse(mtime_ns: int) -> bool:
    """Whether a time may be of a clock that ticks as slowly as by the second."""
    return mtime_ns % 1_000_000 == 0
