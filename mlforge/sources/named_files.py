"""A look at some files of a place by name, where all others are as they are known to be."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

from mlforge.sources.glob import EVERYTHING, Parts
from mlforge.sources.lake_table import LOGS, METADATA, check_above, check_log, check_store
from mlforge.sources.place import Place
from mlforge.sources.source_file import Stat, stat_of


def look_at(
    place: Place, paths: Collection[str], known: Mapping[str, Stat]
) -> dict[str, Stat] | None:
    """The known stats, of these paths as they are now; None where a walk over the place must tell.

    A walk must where links, or anything but files and folders, are involved, where a path cannot be one of the place's, where
    something may not be looked at, and where files have gone that may not have gone alone, as with a disk that was unmounted.
    Raises SourceError for a folder that belongs to a table with a log, or that is a store.
    """
    if place.pattern.is_one:
        return None
    check_above(place.text, place.root)
    folders, stats, has_gone = _Folders(place), dict(known), False
    try:
        if not folders.has(()):
            return None
        for path in paths:
            parts = _parts_of(path, place)
            if not (path.startswith(place.prefix) and path.isprintable() and place.takes(parts)):
                return None
            is_folder_there = folders.has(parts[:-1])
            now = _stat(place.root.joinpath(*parts)) if is_folder_there else None
            if now is not None:
                stats[path] = known[path] if known.get(path) == now else now
            elif path in stats:
                del stats[path]
                has_gone = True
                if not is_folder_there:
                    return None
        if has_gone and not _has_first(place, stats):
            return None
    except OSError:
        return None
    return stats


def _parts_of(path: str, place: Place) -> Parts:
    return tuple(path.removeprefix(place.prefix).split("/"))


def _has_first(place: Place, stats: Mapping[str, Stat]) -> bool:
    """Whether the first of some files is there. Raises OSError as `_stat`."""
    first = next(iter(stats), None)
    return first is not None and _stat(place.root.joinpath(*_parts_of(first, place))) is not None


def _stat(path: Path) -> Stat | None:
    """The stat of a file; None where there is none. Raises OSError for what is no plain file."""
    try:
        result = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(result.st_mode):
        raise OSError(errno.EINVAL, "neither a file nor a folder", str(path))
    return stat_of(result)


class _Folders:
    """The folders of a place that named files lie in, each looked at once."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._there: dict[Parts, bool] = {}

    def has(self, parts: Parts) -> bool:
        """Whether a folder is there. Raises OSError for what is none, as a link to one, and SourceError for one of a table with a log."""
        if parts not in self._there:
            self._there[parts] = (not parts or self.has(parts[:-1])) and self._is_there(parts)
        return self._there[parts]

    def _is_there(self, parts: Parts) -> bool:
        folder = self._place.root.joinpath(*parts)
        try:
            result = folder.lstat() if parts else folder.stat()
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(result.st_mode):
            raise NotADirectoryError(folder)
        for name in (*LOGS, METADATA):
            if os.path.lexists(folder / name):
                check_log(self._place.text, folder, name)
        if parts or self._place.pattern is EVERYTHING:
            check_store(self._place.text, folder)
        return True
