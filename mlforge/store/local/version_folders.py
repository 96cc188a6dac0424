"""The versions' folders of a feature, as one listing of its folder shows them.

A version is whole from the moment when its folder has its name. So a folder is looked into once, and with
thousands of versions a look costs no more than their names; and none where this process published the last one.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from mlforge.core.values import Version
from mlforge.errors import StoreError
from mlforge.store.local import staging
from mlforge.store.local.folder_memo import FolderMemo
from mlforge.store.local.paths import META, entries_of

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
        self._ascending: tuple[Version, ...] = ()
        self._hidden: tuple[tuple[Path, ...], tuple[Path, ...]] = (), ()
        self._memo = FolderMemo(folder, self._listed)

    def look(self) -> FolderListing:
        """List the folder as it is now; a link in the place of a version is none."""
        return self._memo.look()

    def published(self, version: Version, others: Sequence[Version]) -> None:
        """Know that a version has come beside the others, which ascend, and that these are all: call while nobody else may publish."""
        versions = [*others]
        insort(versions, version, key=_NUMBERS)
        self._memo.keep(FolderListing(tuple(versions), *self._hidden))

    def _listed(self) -> FolderListing:
        before, whole = self._whole, dict[tuple[str, int], Version]()
        fresh, staged, documents = [], [], []
        for entry in entries_of(self._folder):
            name = entry.name
            if name[0] == ".":
                if name.startswith(staging.PREFIX):
                    staged.append(Path(entry.path))
                elif ".json." in name:
                    documents.append(Path(entry.path))
            elif name[0].isdigit() and entry.is_dir(follow_symlinks=False):
                key = name, entry.inode()
                version = before.get(key)
                if version is None and (version := _whole_version(Path(entry.path))) is not None:
                    fresh.append(version)
                if version is not None:
                    whole[key] = version
        self._whole = whole
        self._ascending = self._in_order(before, fresh)
        self._hidden = tuple(staged), tuple(documents)
        return FolderListing(self._ascending, *self._hidden)

    def _in_order(
        self, before: Mapping[tuple[str, int], Version], fresh: list[Version]
    ) -> tuple[Version, ...]:
        """The whole versions ascending. Where some came above all others, as published ones do, the others stay sorted."""
        fresh.sort(key=_NUMBERS)
        are_on_top = not fresh or not self._ascending or self._ascending[-1] < fresh[0]
        if are_on_top and len(self._whole) == len(before) + len(fresh):
            return (*self._ascending, *fresh)
        return tuple(sorted(self._whole.values(), key=_NUMBERS))

    def forget(self, version: Version) -> None:
        """Look into a version's folder again, as it was not what it was known for."""
        self._whole = {key: known for key, known in self._whole.items() if known != version}
        self._ascending = tuple(known for known in self._ascending if known != version)
        self._memo.forget()


def _whole_version(folder: Path) -> Version | None:
    """The version in a folder, None where the folder is no whole version."""
    try:
        version = Version.parse(folder.name)
    except StoreError:
        return None
    return version if (folder / META).is_file() else None
