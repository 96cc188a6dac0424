"""How a feature goes: version by version, the served one last, then what lies beside them.

A process that ends midway leaves a feature with fewer versions, or none with a version; erasing again ends it.
"""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path

from mlforge.core.failpoints import reach
from mlforge.store.local import index, io, publishing, staging, state_files
from mlforge.store.local.feature_folder import FeatureFolder
from mlforge.store.local.leases import unshared
from mlforge.store.local.paths import META, entries_of

LOCKS = (".refreshing", ".publishing")
"""The files that stay: whoever waits for them would otherwise hold a lock that nobody else sees."""
_EVENTS = ("_partials", "_packs")


def erase(store: Path, feature: FeatureFolder) -> None:
    """Delete everything of a feature but its lock files; call with its lock held.

    Raises VersionInUse while a reader holds a lease of a version, which stays then, as does the served one.
    """
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
            index.remove(store, feature.name)
            (feature.path / state_files.LATEST).unlink()
            reach("erase.unserved")
            if path.exists():
                path.rename(hidden)
    reach("erase.hidden")
    # Notes first and events last: what is left of a feature by a process that ends midway is known for one that is gone.
    for entry in sorted(entries_of(feature.path), key=lambda entry: entry.name in _EVENTS):
        if entry.name not in LOCKS:
            with io.storage_errors(Path(entry.path)):
                _delete(Path(entry.path), entry.is_dir(follow_symlinks=False))


def _delete(path: Path, is_folder: bool) -> None:
    if is_folder:
        shutil.rmtree(path)
    else:
        path.unlink()
