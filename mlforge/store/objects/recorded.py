"""The part of a store in a bucket that keeps records beside versions: audits, locks of models, versions of services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlforge.core.lock import Lock
from mlforge.core.values import Version
from mlforge.store.base import Store
from mlforge.store.local.paths import checked
from mlforge.store.objects import records
from mlforge.store.objects.identity import Identity
from mlforge.store.objects.objects import Objects
from mlforge.store.records import Audit


class RecordedStore(Store):
    """A store whose records are objects, each replaced or created as a whole."""

    _objects: Objects
    _identity: Identity

    def audit(self, name: str) -> Audit | None:
        """Read `_audit.json`."""
        return records.audit(self._objects, checked(name))

    def write_audit(self, name: str, audit: Audit) -> None:
        """Replace `_audit.json`."""
        records.write_audit(self._objects, checked(name), audit)

    def locks(self) -> dict[str, Lock]:
        """Read the objects of `_metadata/locks`."""
        return records.locks(self._objects)

    def write_lock(self, model: str, lock: Lock) -> None:
        """Replace `_metadata/locks/<model>.json`."""
        records.check_model(model)
        self._identity.settle()
        records.write_lock(self._objects, model, lock)

    def remove_lock(self, model: str) -> bool:
        """Delete `_metadata/locks/<model>.json`."""
        return records.remove_lock(self._objects, model)

    def service_versions(self, service: str) -> dict[Version, Any]:
        """Read the objects of `_metadata/services/<service>`."""
        return records.service_versions(self._objects, service)

    def create_service_version(
        self, service: str, version: Version, document: Mapping[str, Any]
    ) -> bool:
        """Create `_metadata/services/<service>/<version>.json`."""
        self._identity.settle()
        return records.create_service_version(self._objects, service, version, document)
