"""How far the online rows of a feature are behind what they should be."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

from mlforge.core import clock
from mlforge.core.manifest import Manifest
from mlforge.core.values import SECOND_US, to_iso
from mlforge.errors import BooksDamaged
from mlforge.online.base import OnlineStore
from mlforge.online.books import Evidence, OnlineBooks, Target
from mlforge.online.targets import is_to_come
from mlforge.store import Books, Pointer, Store

WALL_TICK_US = 60 * SECOND_US
"""How far rows that follow the wall clock may be behind it."""


class OnlineView(Protocol):
    """The part of an online store that tells how far rows are behind; an OnlineStore is one."""

    ttl: int | None
    layout: str

    def books(self, feature: str) -> OnlineBooks | None:
        """The feature's books."""

    def evidence(self) -> Evidence | None:
        """Which run of the server holds the rows."""


class SeenAtOnce:
    """A view of the online store for one round over many features: it is asked once for all of them, when first needed."""

    def __init__(self, online: OnlineStore, features: Sequence[str]) -> None:
        self.ttl, self.layout = online.ttl, online.layout
        self._online, self._features = online, features

    def books(self, feature: str) -> OnlineBooks | None:
        """The feature's books as the round saw them. Raises OnlineError if they are damaged."""
        return self._books[feature] if feature in self._books else self._online.books(feature)

    def evidence(self) -> Evidence | None:
        """Which run of the server holds the rows."""
        return self._evidence

    @cached_property
    def _books(self) -> dict[str, OnlineBooks | None]:
        return self._online.books_of(self._features)

    @cached_property
    def _evidence(self) -> Evidence | None:
        return self._online.evidence()


def behind(
    store: Store, online: OnlineView, feature: str, noted: Books | None = None
) -> str | None:
    """Why the feature's rows must be pushed now, None if they need not. noted: its books in the store, where they were read just now."""
    pointer = store.pointer(feature)
    if pointer is None:
        return None
    manifest = store.manifest(feature, pointer.version)
    evidence = online.evidence()
    try:
        books = online.books(feature)
    except BooksDamaged:
        return "its books online cannot be read"
    reason = lag(books, pointer, manifest, online.ttl, clock.now(), evidence)
    if reason is None and books is not None and books.layout != online.layout:
        reason = f"its rows online lie in the layout {books.layout!r}"
    if reason is None and books is not None:
        noted = store.books(feature) if noted is None else noted
        if books.defaults != noted.defaults:
            return "its defaults online are not those of the definitions"
    return reason


def lag(
    books: OnlineBooks | None,
    pointer: Pointer,
    manifest: Manifest,
    ttl: int | None,
    now: int,
    evidence: Evidence | None = None,
) -> str | None:
    """The reason why the books are out of date: version, clock, lost rows, TTL to renew; None if they are current."""
    if books is None or books.target is None:
        return f"version {pointer.version} is not online"
    if (books.target.version, books.target.generation) != (
        str(pointer.version),
        pointer.generation,
    ):
        return f"version {pointer.version} is not online, {books.target.version} is"
    if books.target.content != manifest.rows_hash:
        return f"version {pointer.version} is online with other rows than it has now"
    if books.pending:
        return "a push was not finished"
    if (clock_lag := _clock_lag(books.target, manifest, now)) is not None:
        return clock_lag
    if books.recount_due(evidence, now):
        return "the server may have lost rows of it: they are counted"
    return "the time to live of its rows is to be renewed" if books.renewal_due(ttl, now) else None


def _clock_lag(shown: Target, manifest: Manifest, now: int) -> str | None:
    """A boundary has passed; or time has, for rows that follow it."""
    due = manifest.as_of(now)
    if due is None or shown.as_of is None:
        return None
    if is_to_come(shown, now):
        return f"rows are as of {to_iso(shown.as_of)}, which has not come: a clock was set back"
    if due <= shown.as_of:
        return None
    settled = manifest.spec.interval is not None or due < now or due == manifest.watermark
    if settled or due - shown.as_of >= WALL_TICK_US:
        return f"rows are as of {to_iso(shown.as_of)}, due as of {to_iso(due)}"
    return None
