"""Recovery: what a killed writer left in a feature's folder is finished or undone by the next writer."""

from __future__ import annotations

import shutil

from mlforge.store.local import staging, state_files
from mlforge.store.local.feature_folder import FeatureFolder
from mlforge.store.local.task_files import FOLDER as TASKS
from mlforge.store.local.task_files import LocalTaskFiles
from mlforge.store.local.version_folders import FolderListing


def recover(feature: FeatureFolder) -> None:
    """Delete half-made folders and files, and serve a version that was made but never served.

    A feature that is held keeps the version that it serves. Call it with the feature's lock held.
    """
    with feature.exclusive():
        listing = feature.folders.look()
        _delete_litter(feature, listing)
        versions, known = listing.versions, state_files.served(feature.path)
        is_behind = versions and (known is None or known[1] < versions[-1])
        if is_behind and state_files.books(feature.path).hold is None:
            state_files.point(feature.path, versions[-1])


def _delete_litter(feature: FeatureFolder, listing: FolderListing) -> None:
    for folder in listing.staged:
        if staging.is_litter(folder):
            shutil.rmtree(folder, ignore_errors=True)
    for file in listing.documents:
        file.unlink(missing_ok=True)
    tasks = feature.path / TASKS
    if staging.is_abandoned(tasks):
        LocalTaskFiles.of(feature).clear()
    feature.partial_store.recover()
    feature.tiles.clean()
