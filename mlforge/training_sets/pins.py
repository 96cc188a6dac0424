"""Pins of training sets: the versions that a set was made from stay in the store until the set is released.

While a set is being made they stay for a week at the most, so that one whose process is killed keeps none for ever; the next
set of the same feature on the same machine finds out, and takes away what is left of the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from mlforge.core import clock
from mlforge.core.values import Version
from mlforge.errors import (
    IntegrityError,
    RetrievalError,
    StoreError,
    StoreUnavailable,
    VersionNotFound,
)
from mlforge.retrieval import references
from mlforge.retrieval.reading import Reading
from mlforge.store import Store
from mlforge.store.records import SetPin
from mlforge.training_sets.document import SetDocument
from mlforge.training_sets.places import place_at
from mlforge.training_sets.set_files import SetPlace

_WEEK_US = 7 * 86_400_000_000


def pin(reading: Reading, set_id: str, place: SetPlace) -> None:
    """Keep the reading's versions for a training set that is being made there; VersionNotFound for one that was pruned meanwhile.

    Takes each feature's lock for a moment. Raises StoreError where the store cannot be written to.
    """
    with released_on_failure(reading.store, set_id, place), _said_what_for():
        for name, versions in _by_name(reading).items():
            _keep(reading.store, name, versions, set_id, place.address)


@contextmanager
def _said_what_for() -> Iterator[None]:
    """A block that writes to the store for something that looks like reading."""
    try:
        yield
    except StoreUnavailable as error:
        raise StoreUnavailable(
            f"{error}; a training set keeps its versions from being pruned, so whoever makes one writes to the store: with the right "
            "to read it alone, use get_training_data, or a copy of the store that is yours (mlforge copy)"
        ) from error


def keep(store: Store, set_id: str) -> None:
    """Keep them from now on until the set is released; for a set that is made. Raises as `pin`."""
    _rewrite(store, set_id, lambda held: replace(held, until=None))


def _by_name(reading: Reading) -> dict[str, set[Version]]:
    """The versions of a reading, by feature."""
    by_name = defaultdict(set)
    for manifest in reading.manifests:
        if manifest.version is not None:
            by_name[manifest.name].add(manifest.version)
    return by_name


def _keep(store: Store, name: str, versions: Collection[Version], set_id: str, out: str) -> None:
    """Write the pin of one feature's versions, in place of those of sets that were given up."""
    with store.lock(name):
        for version in sorted(set(versions) - set(store.versions(name))):
            raise VersionNotFound(f"{name} {version} was pruned meanwhile")
        books, now = store.books(name), clock.now()
        held = SetPin(tuple(map(str, sorted(versions))), out, now, now + _WEEK_US)
        settled = {other: _settled(store, other, pin, now) for other, pin in books.sets.items()}
        others = {other: pin for other, pin in settled.items() if pin is not None}
        store.write_books(name, replace(books, sets={**others, set_id: held}))


def _settled(store: Store, set_id: str, held: SetPin, now: int) -> SetPin | None:
    """The pin of another set; None for one that was given up, of which nothing is left then."""
    if held.until is None:
        return held
    place = place_at(held.out, store)
    is_made = _is_made(place, set_id)
    if not is_made and now < held.until and not place.is_given_up(set_id):
        return held
    place.remove(set_id)
    return replace(held, until=None) if is_made else None  # killed before it could say so


def _is_made(place: SetPlace, set_id: str) -> bool:
    """Whether the set is there."""
    text = place.document()
    try:
        return text is not None and SetDocument.from_text(text, place.address).id == set_id
    except IntegrityError:
        return False


def release(store: Store, set_id: str) -> tuple[str, ...]:
    """Let a store's versions go that a training set kept; returns the names of the features that had some."""
    return _rewrite(store, set_id, lambda _: None)


def _rewrite(
    store: Store, set_id: str, rewritten: Callable[[SetPin], SetPin | None]
) -> tuple[str, ...]:
    """Write a set's pins anew, None takes one away; returns the names of the features that had some."""
    names = tuple(name for name in store.features() if set_id in store.books(name).sets)
    for name in names:
        with store.lock(name):
            books = store.books(name)
            others = {other: held for other, held in books.sets.items() if other != set_id}
            held = rewritten(books.sets[set_id]) if set_id in books.sets else None
            kept = others if held is None else {**others, set_id: held}
            store.write_books(name, replace(books, sets=kept))
    return names


@contextmanager
def released_on_failure(store: Store, set_id: str, place: SetPlace) -> Iterator[None]:
    """A block in which a set is made: where it fails, the set's versions are let go.

    They are kept where the set is there all the same, as where a signal or a lost answer comes right behind its last write; and for the
    week of a set that is being made where nobody can tell.
    """
    try:
        yield
    except BaseException:
        with suppress(StoreError):
            if _is_made(place, set_id):
                keep(store, set_id)
            else:
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
