"""How a feature gets another name: its folder is moved in one step, between two notes in `_metadata/renamed.json`.

The first note says what is about to move: it counts from the moment when the folder has moved, so a process that ends midway
leaves a feature with its old name or with its new one, and the same rename goes on from there.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from mlforge.core import clock
from mlforge.core.disk import sync
from mlforge.core.failpoints import reach
from mlforge.core.renames import Rename, Renames
from mlforge.store.local import io, staging, state_files
from mlforge.store.local.feature_folder import FeatureFolder
from mlforge.store.local.file_memo import FileMemo
from mlforge.store.local.leases import unshared
from mlforge.store.local.lock import exclusive
from mlforge.store.local.paths import META, no_link, well_formed
from mlforge.store.renames_note import Begun, RenamesNote

LOCK = ".renaming"


class RenamesFile:
    """The document of a store's folder, read once while the file stays as it is."""

    def __init__(self, store: Path) -> None:
        self._store, self._folder = store, store / "_metadata"
        self._path = self._folder / "renamed.json"
        self._memo = FileMemo[RenamesNote]()

    @property
    def path(self) -> Path:
        """Where it lies."""
        no_link(self._folder)
        return self._path

    def read(self) -> Renames:
        """The renames that count by now."""
        return self._read().counting(self._has_moved)

    def present_name(self, name: str) -> str:
        """The present name of the feature that has, or had, this one."""
        return self.read().now(name)

    def concerns(self, name: str) -> bool:
        """Whether a rename of a feature that has, or had, this name is noted, one that was only begun among them."""
        return self._read().concerns(name)

    def settled(self) -> Renames:
        """The renames that count, none of them half noted; call while nobody else renames."""
        renames = self.read()
        if self._read().begun:
            self.write(renames)
        return renames

    def write(self, renames: Renames, begun: Rename | None = None) -> None:
        """Replace the document, whole or not at all; begun: the one that counts once its folder has moved."""
        note = RenamesNote(renames, (Begun(begun),) if begun else ())
        io.write_json(self.path, note.to_json())

    def _read(self) -> RenamesNote:
        return self._memo.of(self.path, self._parsed) or RenamesNote()

    def _parsed(self) -> RenamesNote:
        path = self.path
        with well_formed(path):
            return RenamesNote.from_json(io.read_json(path) or {}, path)

    def _has_moved(self, begun: Begun) -> bool:
        return not self._lies(begun.rename.before) and self._lies(begun.rename.after)

    def _lies(self, name: str) -> bool:
        """Whether a feature is served under that name."""
        return (no_link(self._store / name) / state_files.LATEST).is_file()


def rename(renames: RenamesFile, before: FeatureFolder, after: FeatureFolder) -> None:
    """Move a feature's folder to another name, where no feature is served; call with both features' locks held.

    Raises VersionInUse while a reader holds a lease of a version.
    """
    store, done = before.path.parent, renames.settled()
    served = before.pointer()
    assert served is not None
    for version in before.versions():
        if version != served.version:
            with unshared(before.version(version) / META, f"{before.name} {version}"):
                pass
    lease = unshared(before.version(served.version) / META, f"{before.name} {served.version}")
    with before.exclusive(), lease, io.storage_errors(after.path):
        begun = Rename(before.name, after.name, clock.now())
        renames.write(done, begun)
        reach("rename.noted")
        after.path.rename(store / staging.new_name())
        reach("rename.made_room")
        before.path.rename(after.path)
        sync(store)
    reach("rename.moved")
    renames.settled()
    reach("rename.settled")


def clear(store: Path, renames: RenamesFile) -> None:
    """Note what a process has moved and not noted, and delete folders without a version that others took the place of."""
    with exclusive(store / LOCK):
        renames.settled()
        for folder in store.glob(f"{staging.PREFIX}*"):
            if staging.is_litter(folder):
                shutil.rmtree(folder, ignore_errors=True)


def settle(store: Path, renames: RenamesFile, name: str) -> None:
    """Note whether a rename of a feature that a process began has taken place; call with the feature's lock held.

    Without it a feature whose name a process had begun to change would look as if it had moved once it is erased.
    """
    if renames.concerns(name):
        clear(store, renames)


def forget(store: Path, renames: RenamesFile, name: str) -> None:
    """Free the former names of a feature that was erased."""
    if renames.concerns(name):
        with exclusive(store / LOCK):
            renames.write(renames.settled().without(name))


def replace(store: Path, renames: RenamesFile, known: Renames) -> None:
    """Note these renames in place of all others."""
    with exclusive(store / LOCK):
        renames.settled()
        renames.write(known)
