"""From a text to the store that it names."""

from __future__ import annotations

from mlforge.store.addresses import is_bucket
from mlforge.store.base import Store


def store_at(place: str, before: Store | None = None) -> Store:
    """The store in a folder, or in a bucket for an address such as `s3://bucket/feature_store`.

    before: a store whose settings it takes over as far as they fit, such as the cache. Nothing is read or written.
    Raises UnsupportedStore for an address of another kind.
    """
    if is_bucket(place):
        from mlforge.store import ObjectStore

        return before.at(place) if isinstance(before, ObjectStore) else ObjectStore(place)
    from mlforge.store import LocalStore

    return LocalStore(place, before.packing if isinstance(before, LocalStore) else None)
