"""The versions' folders of a feature, as one listing of its folder shows them.

A version is whole from the moment when its folder has its name. So a folder is looked into once, and with
thousands of versions a look costs no more than their names.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from mlforge.core.values import Version
from mlforge.errors import StoreError
from mlforge.store.local import staging
from mlforge.store.local.paths import META, entries_of

# After so long a change of a folder shows in its time: file systems' clocks tick, some by the second.
_SETTLED_NS, _COARSE_NS = 50_000_000, 2_000_000_000
_NUMBERS = attrgetter("major", "minor", "patch")  # a tenth of the time of comparing versions


@dataclass(frozen=True, slots=True)
class FolderListing:
    """Whole versions, ascending, and the hidden entries that a writer may have left half-made."""

    versions: tuple[Version, ...]
    staged: tuple[Path, ...]
    documents: tuple[Path, ...]


class VersionFolders:
    """The versions in a feature's folder; remembers by name and inode which are whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._whole: dict[tuple[str, int], Version] = {}
        self._seen: tuple[tuple[int, int], FolderListing] | None = None

    def look(self) -> FolderListing:
        """List the folder as it is now; a link in the place of a version is none."""
        try:
            folder = os.lstat(self._folder)
        except (FileNotFoundError, NotADirectoryError):
            return FolderListing((), (), ())
        state = folder.st_ino, folder.st_mtime_ns
        if self._seen is not None and self._seen[0] == state:
            return self._seen[1]
        is_coarse = folder.st_mtime_ns % 1_000_000 == 0
        settled = time.time_ns() - folder.st_mtime_ns > (_COARSE_NS if is_coarse else _SETTLED_NS)
        listing = self._listed()
        self._seen = (state, listing) if settled else None
        return listing

    def _listed(self) -> FolderListing:
        whole: dict[tuple[str, int], Version] = {}
        staged, documents = [], []
        for entry in entries_of(self._folder):
            name = entry.name
            if name[0] == ".":
                if name.startswith(staging.PREFIX):
                    staged.append(Path(entry.path))
                elif ".json." in name:
                    documents.append(Path(entry.path))
            elif name[0].isdigit() and entry.is_dir(follow_symlinks=False):
                key = name, entry.inode()
                version = self._whole.get(key) or _whole_version(Path(entry.path))
                if version is not None:
                    whole[key] = version
        self._whole = whole
        return FolderListing(
            tuple(sorted(whole.values(), key=_NUMBERS)), tuple(staged), tuple(documents)
        )

    def forget(self, version: Version) -> None:
        """Look into a version's folder again, as it was not what it was known for."""
        self._whole = {key: known for key, known in self._whole.items() if known != version}
        self._seen = None


def _whole_version(folder: Path) -> Version | None:
    """The version in a folder, None where the folder is no whole version."""
    try:
        version = Version.parse(folder.name)
    except StoreError:
        return None
    return version if (folder / META).is_file() else None
