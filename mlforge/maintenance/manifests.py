"""The manifests of all versions of a feature."""

from __future__ import annotations

from mlforge.core.manifest import Manifest
from mlforge.core.values import Version
from mlforge.errors import StoreError
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
