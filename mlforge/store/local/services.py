"""`_metadata/services/<service>/<X.Y.Z>.json`: the versions of services, each written once."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlforge.core.disk import sync
from mlforge.core.failpoints import reach
from mlforge.core.values import Version
from mlforge.errors import StoreError
from mlforge.store.local import io
from mlforge.store.local.paths import checked, entries_of, no_link

_SUFFIX = ".json"


def names(store: Path) -> list[str]:
    """The services that have a folder, sorted."""
    folder = no_link(no_link(store / "_metadata") / "services")
    return sorted(entry.name for entry in entries_of(folder) if entry.is_dir(follow_symlinks=False))


def read(store: Path, service: str) -> dict[Version, Any]:
    """The documents by version, ascending; IntegrityError for one that is not JSON."""
    folder = _folder(store, service)
    versions = []
    for entry in entries_of(folder):
        if entry.name.endswith(_SUFFIX):
            with suppress(StoreError):
                versions.append(Version.parse(entry.name.removesuffix(_SUFFIX)))
    documents = {version: io.read_json(_path(folder, version)) for version in sorted(versions)}
    return {version: document for version, document in documents.items() if document is not None}


def create(store: Path, service: str, version: Version, document: Mapping[str, Any]) -> bool:
    """Write the document of a version, whole or not at all; returns False where there is one already."""
    folder = _folder(store, service)
    path = _path(folder, version)
    with io.storage_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        if not io.create(path, io.json_text(document).encode()):
            return False
        for ancestor in (folder.parent, folder.parent.parent):
            sync(ancestor)
    reach("service.written")
    return True


def remove(store: Path, service: str, version: Version) -> bool:
    """Delete the document of a version; returns whether there was one."""
    return io.remove(_path(_folder(store, service), version))


def _folder(store: Path, service: str) -> Path:
    services = no_link(no_link(store / "_metadata") / "services")
    return no_link(services / checked(service, "service"))


def _path(folder: Path, version: Version) -> Path:
    return no_link(folder / f"{version}{_SUFFIX}")
