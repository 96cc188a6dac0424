"""Removal of kept versions of services, by the rule that versions of features go by."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from mlforge.core import clock
from mlforge.core.lock import Lock
from mlforge.core.values import Version
from mlforge.maintenance.retention import Retention, removable
from mlforge.services.keeping import kept_versions
from mlforge.services.versions import ServiceVersion
from mlforge.store import Store


@dataclass(frozen=True, slots=True)
class PrunedService:
    """The versions of one service that were removed."""

    service: str
    versions: tuple[str, ...]


def prune_services(
    store: Store, names: Iterable[str], rule: Retention, *, dry_run: bool = False
) -> list[PrunedService]:
    """Remove kept versions of services that the rule allows to go, and that `needed_versions` does not name.

    Raises IntegrityError for a service that has a damaged version; nothing of it is removed.
    """
    locks = store.locks().values()
    return [_prune(store, name, rule, locks, dry_run=dry_run) for name in names]


def needed_versions(kept: Sequence[ServiceVersion], locks: Iterable[Lock]) -> set[Version]:
    """The versions that stay whatever the rule.

    They are the newest of each MAJOR, which callers name as in `checkout@1`, and of each registered lock of the service the
    newest that has its columns.

    kept: ascending.
    """
    needed = {each.version.major: each.version for each in kept}
    versions = {*needed.values()}
    for lock in locks:
        fitting = [e.version for e in kept if _is_of(e, lock) and not lock.changes(e.lock.columns)]
        versions.update(fitting[-1:])
    return versions


def _is_of(version: ServiceVersion, lock: Lock) -> bool:
    return version.lock.service == lock.service


def _prune(
    store: Store, name: str, rule: Retention, locks: Collection[Lock], *, dry_run: bool
) -> PrunedService:
    kept = kept_versions(store, name)
    created = {each.version: each.lock.created_at for each in kept}
    spare = removable(created, None, needed_versions(kept, locks), rule, clock.now())
    if not dry_run:
        for version in spare:
            store.remove_service_version(name, version)
    return PrunedService(name, tuple(map(str, spare)))
