"""How a version comes, is served, and goes: each in one step, so that no reader sees half of it."""

from __future__ import annotations

import errno
import os
import shutil
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from mlforge.core.failpoints import reach
from mlforge.core.manifest import Manifest
from mlforge.core.values import Version
from mlforge.errors import IntegrityError, StoreError, VersionConflict
from mlforge.store.local import io, staging, state_files
from mlforge.store.local.feature_folder import FeatureFolder
from mlforge.store.local.leases import unshared
from mlforge.store.local.paths import META
from mlforge.store.transaction import Pointer, Snapshot


def publish(
    feature: FeatureFolder, staged: Path, manifest: Manifest, snapshot: Snapshot
) -> tuple[Pointer, Future[None]]:
    """Make a version of a staged folder and serve it: sync, rename, point.

    Returns the pointer, and its last sync, which is under way: for the caller to wait for. Raises VersionConflict where the pointer is not the snapshot's any more, or the version exists.
    """
    assert manifest.version is not None
    target = feature.version(manifest.version)
    with io.storage_errors(target):
        feature.partial_store.behind.settle()
        document = feature.chunks.written(manifest)
        (staged / META).write_text(io.json_text(document), encoding="utf-8")
        beside = (feature.chunks.folder, feature.partial_store.loose)
        io.sync_all([*staged.rglob("*"), staged, *(each for each in beside if each.is_dir())])
        reach("publish.staged")
        with feature.exclusive():
            if feature.pointer() != snapshot.pointer:
                raise VersionConflict(
                    f"{feature.name}: another publisher was faster; refresh again"
                )
            _rename(staged, target)
            feature.manifests.keep(target / META, manifest)
            reach("publish.renamed")
            pointer = state_files.point(feature.path, manifest.version, synced=False)
            feature.folders.published(manifest.version, snapshot.versions)
        synced = io.begin_sync(feature.path)
    reach("publish.pointed")
    return pointer, synced


def _rename(staged: Path, target: Path) -> None:
    version = f"{target.parent.name}: version {target.name}"
    if os.path.lexists(target):
        raise VersionConflict(f"{version} exists; versions are never overwritten")
    try:
        staged.rename(target)
    except FileExistsError as error:  # another host does not see this one's locks
        raise VersionConflict(f"{version} exists by now") from error
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        raise VersionConflict(f"{version} exists by now") from error


def serve(feature: FeatureFolder, version: Version, at_least: int = 0) -> Pointer:
    """Point at an existing version. at_least: the lowest generation from then on."""
    with feature.exclusive():
        return state_files.point(feature.path, version, at_least=at_least)


def remove(feature: FeatureFolder, version: Version) -> None:
    """Take a version's folder out of sight in one step, then delete it; the chunks that it alone named are left to `sweep_chunks`.

    Raises StoreError for the served version, and VersionInUse while a reader holds a lease.
    """
    path, hidden = feature.version(version), feature.path / staging.new_name()
    with feature.exclusive():
        pointer = feature.pointer()
        if pointer is not None and pointer.version == version:
            raise StoreError(f"{feature.name} {version} is served and cannot be removed")
        with unshared(path / META, f"{feature.name} {version}"), io.storage_errors(path):
            path.rename(hidden)
    reach("remove.hidden")
    with io.storage_errors(path):
        shutil.rmtree(hidden)


def sweep_chunks(feature: FeatureFolder) -> None:
    """Delete the chunks that no version names; none if a version cannot be asked."""
    with suppress(IntegrityError), io.storage_errors(feature.path):
        metas = [io.read_json(feature.version(v) / META) for v in feature.versions()]
        feature.chunks.sweep(meta for meta in metas if meta)
