"""The target of a push: the version and the instant that rows are to be of, which is its fence, too."""

from __future__ import annotations

from mlforge.core import clock
from mlforge.core.manifest import Manifest
from mlforge.online.base import OnlineStore
from mlforge.online.books import Target
from mlforge.store import Store

_AHEAD_US = 60_000_000  # more than clocks differ that somebody keeps in step


def target_of(manifest: Manifest, generation: int, store: str) -> Target:
    """The target of a push of a version, as of now."""
    as_of = manifest.as_of(clock.now())
    return Target(str(manifest.version), generation, as_of, manifest.rows_hash, store)


def is_to_come(target: Target, now: int) -> bool:
    """Whether the push was as of an instant in the future: by a clock that has been set back since."""
    return target.as_of is not None and target.as_of > now + _AHEAD_US


def misled(name: str, store: Store, online: OnlineStore) -> str | None:
    """The cause of a fence that no later push can pass; None if another push was just faster.

    A generation that this store, read again, never had: its folder was deleted and made anew. Or an
    instant that has not come: no clock that is right can have been so far ahead.
    """
    books, pointer = online.books(name), store.pointer(name)
    if books is None or pointer is None:
        return None
    targets = [target for target in (books.target, *books.pending) if target is not None]
    if max((target.generation for target in targets), default=0) > pointer.generation:
        return "they are of a store that is gone"
    if any(is_to_come(target, clock.now()) for target in targets):
        return "they are as of an instant that has not come"
    return None
