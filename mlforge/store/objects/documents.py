"""Features' documents in a bucket: read when they have changed, and changed by compare-and-swap."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from mlforge.core.values import Version
from mlforge.errors import StoreBusy, StoreError
from mlforge.store.objects import keys
from mlforge.store.objects.document import RECENT, FeatureDocument, new_id
from mlforge.store.objects.objects import ConditionFailed, NotChanged, Objects, Tag
from mlforge.store.records import FileStateMap

_ATTEMPTS = 20
_Known = tuple[FeatureDocument, Tag]


@dataclass
class Session:
    """State of the holder of a feature's lock: the versions it has listed, and file states that it has yet to write.

    A change by another process shows when something is written: the writer's condition fails then.
    """

    holder: tuple[int, int]
    versions: list[Version]
    left: list[Version] = field(default_factory=list)
    """Versions that publishers have left and that nobody can serve any more; their numbers are free."""
    states: FileStateMap | None = None
    """The file states that are to be written with a version, or when the lock ends."""
    forgotten: int = 0
    """How many changes of what the store has forgotten the lock's holder knows at least."""
    stored: dict[str, int] = field(default_factory=dict)
    """Keys of objects that the bucket was seen to have, with how often it had been swept by then."""
    has_tasks: bool = False
    """Whether tasks of a build have been prepared since the lock was taken."""


class _Listing(NamedTuple):
    """Versions as a lock's holder left them, in which state of the document, and at which generation they were listed."""

    tag: Tag
    versions: list[Version]
    listed_at: int


class Documents:
    """The documents of all features of a store."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._known: dict[str, _Known] = {}
        self._sessions: dict[str, Session] = {}
        self._versions: dict[str, _Listing] = {}

    def session(self, name: str) -> Session | None:
        """The session of the feature's lock, if this thread holds it."""
        session = self._sessions.get(name)
        return session if session is not None and session.holder == _holder() else None

    def sessions(self) -> list[Session]:
        """The sessions of all locks that this thread holds."""
        holder = _holder()
        return [each for each in list(self._sessions.values()) if each.holder == holder]

    @contextmanager
    def holding(self, name: str, versions: list[Version]) -> Iterator[Session]:
        """A session for as long as the lock is held."""
        session = self._sessions[name] = Session(_holder(), versions)
        listing = self._versions.pop(name, None)
        is_known = listing is not None and listing.versions is versions
        listed_at = listing.listed_at if listing and is_known else self._generation(name)
        try:
            yield session
            document, tag = self._known.get(name, (None, None))
            pointer = document.pointer if document else None
            # Another writer's version, which shows in the document alone, has not been listed.
            if tag is not None and (pointer is None or pointer.version in session.versions):
                stored = sorted({*session.versions, *session.left})
                self._versions[name] = _Listing(tag, stored, listed_at)
        finally:
            self._sessions.pop(name, None)

    def versions_as_known(self, name: str) -> list[Version] | None:
        """The versions when the lock was held last, if the document is still the same; None if they must be listed.

        They are listed now and then in any case, for what others have left unserved, before it is older than the versions
        that a document remembers.
        """
        listing = self._versions.get(name)
        if listing is None or name not in self._known or self._known[name][1] != listing.tag:
            return None
        is_old = self._generation(name) - listing.listed_at >= RECENT // 2
        return None if is_old else listing.versions

    def _generation(self, name: str) -> int:
        return self._known[name][0].generation if name in self._known else 0

    def read(self, name: str) -> FeatureDocument | None:
        """The document as it is now, or as it was when the lock that this thread holds was taken."""
        if self.session(name) is not None and name in self._known:
            return self._known[name][0]
        return self.refreshed(name)

    def known(self, name: str) -> FeatureDocument | None:
        """The document as this process last read it, or as it is now."""
        return self._known[name][0] if name in self._known else self.refreshed(name)

    def refreshed(self, name: str) -> FeatureDocument | None:
        """The document as it is now; None where there is none."""
        known, key = self._known.get(name), f"{name}/{keys.LATEST}"
        try:
            blob = self._objects.read(key, known[1] if known else None)
        except NotChanged:
            assert known is not None
            return known[0]
        if blob is None:
            self._known.pop(name, None)
            return None
        document = FeatureDocument.from_bytes(blob.data, f"{self._objects.url}/{key}")
        self._known[name] = document, blob.tag
        return document

    def create(self, name: str) -> FeatureDocument:
        """The document, made now if there is none."""
        document = FeatureDocument()
        try:
            tag = self._objects.create(f"{name}/{keys.LATEST}", document.to_bytes())
        except ConditionFailed:
            existing = self.refreshed(name)
            if existing is None:
                raise
            return existing
        self._known[name] = document, tag
        return document

    def change(
        self, name: str, changed: Callable[[FeatureDocument], FeatureDocument]
    ) -> FeatureDocument:
        """Replace the document by what it is changed to; the change is asked again where another writer was faster.

        It raises where it can no longer be made, and returns the very document where nothing is to change. Raises
        StoreBusy if others are faster again and again.
        """
        if self.read(name) is None:
            self.create(name)
        for _ in range(_ATTEMPTS):
            document, tag = self._known[name]
            changed_document = changed(document)
            if changed_document is document:
                return document
            new = replace(changed_document, nonce=new_id())
            if self._replaced(name, new, tag):
                return new
            if self.refreshed(name) is None:
                raise StoreError(f"{self._objects.url}: {name}/{keys.LATEST} has been deleted")
            if self._known[name][0].nonce == new.nonce:  # the answer was lost, not the race
                return new
        raise StoreBusy(f"{name}: other writers change it all the time; try again")

    def _replaced(self, name: str, new: FeatureDocument, tag: Tag) -> bool:
        try:
            written = self._objects.replace(f"{name}/{keys.LATEST}", new.to_bytes(), tag)
        except ConditionFailed:
            return False
        except StoreError:
            # Perhaps only the answer is missing.
            self.refreshed(name)
            if name in self._known and self._known[name][0].nonce == new.nonce:
                return True
            raise
        self._known[name] = new, written
        return True


def _holder() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()
