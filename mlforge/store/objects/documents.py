"""Features' documents in a bucket by the features' names, and the sessions of locks' holders.

A feature's objects lie in the folder of the name that it had first. A feature that was renamed says its name in its document there, and
the folder of its new name has a document that leads to it, which nobody follows longer than the feature is called so.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from mlforge.core.values import Version
from mlforge.errors import StoreBusy, StoreError, VersionConflict
from mlforge.store.objects.document import RECENT, FeatureDocument
from mlforge.store.objects.objects import Objects, Tag
from mlforge.store.objects.stored_documents import ATTEMPTS, StoredDocument, StoredDocuments
from mlforge.store.records import Books, FileStateMap


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
    books: Books | None = None
    """The books that its holder goes by: others of this process may read the document meanwhile, which another machine has changed."""
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
        self.stored = StoredDocuments(objects)
        self._folders: dict[str, str] = {}
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
            known = self._stored(name)
            pointer = known.document.pointer if known else None
            # Another writer's version, which shows in the document alone, has not been listed.
            if known is not None and (pointer is None or pointer.version in session.versions):
                stored = sorted({*session.versions, *session.left})
                self._versions[name] = _Listing(known.tag, stored, listed_at)
        finally:
            self._sessions.pop(name, None)

    def versions_as_known(self, name: str) -> list[Version] | None:
        """The versions when the lock was held last, if the document is still the same; None if they must be listed.

        They are listed now and then in any case, for what others have left unserved, before it is older than the versions
        that a document remembers.
        """
        listing, known = self._versions.get(name), self._stored(name)
        if listing is None or known is None or known.tag != listing.tag:
            return None
        is_old = self._generation(name) - listing.listed_at >= RECENT // 2
        return None if is_old else listing.versions

    def _generation(self, name: str) -> int:
        known = self._stored(name)
        return known.document.generation if known else 0

    def _stored(self, name: str) -> StoredDocument | None:
        return self.stored.known(self.likely_folder(name))

    def read(self, name: str) -> FeatureDocument | None:
        """The document as it is now, or as it was when the lock that this thread holds was taken."""
        document = self.at_hand(name)
        if document is not None and self.session(name) is not None:
            return document
        return self.refreshed(name)

    def known(self, name: str) -> FeatureDocument | None:
        """The document as this process last read it, or as it is now."""
        document = self.at_hand(name)
        return self.refreshed(name) if document is None else document

    def refreshed(self, name: str) -> FeatureDocument | None:
        """The document as it is now; None where no feature has this name."""
        folder = self.likely_folder(name)
        document = self.stored.refreshed(folder)
        if document is not None and document.is_of(name, folder):
            return document
        if folder != name:
            self._folders.pop(name, None)
            own = self.stored.refreshed(name)
        else:
            own = document
        return self._followed(name, own)

    def _followed(self, name: str, own: FeatureDocument | None) -> FeatureDocument | None:
        """The document of a feature; own: what the folder of its name has."""
        if own is None or not own.lies_in:
            return own if own is not None and own.is_of(name, name) else None
        document = self.stored.refreshed(own.lies_in)
        if document is None or not document.is_of(name, own.lies_in):
            return None  # that one has another name by now, or is gone
        self._folders[name] = own.lies_in
        return document

    def at_hand(self, name: str) -> FeatureDocument | None:
        """The document as this process last read it; None where it knows none of that name."""
        folder = self.likely_folder(name)
        known = self.stored.known(folder)
        return known.document if known and known.document.is_of(name, folder) else None

    def likely_folder(self, name: str) -> str:
        """The folder of the bucket that a feature's objects lay in when its document was read last; nothing is read."""
        return self._folders.get(name, name)

    def folder(self, name: str) -> str:
        """The folder of the bucket that a feature's objects lie in."""
        self.known(name)
        return self.likely_folder(name)

    def create(self, name: str) -> FeatureDocument:
        """The document, made now if there is none. Raises StoreError where another feature lies in the folder of that name."""
        document = FeatureDocument()
        if self.stored.create(name, document):
            return document
        for _ in range(ATTEMPTS):
            existing = self.refreshed(name)
            if existing is not None:
                return existing
            if self.takes_place(name, document):
                return document
        raise StoreBusy(f"{name}: other writers change it all the time; try again")

    def takes_place(self, name: str, new: FeatureDocument) -> bool:
        """Put a document in the place of one that leads to a feature which has not that name; returns whether it has.

        A process may be about to give it that name: it is told first that it must not. Call it behind `refreshed`, where
        that finds no feature. Raises StoreError where another feature lies in the folder of that name.
        """
        own = self.stored.known(name)
        if own is None:
            return self.stored.create(name, new)
        if not own.document.lies_in:
            called = own.document.called
            raise StoreError(
                f"{called} had the name {name}, and its objects lie in the folder of that name; it is free once {called} is "
                f"retired: 'mlforge retire {called}'"
            )
        is_another = own.document.lies_in != new.lies_in
        if is_another and self.stored.refreshed(own.document.lies_in) is not None:
            there = self.stored.change(own.document.lies_in, partial(_not_becoming, name=name))
            if there.is_of(name, own.document.lies_in):
                return False
        return self.stored.replace(name, new)

    def change(
        self, name: str, changed: Callable[[FeatureDocument], FeatureDocument]
    ) -> FeatureDocument:
        """Replace the document of a feature as `StoredDocuments.change` does; it is made first if there is none.

        Raises VersionConflict where the feature gets another name meanwhile.
        """
        if self.read(name) is None:
            self.create(name)
        folder = self.likely_folder(name)

        def changed_yet(document: FeatureDocument) -> FeatureDocument:
            if not document.is_of(name, folder):
                raise VersionConflict(f"{name} was renamed meanwhile; try again")
            return changed(document)

        return self.stored.change(folder, changed_yet)


def _not_becoming(document: FeatureDocument, name: str) -> FeatureDocument:
    """The document of a feature that will not get this name, unless it is called so."""
    if document.renaming is None or document.renaming.to != name:
        return document
    return replace(document, renaming=None)


def _holder() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()
