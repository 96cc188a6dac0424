"""Versions of services: the columns that each kept version promises, and the bump that a change amounts to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from mlforge.core.keeper import ALONE, SERVICE, Keeper, next_keeper, refusal
from mlforge.core.lock import Lock, LockedColumn
from mlforge.core.values import Version, from_iso, to_iso
from mlforge.errors import DefinitionError, IntegrityError, MlforgeError, UnsupportedStore

FORMAT = 1
Bump = Literal["major", "minor", "patch"]
_RANK: dict[Bump, int] = {"patch": 0, "minor": 1, "major": 2}
_QUIET = ("owner", "description")


@dataclass(frozen=True)
class ServiceVersion:
    """A version of a service: its description, as `describe` gives it, and the lock of its columns.

    bump: the kind of change from the version before; None for the first. details: the changes in words. keeper: the name of the
    definitions that kept it, where they share the store with others; else empty.
    """

    version: Version
    service: Mapping[str, Any]
    lock: Lock
    bump: Bump | None = None
    details: tuple[str, ...] = ()
    keeper: str = ""

    def renamed(self, names: Mapping[str, str]) -> ServiceVersion:
        """The same version with features' present names, by their former ones; its columns keep their names."""
        lock = self.lock.renamed(names)
        if lock is self.lock:
            return self
        return replace(self, service=renamed_service(self.service, names), lock=lock)

    def to_json(self) -> dict[str, Any]:
        """The document, as a store keeps it."""
        return {
            "format": FORMAT,
            "version": str(self.version),
            "bump": self.bump,
            "details": list(self.details),
            "created_at": to_iso(self.lock.created_at),
            **({"keeper": self.keeper} if self.keeper else {}),
            "service": dict(self.service),
            "lock": self.lock.to_json(),
        }

    @classmethod
    def from_json(cls, document: Any, where: str) -> ServiceVersion:
        """Read a document. Raises IntegrityError for a damaged one, UnsupportedStore for one of a newer mlforge.

        where: the words for it in an error.
        """
        try:
            if document.get("format", FORMAT) != FORMAT:
                raise UnsupportedStore(
                    f"{where} has format {document['format']!r}, this mlforge knows {FORMAT}: upgrade to the release "
                    "that wrote it"
                )
            from_iso(document["created_at"])
            return cls(
                Version.parse(document["version"]),
                dict(document["service"]),
                Lock.from_json(document["lock"]),
                document["bump"],
                tuple(map(str, document["details"])),
                str(document.get("keeper", "")),
            )
        except UnsupportedStore:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, MlforgeError) as error:
            raise IntegrityError(
                f"{where} is damaged ({error}); restore it from a backup"
            ) from error


@dataclass(frozen=True, slots=True)
class ServiceChange:
    """The kind of a change of a service, and the changes in words."""

    bump: Bump
    details: tuple[str, ...]


def change_of(
    before: ServiceVersion, service: Mapping[str, Any], lock: Lock
) -> ServiceChange | None:
    """The change from a version to a service as it is now; None where nothing differs that a caller or a reader is told.

    A column that goes or means something else is MAJOR, as is whatever a request must say in another way: keys and
    request columns. A column that comes is MINOR, as is another `max_age`; all else PATCH: also another version of a
    feature, as the service names it, and defaults that it says itself though they are those of its features.
    """
    changes = sorted(_changes(before, service, lock), key=lambda change: -_RANK[change[0]])
    if not changes:
        return None
    return ServiceChange(changes[0][0], tuple(words for _, words in changes))


def next_version(
    before: ServiceVersion | None,
    service: Mapping[str, Any],
    lock: Lock,
    keeper: Keeper = ALONE,
    *,
    by_others: bool = False,
    adopts: bool = False,
) -> ServiceVersion | None:
    """The version of a service as it is now, None where it is the version before.

    keeper: the definitions that it is of. by_others: whether other definitions keep the version before, and name the service
    still; raises DefinitionError then for any change, as each would undo the other's. adopts: these keep it from now on in any
    case. Another keeper is a change of its own, PATCH.
    """
    kept = before.keeper if before else ""
    own = keeper.name if adopts else next_keeper(kept, keeper)
    if before is None:
        return ServiceVersion(Version(1, 0, 0), service, lock, keeper=own)
    change = change_of(before, service, lock)
    if by_others and not adopts:
        if change is None:
            return None
        name = before.service.get("name", before.lock.service)
        raise DefinitionError(refusal(SERVICE, name, kept, keeper))
    if change is None and own not in ("", kept):
        was = f", was kept by {kept!r}" if kept else ""
        change = ServiceChange("patch", (f"kept by {own!r}{was}",))
    if change is None:
        return None
    version = before.version.bumped(change.bump)
    return ServiceVersion(version, service, lock, change.bump, change.details, own)


def _changes(
    before: ServiceVersion, service: Mapping[str, Any], lock: Lock
) -> Iterator[tuple[Bump, str]]:
    old = before.lock
    yield from (("major", str(change)) for change in old.changes(lock.columns))
    known = {column.name for column in old.columns}
    for column in lock.columns:
        if column.name not in known:
            asks = "request" in column.parts
            yield (
                ("major", f"{column.name}: requests must say it")
                if asks
                else (
                    "minor",
                    f"{column.name} came",
                )
            )
    was, now = _keys(old.columns), _keys(lock.columns)
    yield from (("major", f"entities must say {key}") for key in now if key not in was)
    yield from (("major", f"entities no longer say {key}") for key in was if key not in now)
    if _order(old.columns, lock.columns) != _order(lock.columns, old.columns):
        yield "patch", "the order of columns"
    if before.service.get("max_age") != service["max_age"]:
        yield "minor", f"max_age {before.service.get('max_age')} became {service['max_age']}"
    yield from (
        ("patch", f"another {name}") for name in _QUIET if before.service.get(name) != service[name]
    )
    read, reads = _versions_read(before.service), _versions_read(service)
    yield from (
        ("patch", f"{feature} is read {_told(reads[feature])}, was read {_told(versions)}")
        for feature, versions in read.items()
        if reads.get(feature, versions) != versions
    )
    if before.service.get("defaults", {}) != service["defaults"]:
        yield "patch", "other defaults are the service's own"


def _versions_read(service: Mapping[str, Any]) -> dict[str, dict[str | None, None]]:
    """The versions that a described service names of each feature, each once; None for the served one."""
    versions: dict[str, dict[str | None, None]] = {}
    for use in service.get("features", ()):
        versions.setdefault(use["feature"], {})[use["version"]] = None
    return versions


def _told(versions: Iterable[str | None]) -> str:
    return " and ".join("as it is served" if each is None else f"as {each}" for each in versions)


def renamed_service(service: Mapping[str, Any], names: Mapping[str, str]) -> Mapping[str, Any]:
    """A described service with features' present names, by their former ones; its columns keep their names."""
    uses = service.get("features")
    return {**service, "features": [_renamed(u, names) for u in uses]} if uses else service


def _renamed(use: Mapping[str, Any], names: Mapping[str, str]) -> Mapping[str, Any]:
    """A feature of a described service under its present name, with the prefix that its columns have."""
    name = use["feature"]
    if name not in names:
        return use
    return {**use, "feature": names[name], "prefix": use["prefix"] or name}


def _keys(columns: Sequence[LockedColumn]) -> dict[str, None]:
    """The keys that an entity has, by their names there."""
    return {
        column.parts.get("joined_by", {}).get(key, key): None
        for column in columns
        for key in column.parts.get("keys", ())
    }


def _order(columns: Sequence[LockedColumn], others: Sequence[LockedColumn]) -> list[str]:
    """The names of the columns that both have, in order."""
    names = {other.name for other in others}
    return [column.name for column in columns if column.name in names]
