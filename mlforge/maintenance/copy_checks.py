"""Whether a place may become, or go on being, the copy of a store: nothing that happened there alone is written over."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from mlforge.core.values import Version
from mlforge.errors import UnsupportedStore
from mlforge.store import Books, Store

UNFINISHED = "unfinished"
"""The mark in the books of a copy that is being made."""


def mark_of(served: Version, books: Books) -> str:
    """A text for what people and refreshes change of a feature: the version that is served, and its books.

    An export changes nothing of it.
    """
    document = [str(served), replace(books, copied="", exports={}).to_json()]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]


def check_behind(source: Store, target: Store, name: str, former: str) -> None:
    """Raise UnsupportedStore for a copy that has gone on alone: it would be taken back to what the source is.

    former: the name that the feature has in the target.
    """
    own, there = source.versions(name), target.versions(former)
    if own and there and there[-1] > own[-1]:
        raise _gone_on(name, f"{target} has {there[-1]} and {source} no version above {own[-1]}")
    pointer = target.pointer(former)
    if pointer is None:
        return
    books = target.books(former)
    # A store that goes back to where it was copied from knows how that place was left.
    left = {books.copied, source.books(name).copied} - {""}
    if left and books.copied != UNFINISHED and mark_of(pointer.version, books) not in left:
        raise _gone_on(
            name,
            f"{target} serves {pointer.version}, and that, or its pins, holds or notes, are not as they were left",
        )


def check_forgotten(source: Store, target: Store) -> None:
    """Raise UnsupportedStore where the target has forgotten entities of which the source may still hold rows."""
    own, there = source.forgotten(), target.forgotten()
    if not there:
        return
    if own and own.salt != there.salt:
        raise UnsupportedStore(
            f"{source} and {target} have forgotten entities apart from each other. A store keeps hashes with a salt of its own, "
            "so neither can tell whom the other has forgotten; nothing was copied. Forget in the first whom you forgot in the "
            "second ('mlforge forget KEY=VALUE'), delete the second, and copy again"
        )
    if any(not hashes <= own.hashes.get(key, frozenset()) for key, hashes in there.hashes.items()):
        raise UnsupportedStore(
            f"{target} has forgotten entities that {source} has not, so a copy would bring their rows back; nothing was "
            f"copied. Forget them in {source}, too ('mlforge forget KEY=VALUE'), or copy the other way round first"
        )


def _gone_on(name: str, how: str) -> UnsupportedStore:
    return UnsupportedStore(
        f"{name}: {how}, so it has gone on alone since it was copied; nothing was changed there. Copy to an empty place, "
        "or the other way round"
    )
