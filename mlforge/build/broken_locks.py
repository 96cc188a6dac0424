"""Registered locks that a version would break, and the hold that keeps them whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlforge.core.lock import Change, Lock, told
from mlforge.core.manifest import Manifest
from mlforge.core.meaning import meaning_text
from mlforge.errors import StoreError
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


def lock_hold(store: Store, latest: Manifest | None, candidate: Manifest) -> str | None:
    """The reason to hold a candidate that would break locks, None where it breaks none; other rows alone break none.

    The store's locks are read only where the candidate's columns differ from the served version's, or their meaning.
    """
    if latest is None or means_the_same(latest, candidate):
        return None
    try:
        broken = broken_locks(store.locks(), latest, candidate)
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
    old, new = (meaning_text(m.spec, m.code_hash) for m in (latest, candidate))
    return old == new and latest.columns == candidate.columns


def broken_locks(
    locks: Mapping[str, Lock], latest: Manifest, candidate: Manifest
) -> list[BrokenLock]:
    """The locks that a candidate breaks beyond what the served version has broken already, by model."""
    broken = []
    for model, lock in locks.items():
        before = {change.column for change in lock.changes_in(latest)}
        changes = [c for c in lock.changes_in(candidate) if c.column not in before]
        if changes:
            broken.append(BrokenLock(model, lock.service, tuple(changes)))
    return broken


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
                    store.write_books(name, books.held(None))
    return True


def _protects_a_lock(books: Books) -> bool:
    """Whether a refresh holds the feature for a lock; what a person holds is for a person to end, whatever the reason says."""
    return books.hold is not None and not books.by_person and FOR_A_LOCK in books.hold
