"""How a feature goes: version by version, the served one last, then what lies beside them.

A process that ends midway leaves a feature that is served, perhaps with fewer versions, or one that is not: a file says
that it was let go, and whoever takes its lock next deletes the rest.
"""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections.abc import Collection, Iterable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from mlforge.core.failpoints import reach
from mlforge.core.forgotten import Forgotten
from mlforge.core.signatures import named_methods
from mlforge.core.values import Version
from mlforge.store.erasure import Erasure
from mlforge.store.local import index, io, publishing, renaming, staging, state_files, upkeep
from mlforge.store.local.feature_folder import FeatureFolder
from mlforge.store.local.forgotten import ForgottenFile
from mlforge.store.local.leases import unshared
from mlforge.store.local.paths import META, entries_of
from mlforge.store.local.task_files import LocalTaskFiles
from mlforge.store.version_storage import VersionStorage, removed_each

LOCKS = (".refreshing", ".publishing")
"""The files that stay: whoever waits for them would otherwise hold a lock that nobody else sees."""
LET_GO = "_let_go.json"
"""The file that says that a feature which is not served was erased, not left half-made."""
_ORDER = {"_partials": 1, "_packs": 1, LET_GO: 2}


def erase(store: Path, feature: FeatureFolder, renames: renaming.RenamesFile) -> None:
    """Delete everything of a feature but its lock files; call with its lock held.

    Raises VersionInUse while a reader holds a lease of a version, which stays then, as does the served one.
    """
    renaming.settle(store, renames, feature.name)
    pointer = feature.pointer()
    for version in feature.versions():
        if pointer is None or version != pointer.version:
            publishing.remove(feature, version)
    if pointer is not None:
        path, hidden = feature.version(pointer.version), feature.path / staging.new_name()
        what = f"{feature.name} {pointer.version}"
        is_whole = (path / META).is_file()
        lease = unshared(path / META, what) if is_whole else nullcontext()
        with feature.exclusive(), lease, io.storage_errors(path):
            io.write_json(feature.path / LET_GO, {})
            index.remove(store, feature.name)
            reach("erase.let_go")
            (feature.path / state_files.LATEST).unlink()
            reach("erase.unserved")
            if path.exists():
                path.rename(hidden)
    reach("erase.hidden")
    _end(store, feature, renames)


def finish(store: Path, feature: FeatureFolder, renames: renaming.RenamesFile) -> None:
    """End the erasure of a feature that a process let go and left; one that is served yet was not let go."""
    if not (feature.path / LET_GO).exists():
        return
    if feature.pointer() is not None:
        (feature.path / LET_GO).unlink()
        return
    _end(store, feature, renames)


def _end(store: Path, feature: FeatureFolder, renames: renaming.RenamesFile) -> None:
    """Free the names of a feature that is not served, then delete what is left of it."""
    for former in renames.read().formerly(feature.name):
        index.remove(store, former)  # a rename that was killed may have left it there
    renaming.forget(store, renames, feature.name)
    reach("erase.unnamed")
    _delete_all(feature)


def _delete_all(feature: FeatureFolder) -> None:
    """Delete what is left of a feature that is not served."""
    # Notes first and events last: what is left of a feature by a process that ends midway is known for one that is gone.
    for entry in sorted(entries_of(feature.path), key=lambda entry: _ORDER.get(entry.name, 0)):
        if entry.name not in LOCKS:
            with io.storage_errors(Path(entry.path)):
                _delete(Path(entry.path), entry.is_dir(follow_symlinks=False))


def _delete(path: Path, is_folder: bool) -> None:
    if is_folder:
        shutil.rmtree(path)
    else:
        path.unlink()


@named_methods
class LocalErasure(Erasure, VersionStorage):
    """The part of a local store that deletes for good."""

    path: Path
    _features: dict[str, FeatureFolder]
    _forgotten: ForgottenFile
    _renames: renaming.RenamesFile

    def remove(self, name: str, version: Version) -> None:
        """Take the folder out of sight in one step, then delete it."""
        self._take_away(name, version)
        publishing.sweep_chunks(self._feature(name))

    def remove_each(
        self, name: str, versions: Iterable[Version]
    ) -> tuple[list[Version], list[Version]]:
        """As `remove`; all other versions are asked once which pieces of lists they name."""
        removed = removed_each(partial(self._take_away, name), versions)
        publishing.sweep_chunks(self._feature(name))
        return removed

    def _take_away(self, name: str, version: Version) -> None:
        """Remove a version, also one whose document cannot be read: a forgetting must not leave it."""
        try:
            publishing.remove(self._feature(name), version)
        except (FileNotFoundError, NotADirectoryError):
            self.manifest(name, version)  # says which versions there are
            raise

    def erase(self, name: str) -> None:
        """Delete the folder's contents but its lock files."""
        try:
            erase(self.path, self._feature(name), self._renames)
        finally:
            self._features.pop(name, None)

    def scrub(self, name: str, hashes: Collection[str], sorted_by: str | None = None) -> None:
        """Delete files, write packs anew without them, and delete at once what was left to readers."""
        feature = self._feature(name)
        upkeep.scrub(feature.partial_store, hashes, sorted_by)
        feature.tiles.scrub(hashes)
        LocalTaskFiles.of(feature).clear()

    def forgotten(self) -> Forgotten:
        """Read `_metadata/forgotten.json`."""
        return self._forgotten.read()

    def write_forgotten(self, forgotten: Forgotten) -> None:
        """Replace `_metadata/forgotten.json`."""
        self.establish()
        self._forgotten.write(forgotten)

    def end_forgetting(self, names: Collection[str], forgotten: Forgotten) -> None:
        """Strike features out of `_metadata/forgotten.json`."""
        self._forgotten.end(names, forgotten)

    @abstractmethod
    def _feature(self, name: str) -> FeatureFolder:
        """The folder of a feature."""
