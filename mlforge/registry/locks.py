"""Registered locks beside what the store serves now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from mlforge.build.broken_locks import locked_defaults, other_defaults
from mlforge.core.lock import Change, Lock, LockedColumn
from mlforge.errors import FeatureNotFound, IntegrityError
from mlforge.services.keeping import kept_versions
from mlforge.store import Store


def lock_changes(store: Store, lock: Lock) -> list[Change]:
    """The columns of a lock that the served versions do not have as they were; none where the lock holds."""
    changes: list[Change] = []
    for name in lock.features:
        try:
            version = store.resolve(name)
        except FeatureNotFound:
            gone = [column.name for column in lock.columns if column.feature == name]
            changes += [Change(column, f"the store has no feature {name}") for column in gone]
            continue
        changes += lock.changes_in(version)
        told = {change.column for change in changes}
        columns = (c for c in _by_their_feature(store, lock) if c.feature == name)
        then = {column.parts["name"]: column.parts.get("default") for column in columns}
        now = locked_defaults(version, store.books(name).defaults)
        changes += [c for c in other_defaults(lock, name, then, now) if c.column not in told]
    return changes


def _by_their_feature(store: Store, lock: Lock) -> Iterator[LockedColumn]:
    """The columns whose default, or that they have none, follows from their feature alone, as far as that is known."""
    of_service: set[str] = set()
    kept = []
    if lock.service:
        with suppress(IntegrityError):
            kept = kept_versions(store, lock.service)
        for version in kept:
            of_service.update(version.service["defaults"])
    for column in lock.columns:
        if column.feature is None or of_service & {column.name, column.parts["name"]}:
            continue
        if kept or not lock.service or "default" not in column.parts:
            yield column
