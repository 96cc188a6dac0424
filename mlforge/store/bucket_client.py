"""The client of a place in a bucket, for those who keep there what is part of no store."""

from __future__ import annotations

from mlforge.store.addresses import scheme_of
from mlforge.store.base import Store
from mlforge.store.objects.bucket import Bucket
from mlforge.store.objects.objects import ConditionFailed, NotReadable, Objects, each

__all__ = ["ConditionFailed", "NotReadable", "Objects", "each", "objects_at"]


def objects_at(url: str, store: Store | None = None) -> Objects:
    """The objects below an address, reached as those of a store in the same cloud are. Nothing is asked."""
    # Two dozen modules, of no use beside a folder.
    from mlforge.store.objects.store import ObjectStore

    if isinstance(store, ObjectStore) and scheme_of(store.url) == scheme_of(url):
        return store.objects_at(url)
    return Bucket(url)
