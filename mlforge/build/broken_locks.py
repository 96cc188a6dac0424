"""Registered locks that a version would break, and the hold that keeps them whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlforge.core.lock import Change, Lock, told
from mlforge.core.manifest import Manifest
from mlforge.core.meaning import differences, meaning_text
from mlforge.core.schema import dtypes
from mlforge.errors import StoreError
from mlforge.services.completion import held_defaults
from mlforge.services.description import plain_default
from mlforge.store import Books, Store

FOR_A_LOCK = "a new version "
"""The beginning of the reason for a hold that protects a lock."""


@dataclass(frozen=True, slots=True)
class BrokenLock:
    """A model whose lock would not hold any more: the service that it was made with, if any, and the columns concerned."""

    model: str
    service: str
    changes: tuple[Change, ...]

    def __str__(self) -> str:
        service = f" (service {self.service})" if self.service else ""
        return f"model {self.model}{service}: {told(self.changes)}"


@dataclass(frozen=True, slots=True)
class DefaultsChange:
    """A feature's described defaults by column, as they count now and as its definition has them."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]


NO_CHANGE = DefaultsChange({}, {})


def lock_hold(
    store: Store, latest: Manifest | None, candidate: Manifest, defaults: DefaultsChange
) -> str | None:
    """The reason to hold a candidate that would break locks, None where it breaks none; other rows alone break none.

    The store's locks are read only where the candidate's columns differ from the served version's, or their meaning or
    defaults.
    """
    if latest is None:
        return None
    if means_the_same(latest, candidate) and defaults.before == defaults.after:
        return None
    try:
        broken = broken_locks(store.locks(), latest, candidate, defaults)
    except StoreError as error:  # a lock that cannot be read may be one that would break
        return f"{FOR_A_LOCK}may break a lock that cannot be read: {error}"
    if not broken:
        return None
    models = "; ".join(map(str, broken))
    return (
        f"{FOR_A_LOCK}would break the lock of {models}; 'mlforge approve {candidate.name}' or a build goes on, and "
        "a refresh does once the definitions are as they were or 'mlforge locks --remove MODEL' has ended the lock"
    )


def means_the_same(latest: Manifest, candidate: Manifest) -> bool:
    """Whether two versions have the same columns, of the same types and meaning."""
    if latest.columns != candidate.columns:
        return False
    if (latest.spec, latest.code_hash) == (candidate.spec, candidate.code_hash):
        return True
    old, new = (meaning_text(m.spec, m.code_hash) for m in (latest, candidate))
    return old == new


def broken_locks(
    locks: Mapping[str, Lock],
    latest: Manifest,
    candidate: Manifest,
    defaults: DefaultsChange = NO_CHANGE,
) -> list[BrokenLock]:
    """The locks that a candidate breaks beyond what the served version has broken already, by model."""
    broken = []
    old, new = locked_defaults(latest, defaults.before), locked_defaults(candidate, defaults.after)
    for model, lock in locks.items():
        before = {change.column for change in lock.changes_in(latest)}
        changes = [c for c in lock.changes_in(candidate) if c.column not in before]
        told_of = {*before, *(change.column for change in changes)}
        of_defaults = other_defaults(lock, candidate.name, old, new)
        changes += [change for change in of_defaults if change.column not in told_of]
        if changes:
            broken.append(BrokenLock(model, lock.service, tuple(changes)))
    return broken


def other_defaults(
    lock: Lock, feature: str, old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[Change]:
    """The locked columns whose default is the feature's and would be another; a default of a service's own stays.

    old, new: the feature's by column, as `locked_defaults` gives them.
    """
    for column in lock.columns:
        if column.feature != feature:
            continue
        name, locked = column.parts["name"], column.parts.get("default")
        if locked == old.get(name) != new.get(name):
            now = {**column.parts, "default": new.get(name)}
            yield Change(column.name, ", ".join(differences(column.parts, now)))


def locked_defaults(version: Manifest, described: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults by column as locks have them, those that the version's columns hold."""
    held = held_defaults(described, dtypes(version.spec.values(version.events)))
    return {column: plain_default(value) for column, value in held.items()}


def end_lock(store: Store, model: str) -> bool:
    """End the lock of a model and the holds that protect locks; returns whether there was one.

    The next refresh of a feature that was held goes on, or is held anew for what else stands in its way.
    """
    if not store.remove_lock(model):
        return False
    for name in store.features():
        if _protects_a_lock(store.books(name)):
            with store.lock(name):
                books = store.books(name)
                if _protects_a_lock(books):
                    store.write_books(name, books.freed())
    return True


def _protects_a_lock(books: Books) -> bool:
    """Whether a refresh holds the feature for a lock; what a person holds is for a person to end, whatever the reason says."""
    return books.hold is not None and not books.by_person and FOR_A_LOCK in books.hold
