"""Kept versions of services: read from a store, added where a service has changed, and made services of again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from mlforge.core.arguments import shown
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.keeper import ALONE, SERVICE, Keeper, NamesStore, kept_by_others
from mlforge.core.lock import Lock
from mlforge.core.values import Version, is_name
from mlforge.errors import (
    IntegrityError,
    LockMismatch,
    MlforgeError,
    RetrievalError,
    StoreBusy,
    did_you_mean,
)
from mlforge.services.description import S, describe, service_of
from mlforge.services.locking import Versions, lock_of
from mlforge.services.spec import ServiceSpec
from mlforge.services.versions import ServiceVersion, next_version

AT = "@"
_ATTEMPTS = 10
_WORKS = "write '{0}@1' for the newest version of MAJOR 1, or '{0}@1.2.0' for a version"


class VersionStore(Versions, NamesStore, Protocol):
    """The part of a store that keeps versions of services."""

    def service_versions(self, service: str) -> dict[Version, Any]:
        """The documents of a service's versions, ascending."""

    def create_service_version(
        self, service: str, version: Version, document: Mapping[str, Any]
    ) -> bool:
        """Write a version's document; False where that version is there already."""


def kept_versions(store: VersionStore, service: str) -> list[ServiceVersion]:
    """The versions of a service that the store keeps, ascending; IntegrityError for a damaged one."""
    documents, names = store.service_versions(service).items(), store.renames().names
    return [
        ServiceVersion.from_json(document, f"version {version} of the service {service}").renamed(
            names
        )
        for version, document in documents
    ]


def version_due(
    service: ServiceSpec,
    store: VersionStore,
    keeper: Keeper,
    versions: Versions | None = None,
    *,
    adopts: bool = False,
) -> ServiceVersion | None:
    """The version that the service would be kept as now; None where the last one still says what it is.

    keeper: the definitions that it is of. versions: of features, by default the store's. adopts: these definitions keep it from now
    on, whoever did. Raises StoreError for a feature that has no version yet, RetrievalError for columns that do not fit,
    DefinitionError where other definitions keep another service of that name, IntegrityError for a damaged version of the service.
    """
    kept = kept_versions(store, service.name)
    last = kept[-1] if kept else None
    lock = lock_of(service, store if versions is None else versions)
    return next_version(
        last,
        describe(service),
        lock,
        keeper,
        by_others=last is not None
        and kept_by_others(store, last.keeper, keeper, SERVICE, service.name),
        adopts=adopts,
    )


def keep(
    service: ServiceSpec, store: VersionStore, keeper: Keeper = ALONE, *, adopts: bool = False
) -> ServiceVersion | None:
    """Keep the service as a new version if it has changed; returns that version, else None. Raises as `version_due`."""
    tried: ServiceVersion | None = None
    for _ in range(_ATTEMPTS):
        due = version_due(service, store, keeper, adopts=adopts)
        if due is None:
            return tried if tried is not None and _is_kept(tried, service.name, store) else None
        if store.create_service_version(service.name, due.version, due.to_json()):
            return due
        tried = due  # somebody was faster, or just the answer was lost
    raise StoreBusy(f"{service.name}: other processes keep versions of it all the time; try again")


def _is_kept(version: ServiceVersion, service: str, store: VersionStore) -> bool:
    """Whether the store has this very version, which is as of a microsecond."""
    document = store.service_versions(service).get(version.version)
    return _text(document) == _text(version.to_json())


def _text(document: object) -> str:
    return json.dumps(document, sort_keys=True)


def service_at(kind: type[S], store: VersionStore, text: str) -> S:
    """The service as a kept version has it, by `name@MAJOR` or `name@X.Y.Z`: with these columns alone, held against its lock.

    kind: the class that it is to be of.

    Raises RetrievalError for a text of another form and for a version that is not kept, LockMismatch where its features
    have changed so that it cannot be made any more.
    """
    if not hasattr(store, "service_versions"):
        raise RetrievalError(
            f"{text}: versions of services are kept by an offline store such as LocalStore('feature_store'), not by "
            f"{shown(store)}"
        )
    name, _, version_text = text.partition(AT)
    if not is_name(name):
        raise RetrievalError(f"{shown(text)} names no service; {_WORKS.format('checkout')}")
    kept = kept_versions(store, name)
    if not kept:
        raise RetrievalError(
            f"{shown(text)}: no version of a service {name!r} is kept in this store; 'mlforge services' lists them, "
            "and 'mlforge build' keeps one once its features have versions"
        )
    version = _chosen(kept, version_text, text)
    return _service(kind, store, version)


def _chosen(kept: list[ServiceVersion], version_text: str, text: str) -> ServiceVersion:
    for version in reversed(kept):
        if version_text in (str(version.version), str(version.version.major)):
            return version
    known = [*dict.fromkeys(str(k.version.major) for k in kept), *(str(k.version) for k in kept)]
    works = _WORKS.format(text.partition(AT)[0])
    raise RetrievalError(
        f"{shown(text)}: no such version is kept; {did_you_mean(version_text, known)}; {works}"
    )


def _service(kind: type[S], store: VersionStore, version: ServiceVersion) -> S:
    document, lock = dict(version.service), version.lock
    name = f"{document['name']}{AT}{version.version}"
    try:
        document["features"] = [_with_columns(use, lock) for use in document["features"]]
        read = {use["feature"]: use["version"] for use in document["features"]}
        specs = {feature: store.resolve(feature, of).spec for feature, of in read.items()}
        _check_keys(name, lock, specs)
        return service_of(kind, document, specs).held_to(lock, str(version.version))
    except LockMismatch:
        raise
    except (IntegrityError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"{name} is damaged ({error}); restore it from a backup") from error
    except MlforgeError as error:
        raise LockMismatch(f"{name} cannot be made any more: {error}") from error


def _check_keys(name: str, lock: Lock, specs: Mapping[str, FeatureSpec]) -> None:
    """Raise LockMismatch where a feature has other keys by now, so that entities would have to say others."""
    for column in lock.columns:
        spec = None if column.feature is None else specs.get(column.feature)
        keys = [] if spec is None else sorted(spec.keys)
        if spec is not None and keys != list(column.parts["keys"]):
            raise LockMismatch(
                f"{name} is not served any more: {column.name}: keys {', '.join(column.parts['keys'])} became "
                f"{', '.join(keys)}"
            )


def _with_columns(use: Mapping[str, Any], lock: Lock) -> dict[str, Any]:
    """A feature of a described service with the columns that the version had of it."""
    if use["columns"]:
        return dict(use)
    prefixes = (use["prefix"] or use["feature"], f"{use['feature']}__{use['version']}")
    columns = [column for column in lock.columns if column.feature == use["feature"]]
    return {**use, "columns": list(_named(columns, prefixes))}


def _named(columns: Iterable[Any], prefixes: tuple[str, ...]) -> Iterable[str]:
    for column in columns:
        if column.name in (f"{prefix}__{column.parts['name']}" for prefix in prefixes):
            yield column.parts["name"]
