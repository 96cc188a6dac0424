"""Registered locks beside what the store serves now."""

from __future__ import annotations

from mlforge.core.lock import Change, Lock
from mlforge.errors import FeatureNotFound
from mlforge.store import Store


def lock_changes(store: Store, lock: Lock) -> list[Change]:
    """The columns of a lock that the served versions do not have as they were; none where the lock holds."""
    changes: list[Change] = []
    for name in lock.features:
        try:
            changes += lock.changes_in(store.resolve(name))
        except FeatureNotFound:
            gone = [column.name for column in lock.columns if column.feature == name]
            changes += [Change(column, f"the store has no feature {name}") for column in gone]
    return changes
