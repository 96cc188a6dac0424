"""Pins of training sets: the versions that a set was made from stay in the store until the set is released."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace

from mlforge.core import clock
from mlforge.core.values import Version
from mlforge.errors import RetrievalError, VersionNotFound
from mlforge.retrieval import references
from mlforge.retrieval.reading import Reading
from mlforge.store import Store
from mlforge.store.records import SetPin


def pin(reading: Reading, set_id: str, out: str) -> None:
    """Keep the reading's versions for a training set; VersionNotFound for one that was pruned meanwhile.

    Takes each feature's lock for a moment. Raises StoreError where the store cannot be written to.
    """
    by_name = defaultdict(set)
    for manifest in reading.manifests:
        if manifest.version is not None:
            by_name[manifest.name].add(manifest.version)
    with released_on_failure(reading.store, set_id):
        for name, versions in by_name.items():
            _keep(reading.store, name, versions, set_id, out)


def _keep(store: Store, name: str, versions: Collection[Version], set_id: str, out: str) -> None:
    """Write the pin of one feature's versions."""
    with store.lock(name):
        for version in sorted(set(versions) - set(store.versions(name))):
            raise VersionNotFound(f"{name} {version} was pruned meanwhile")
        books = store.books(name)
        held = SetPin(tuple(map(str, sorted(versions))), out, clock.now())
        store.write_books(name, replace(books, sets={**books.sets, set_id: held}))


def release(store: Store, set_id: str) -> tuple[str, ...]:
    """Let a store's versions go that a training set kept; returns the names of the features that had some."""
    names = tuple(name for name in store.features() if set_id in store.books(name).sets)
    for name in names:
        with store.lock(name):
            books = store.books(name)
            kept = {other: held for other, held in books.sets.items() if other != set_id}
            store.write_books(name, replace(books, sets=kept))
    return names


@contextmanager
def released_on_failure(store: Store, set_id: str) -> Iterator[None]:
    """A block in which a set is made: where it fails, the set's versions are let go."""
    try:
        yield
    except BaseException:
        release(store, set_id)
        raise


def check_store(store: Store, expected: str) -> None:
    """Raise RetrievalError unless it is the store with this identity."""
    references.check_store(store, Store, "LocalStore('feature_store')")
    identity = store.identity()
    if identity is None or identity.id != expected:
        raise RetrievalError(
            f"the training set was made from another store ({expected}); give that one"
        )
