"""Versions of services that a plan's build would keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlforge.build.broken_locks import DefaultsChange
    from mlforge.cli.results import Outcome
    from mlforge.core.manifest import Manifest
    from mlforge.definitions.registry import Definitions
    from mlforge.services.versions import ServiceVersion
    from mlforge.store import Store


def planned_services(
    definitions: Definitions, outcome: Outcome, defaults: Mapping[str, DefaultsChange]
) -> tuple[list[tuple[str, str | None, ServiceVersion]], dict[str, str]]:
    """The services that a build would keep as other versions, and those that it could not keep, with the reason.

    Those whose features have no version yet are left out.
    """
    from mlforge.errors import FeatureNotFound, MlforgeError
    from mlforge.services.keeping import version_due

    store, keeper = definitions.store, definitions.keeper
    planned = _PlannedVersions(store, outcome, defaults)
    kept, unkept = [], {}
    for name, service in definitions.services.items():
        try:
            due = version_due(service, store, keeper, planned)
        except FeatureNotFound:
            continue
        except MlforgeError as error:
            unkept[name] = str(error)
            continue
        if due is not None:
            kept.append((name, next(map(str, reversed(store.service_versions(name))), None), due))
    return kept, unkept


@dataclass(frozen=True)
class _PlannedVersions:
    """The versions that features would have after a build, with their defaults."""

    store: Store
    outcome: Outcome
    defaults: Mapping[str, DefaultsChange]

    def identity(self) -> Any:
        """The store's."""
        return self.store.identity()

    def books(self, name: str) -> Any:
        """The feature's books, with the defaults of its definition."""
        books = self.store.books(name)
        return (
            replace(books, defaults=self.defaults[name].after) if name in self.defaults else books
        )

    def resolve(self, name: str, version: str | None = None) -> Manifest:
        """The version that is planned, where none is named."""
        result = self.outcome.results.get(name)
        planned = result.manifest if result is not None and version is None else None
        return self.store.resolve(name, version) if planned is None else planned


def services_going(definitions: Definitions) -> list[dict[str, Any]]:
    """Services of registered locks that neither these definitions name nor others keep that share the store, with the locks' models."""
    from mlforge.core.keeper import SERVICE, kept_by_others

    store, models = definitions.store, dict[str, list[str]]()
    for model, lock in store.locks().items():
        if lock.service and lock.service not in definitions.services:
            models.setdefault(lock.service, []).append(model)
    going = []
    for name, of_it in sorted(models.items()):
        kept = store.service_versions(name)
        last = max(kept, default=None)
        keeper = "" if last is None else str(kept[last].get("keeper", ""))
        if not kept_by_others(store, keeper, definitions.keeper, SERVICE, name):
            version = None if last is None else str(last)
            going.append({"service": name, "version": version, "models": sorted(of_it)})
    return going


def service_json(name: str, before: str | None, version: ServiceVersion) -> dict[str, Any]:
    """The version that a service would have, and the one that it has, as the plan's document names them."""
    return {
        "service": name,
        "from": before,
        "to": str(version.version),
        "bump": version.bump,
        "details": list(version.details),
    }
