"""Promises to models, their locks and the versions of services: a part of the contract of a store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from mlforge.core.lock import Lock
from mlforge.core.values import Version


class Promises(ABC):
    """The methods of a store that keep what was promised to models, of the whole store and not of one feature."""

    @abstractmethod
    def locks(self) -> dict[str, Lock]:
        """The registered locks by model, sorted; IntegrityError if one cannot be understood."""

    @abstractmethod
    def write_lock(self, model: str, lock: Lock) -> None:
        """Replace the lock of a model, whole or not at all; `register_lock` first looks whether it holds."""

    @abstractmethod
    def remove_lock(self, model: str) -> bool:
        """End the lock of a model; returns whether there was one."""

    @abstractmethod
    def services(self) -> list[str]:
        """Names of the services that have kept versions, sorted."""

    @abstractmethod
    def service_versions(self, service: str) -> dict[Version, Any]:
        """The documents of a service's versions as they were written, by version, ascending; empty for an unknown service.

        Raises IntegrityError for one that is not JSON.
        """

    @abstractmethod
    def create_service_version(
        self, service: str, version: Version, document: Mapping[str, Any]
    ) -> bool:
        """Write the document of a service's version, whole or not at all; False where that version is there already.

        A document is never replaced. Raises StoreError for a name that is none, and where the store cannot be
        written to.
        """

    @abstractmethod
    def remove_service_version(self, service: str, version: Version) -> bool:
        """Delete the document of a service's version; returns whether there was one."""
