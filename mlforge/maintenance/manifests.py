"""The manifests of all versions of a feature, and the removal of some of these."""

from __future__ import annotations

from collections.abc import Iterable

from mlforge.core.manifest import Manifest
from mlforge.core.values import Version
from mlforge.errors import StoreError, VersionInUse
from mlforge.store import Store


def manifests_of(store: Store, name: str) -> tuple[dict[Version, Manifest], list[Version]]:
    """The manifests of all versions, ascending, and the versions whose manifests cannot be read.

    Which partials and parts such a version names is not known.
    """
    manifests, unreadable = {}, []
    for version in store.versions(name):
        try:
            manifests[version] = store.manifest(name, version)
        except StoreError:
            unreadable.append(version)
    return manifests, unreadable


def remove(
    store: Store, name: str, versions: Iterable[Version]
) -> tuple[list[Version], list[Version]]:
    """Remove versions; returns those that are gone, and those that stay because they are being read."""
    gone, in_use = [], []
    for version in versions:
        try:
            store.remove(name, version)
            gone.append(version)
        except VersionInUse:
            in_use.append(version)
    return gone, in_use
