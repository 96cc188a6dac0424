"""How a cache stays below its limit: files that nobody has used for longest go first."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mlforge.store import mapped_rows
from mlforge.store.local.paths import entries_of
from mlforge.store.objects import keys

_EVERY_S = 60.0
_IN_USE_S = 600.0
_DOWN_TO = 0.9
_SUFFIXES = (".parquet", mapped_rows.SUFFIX)
"""Parts of names, one in that of each file that counts, though not its end where a killed process left a file that it had fetched in part."""
_FOLDERS = (keys.PARTS, keys.PARTIALS, "_packs", "_tiles")


class Trimmer:
    """Keeps the files of a cache folder below `limit` bytes, but for those of the last ten minutes: readers may be at them."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._next_s = 0.0

    def look(self) -> None:
        """Delete what is too much, at most once a minute."""
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + _EVERY_S
            self.trim()

    def trim(self) -> None:
        """Delete what is too much; whoever needs it again fetches it again."""
        files = sorted(self._files(), key=lambda file: file[1].st_mtime)
        total = sum(stat.st_size for _, stat in files)
        if total <= self._limit:
            return
        settled = time.time() - _IN_USE_S
        for path, stat in files:
            if total <= self._limit * _DOWN_TO or stat.st_mtime > settled:
                return
            with suppress(OSError):
                Path(path).unlink()
                total -= stat.st_size

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        for life in entries_of(self._folder):
            for feature in entries_of(Path(life.path)):
                for name in _FOLDERS:
                    for entry in entries_of(Path(feature.path) / name):
                        with suppress(OSError):
                            if any(suffix in entry.name for suffix in _SUFFIXES):
                                yield entry.path, entry.stat(follow_symlinks=False)
