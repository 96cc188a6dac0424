"""Features' documents by the folders that they lie in: read when they have changed, and changed by compare-and-swap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from mlforge.errors import StoreBusy, StoreError
from mlforge.store.objects import keys
from mlforge.store.objects.document import FeatureDocument, new_id
from mlforge.store.objects.objects import ConditionFailed, NotChanged, Objects, Tag

ATTEMPTS = 20


class StoredDocument(NamedTuple):
    """A document, and the state of the object that says so."""

    document: FeatureDocument
    tag: Tag


class StoredDocuments:
    """The documents below a store's address, each known as this process last read or wrote it."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._known: dict[str, StoredDocument] = {}

    def known(self, folder: str) -> StoredDocument | None:
        """The document as this process last read or wrote it; None where it knows none."""
        return self._known.get(folder)

    def refreshed(self, folder: str) -> FeatureDocument | None:
        """The document as it is now; None where there is none."""
        known, key = self._known.get(folder), f"{folder}/{keys.LATEST}"
        try:
            blob = self._objects.read(key, known.tag if known else None)
        except NotChanged:
            assert known is not None
            return known.document
        if blob is None:
            self._known.pop(folder, None)
            return None
        document = FeatureDocument.from_bytes(blob.data, f"{self._objects.url}/{key}")
        self._known[folder] = StoredDocument(document, blob.tag)
        return document

    def create(self, folder: str, document: FeatureDocument) -> bool:
        """Write a document where there is none; returns whether there was none."""
        try:
            tag = self._objects.create(f"{folder}/{keys.LATEST}", document.to_bytes())
        except ConditionFailed:
            return False
        self._known[folder] = StoredDocument(document, tag)
        return True

    def change(
        self, folder: str, changed: Callable[[FeatureDocument], FeatureDocument]
    ) -> FeatureDocument:
        """Replace the known document by what it is changed to; the change is asked again where another writer was faster.

        It raises where it can no longer be made, and returns the very document where nothing is to change. Raises
        StoreBusy if others are faster again and again.
        """
        for _ in range(ATTEMPTS):
            document = self._known[folder].document
            changed_document = changed(document)
            if changed_document is document:
                return document
            new = replace(changed_document, nonce=new_id())
            if self.replace(folder, new):
                return new
            again = self.refreshed(folder)
            if again is None:
                raise StoreError(f"{self._objects.url}: {folder}/{keys.LATEST} has been deleted")
            if again.nonce == new.nonce:  # the answer was lost, not the race
                return new
        raise StoreBusy(f"{folder}: other writers change it all the time; try again")

    def replace(self, folder: str, new: FeatureDocument) -> bool:
        """Put a document in the place of the known one; returns whether that was still as it is known."""
        try:
            written = self._objects.replace(
                f"{folder}/{keys.LATEST}", new.to_bytes(), self._known[folder].tag
            )
        except ConditionFailed:
            return False
        except StoreError:
            # Perhaps only the answer is missing.
            again = self.refreshed(folder)
            if again is not None and again.nonce == new.nonce:
                return True
            raise
        self._known[folder] = StoredDocument(new, written)
        return True
