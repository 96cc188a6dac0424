"""Promises to models, their locks and the versions of services: a part of the contract of a store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from mlforge.core.lock import Change, Lock, told
from mlforge.core.manifest import Manifest
from mlforge.core.renames import Renames
from mlforge.core.signatures import named_methods
from mlforge.core.values import Version
from mlforge.errors import LockMismatch, StoreError


@named_methods
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

    @abstractmethod
    def lock(self, name: str) -> AbstractContextManager[None]:
        """The feature's lock, as the store's contract has it."""

    @abstractmethod
    def renames(self) -> Renames:
        """The renames of features, as the store's contract has them."""

    @abstractmethod
    def list_versions(self, name: str) -> list[str]:
        """Versions as texts, as the store's contract has them."""

    @abstractmethod
    def resolve(self, name: str, version: str | None = None) -> Manifest:
        """The manifest of a version, as the store's contract has it."""

    def register_lock(self, model: str, lock: Lock) -> None:
        """Keep the lock under a model's name, in place of an earlier one: no unattended refresh breaks it from then on.

        It is kept before it is held against the served versions, a feature at a time, so that no feature waits for another's
        refresh; where it does not hold, the earlier one is kept again. Raises LockMismatch where the served versions have
        broken it already, FeatureNotFound for a feature that is not there, StoreError where the model's lock is of another service:
        two teams may have meant the same name.
        """
        lock = lock.renamed(self.renames().names)
        for name in lock.features:
            self.list_versions(name)  # locking makes a folder: not for an unknown name
        before = self.locks().get(model)
        _check_service(model, before, lock)
        self.write_lock(model, lock)
        try:
            changes: list[Change] = []
            for name in sorted(lock.features):
                with self.lock(name):  # a refresh that has not seen the lock has ended
                    changes += lock.changes_in(self.resolve(name))
            if changes:
                raise LockMismatch(
                    f"{lock.title} does not hold in this store: {told(changes)}; make a new one with "
                    f"'mlforge lock {lock.service or 'SERVICE'}'"
                )
        except BaseException:
            if before is None:
                self.remove_lock(model)
            else:
                self.write_lock(model, before)
            raise


def _check_service(model: str, before: Lock | None, lock: Lock) -> None:
    """Refuse a lock of another service than the model's lock is of; features that were named one by one are of any."""
    if before is None or not before.service or not lock.service or before.service == lock.service:
        return
    raise StoreError(
        f"the model {model!r} has a lock of the service {before.service!r}, and this one is of {lock.service!r}: give the "
        f"model another name, or end that lock first: 'mlforge locks --remove {model}'"
    )
