"""A folder as it was last listed, for as long as it stays as it is: with thousands of entries a listing takes a while."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
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
        is_coarse = folder.st_mtime_ns % 1_000_000 == 0
        settled = time.time_ns() - folder.st_mtime_ns > (_COARSE_NS if is_coarse else _SETTLED_NS)
        listing = self._listed()
        self._known = (state, listing) if settled else None
        return listing

    def forget(self) -> None:
        """Let the folder be listed again."""
        self._known = None
