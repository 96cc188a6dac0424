"""Promises of a store in a folder: locks of models, versions of services, the names that definitions have.

    _metadata/locks/<model>.json
    _metadata/services/<service>/<X.Y.Z>.json
    _metadata/definitions/<hash>.json

Each is a document that is written whole or not at all; that of a service's version is written once.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlforge.core.disk import sync
from mlforge.core.failpoints import reach
from mlforge.core.keeper import DefinedNames
from mlforge.core.lock import Lock
from mlforge.core.signatures import named_methods
from mlforge.core.values import Version, is_name
from mlforge.errors import StoreError
from mlforge.store.local import io
from mlforge.store.local.paths import checked, entries_of, no_link
from mlforge.store.local.promise_documents import (
    SUFFIX,
    lock_of,
    names_document,
    names_file,
    names_of,
)
from mlforge.store.promises import Promises
from mlforge.store.version_storage import VersionStorage


@named_methods
class LocalPromises(Promises, VersionStorage):
    """The part of a local store that keeps what was promised to models."""

    path: Path

    def locks(self) -> dict[str, Lock]:
        """Read the files of `_metadata/locks`; without any, a look at a folder that is not there."""
        names = (entry.name for entry in entries_of(self._metadata("locks")))
        models = sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))
        known = {model: self._lock(model) for model in models if is_name(model)}
        renamed = self.renames().names
        return {model: lock.renamed(renamed) for model, lock in known.items() if lock is not None}

    def write_lock(self, model: str, lock: Lock) -> None:
        """Replace `_metadata/locks/<model>.json`."""
        self.establish()
        _write(self._lock_path(model), lock.text)
        reach("lock.written")

    def remove_lock(self, model: str) -> bool:
        """Delete `_metadata/locks/<model>.json`."""
        return io.remove(self._lock_path(model))

    def services(self) -> list[str]:
        """List the folders of `_metadata/services`."""
        entries = entries_of(self._metadata("services"))
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))

    def service_versions(self, service: str) -> dict[Version, Any]:
        """Read the files of `_metadata/services/<service>`."""
        folder, versions = self._service(service), []
        for entry in entries_of(folder):
            if entry.name.endswith(SUFFIX):
                with suppress(StoreError):
                    versions.append(Version.parse(entry.name.removesuffix(SUFFIX)))
        documents = {v: io.read_json(_version_path(folder, v)) for v in sorted(versions)}
        return {
            version: document for version, document in documents.items() if document is not None
        }

    def create_service_version(
        self, service: str, version: Version, document: Mapping[str, Any]
    ) -> bool:
        """Create `_metadata/services/<service>/<version>.json`."""
        checked(service, "service")
        self.establish()
        path = self._service_path(service, version)
        with io.storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not io.create(path, io.json_text(document).encode()):
                return False
            for ancestor in (path.parent.parent, path.parent.parent.parent):
                sync(ancestor)
        reach("service.written")
        return True

    def remove_service_version(self, service: str, version: Version) -> bool:
        """Delete `_metadata/services/<service>/<version>.json`."""
        return io.remove(self._service_path(service, version))

    def defined_names(self, definitions: str) -> DefinedNames | None:
        """Read the file of `_metadata/definitions`."""
        path = self._names_path(definitions)
        document = io.read_json(path)
        return None if document is None else names_of(document, path)

    def write_defined_names(self, definitions: str, names: DefinedNames) -> None:
        """Replace the file of `_metadata/definitions`."""
        self.establish()
        _write(self._names_path(definitions), io.json_text(names_document(definitions, names)))

    def _lock(self, model: str) -> Lock | None:
        """The lock of a model; None where it was removed since it was listed."""
        path = self._lock_path(model)
        document = io.read_json(path)
        return None if document is None else lock_of(document, path, model)

    def _metadata(self, folder: str) -> Path:
        return no_link(no_link(self.path / "_metadata") / folder)

    def _lock_path(self, model: str) -> Path:
        return no_link(self._metadata("locks") / f"{checked(model, 'model')}{SUFFIX}")

    def _service(self, service: str) -> Path:
        return no_link(self._metadata("services") / checked(service, "service"))

    def _service_path(self, service: str, version: Version) -> Path:
        return _version_path(self._service(service), version)

    def _names_path(self, definitions: str) -> Path:
        return no_link(self._metadata("definitions") / names_file(definitions))


def _version_path(folder: Path, version: Version) -> Path:
    return no_link(folder / f"{version}{SUFFIX}")


def _write(path: Path, text: str) -> None:
    """Replace a document, and have its folder outlive the machine's fall, too."""
    with io.storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with io.replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    with io.storage_errors(path):
        sync(path.parent.parent)
