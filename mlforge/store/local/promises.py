"""Locks of models and versions of services in `_metadata`, as the store's contract names them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlforge.core.keeper import DefinedNames
from mlforge.core.lock import Lock
from mlforge.core.signatures import named_methods
from mlforge.core.values import Version
from mlforge.store.local import defined_names, locks, services
from mlforge.store.local.paths import checked
from mlforge.store.promises import Promises
from mlforge.store.version_storage import VersionStorage


@named_methods
class LocalPromises(Promises, VersionStorage):
    """The part of a local store that keeps what was promised to models."""

    path: Path

    def locks(self) -> dict[str, Lock]:
        """Read the files of `_metadata/locks`."""
        known, names = locks.read(self.path), self.renames().names
        return {model: lock.renamed(names) for model, lock in known.items()}

    def write_lock(self, model: str, lock: Lock) -> None:
        """Replace `_metadata/locks/<model>.json`."""
        self.establish()
        locks.write(self.path, model, lock)

    def remove_lock(self, model: str) -> bool:
        """Delete `_metadata/locks/<model>.json`."""
        return locks.remove(self.path, model)

    def services(self) -> list[str]:
        """List the folders of `_metadata/services`."""
        return services.names(self.path)

    def service_versions(self, service: str) -> dict[Version, Any]:
        """Read the files of `_metadata/services/<service>`."""
        return services.read(self.path, service)

    def create_service_version(
        self, service: str, version: Version, document: Mapping[str, Any]
    ) -> bool:
        """Create `_metadata/services/<service>/<version>.json`."""
        checked(service, "service")
        self.establish()
        return services.create(self.path, service, version, document)

    def remove_service_version(self, service: str, version: Version) -> bool:
        """Delete `_metadata/services/<service>/<version>.json`."""
        return services.remove(self.path, service, version)

    def defined_names(self, definitions: str) -> DefinedNames | None:
        """Read the file of `_metadata/definitions`."""
        return defined_names.read(self.path, definitions)

    def write_defined_names(self, definitions: str, names: DefinedNames) -> None:
        """Replace the file of `_metadata/definitions`."""
        self.establish()
        defined_names.write(self.path, definitions, names)
