"""Whether a place to write to is none of a store's: `_metadata`, features' folders, and all of a folder that a store has for itself."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from mlforge.core.paths import real_path_of
from mlforge.errors import UnsupportedStore
from mlforge.store.addresses import is_bucket
from mlforge.store.base import Store
from mlforge.store.bucket_client import NotReadable, each, objects_at
from mlforge.store.local.identity import FILE
from mlforge.store.local.state_files import LATEST

_METADATA = "_metadata"


def check_beside(place: str, store: str) -> None:
    """Raise UnsupportedStore where a place to write to, or a store by its address, is the other or lies within it.

    A folder may be a store's and hold other things beside, as a project's own does with `LocalStore(".")`: a place among these is none of the store's.
    """
    there, own = _parts(place), _parts(store)
    common = min(len(own), len(there))
    if own[:common] != there[:common]:
        return
    if own == there:
        raise UnsupportedStore(
            f"{place} is {store} itself; nothing was written: name another place"
        )
    is_around = len(own) > common
    if not is_around and not is_bucket(store) and _is_beside(there[common], Path(*own)):
        return
    inner, outer, why = (
        (store, place, "where a reader, or who tidies up, would meet its files")
        if is_around
        else (place, store, "where each folder is a feature's")
    )
    raise UnsupportedStore(
        f"{inner} lies within {outer}, {why}; nothing was written: name a place beside it"
    )


def check_in_no_store(place: str, *, may_be_one: bool = False, store: Store | None = None) -> None:
    """Raise UnsupportedStore for a place within any store. may_be_one: whether the place itself may be a store, as that of a copy is.

    store: the one as which a bucket is reached; by default as the cloud's own tools do. Raises StoreError where a bucket cannot be asked.
    """
    if is_bucket(place):
        _check_in_no_store_of_bucket(place, may_be_one, store)
        return
    path = real_path_of(place)
    for folder in path.parents if may_be_one else (path, *path.parents):
        if (folder / _METADATA / FILE).is_file():
            check_beside(place, str(folder))


def _check_in_no_store_of_bucket(place: str, may_be_one: bool, store: Store | None) -> None:
    scheme, bucket, *folders = _parts(place)
    within = range(len(folders) + (0 if may_be_one else 1))
    addresses = ["/".join((f"{scheme}//{bucket}", *folders[:depth])) for depth in within]

    def is_store(address: str) -> bool:
        try:
            return objects_at(address, store).look(f"{_METADATA}/{FILE}") is not None
        except NotReadable:  # credentials that reach no further than the place
            return False

    for address, found in zip(addresses, each(is_store, addresses), strict=True):
        if found:
            check_beside(place, address)


def _is_beside(name: str, store: Path) -> bool:
    """Whether an entry of a store's folder, there or not, is none of the store's, as other things lie in that folder, too."""
    if _is_own(store, name):
        return False
    with suppress(OSError):  # a store that is not there yet, or may not be listed
        names = [each.name for each in store.iterdir() if not each.name.startswith((".", "_"))]
        return not all(_is_own(store, each) for each in names)
    return False


def _is_own(store: Path, name: str) -> bool:
    """Whether an entry of a store's folder is its metadata, or a feature's folder."""
    return name == _METADATA or os.path.isfile(store / name / LATEST)  # noqa: PTH113 - False where pathlib raises


def _parts(address: str) -> tuple[str, ...]:
    """The parts of a bucket's address, or of a path with its links followed."""
    if is_bucket(address):
        return tuple(filter(None, address.split("/")))
    return real_path_of(address).parts
