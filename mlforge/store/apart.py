"""Whether a place to write to is none of a store's: each folder of a store is a feature's, and all that lies there is the store's own."""

from __future__ import annotations

from pathlib import Path

from mlforge.errors import UnsupportedStore
from mlforge.store.addresses import is_bucket
from mlforge.store.local.identity import FILE

_METADATA = "_metadata"


def check_beside(place: str, store: str) -> None:
    """Raise UnsupportedStore where a place to write to, or a store by its address, is the other or lies within it."""
    there, own = _parts(place), _parts(store)
    common = min(len(own), len(there))
    if own[:common] != there[:common]:
        return
    if own == there:
        raise UnsupportedStore(
            f"{place} is {store} itself; nothing was written: name another place"
        )
    inner, outer, why = (
        (store, place, "where a reader, or who tidies up, would meet its files")
        if len(own) > common
        else (place, store, "where each folder is a feature's")
    )
    raise UnsupportedStore(
        f"{inner} lies within {outer}, {why}; nothing was written: name a place beside it"
    )


def check_in_no_store(place: str, *, may_be_one: bool = False) -> None:
    """Raise UnsupportedStore for a place within any store of this machine. may_be_one: whether the place itself may be a store, as that of a copy is."""
    if is_bucket(place):
        return
    path = Path(place).expanduser().resolve()
    for folder in path.parents if may_be_one else (path, *path.parents):
        if (folder / _METADATA / FILE).is_file():
            check_beside(place, str(folder))


def _parts(address: str) -> tuple[str, ...]:
    """The parts of a bucket's address, or of a path with its links followed."""
    if is_bucket(address):
        return tuple(filter(None, address.split("/")))
    return Path(address).expanduser().resolve().parts
