"""`_metadata/renamed.json`: the names that the features of a bucket's store had before."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from mlforge.core.renames import Renames
from mlforge.errors import StoreBusy
from mlforge.store.local.io import json_text
from mlforge.store.local.paths import well_formed
from mlforge.store.objects import keys
from mlforge.store.objects.document import FeatureDocument
from mlforge.store.objects.objects import ConditionFailed, NotChanged, Objects, Tag
from mlforge.store.objects.stored_documents import ATTEMPTS, StoredDocuments
from mlforge.store.renames_note import Begun, RenamesNote


class RenamesObject:
    """The note in a store's bucket, read once while it stays as it is.

    A begun rename counts once the document of its feature says its id.
    """

    def __init__(self, objects: Objects, documents: StoredDocuments) -> None:
        self._objects, self._documents = objects, documents
        self._known: tuple[RenamesNote, Tag | None] = RenamesNote(), None
        self.known = Renames()
        """The renames as this process last read them."""

    def read(self) -> Renames:
        """The renames that count by now. Raises IntegrityError for a damaged note."""
        self.known = self._read()[0].counting(self._has_happened)
        return self.known

    def present_name(self, stated: str, expected: str) -> str:
        """The present name of the feature that had the stated one; the note is read where that is not as expected yet."""
        now = self.known.now(stated)
        return now if now == expected else self.read().now(stated)

    def begin(self, begun: Begun) -> None:
        """Note a rename that is about to happen, behind those that have happened."""
        self._change(lambda note: replace(note, begun=(*note.begun, begun)))

    def settle(self) -> None:
        """Note what has happened as such, and drop what no longer can."""
        if self._read()[0].begun:
            self._change(lambda note: note)

    def replace(self, renames: Renames) -> None:
        """Note these renames in place of all that have happened."""
        self._change(lambda note: replace(note, done=renames))

    def free(self, name: str) -> None:
        """Free the former names of a feature that is gone."""
        if self._read()[0].concerns(name):
            self._change(lambda note: replace(note, done=note.done.without(name)))

    def _change(self, changed: Callable[[RenamesNote], RenamesNote]) -> None:
        for _ in range(ATTEMPTS):
            note, tag = self._read()
            new = changed(self._settled(note))
            if new == note or self._is_written(new, tag):
                return
        raise StoreBusy(
            f"{self._objects.url}/{keys.RENAMED}: others write it all the time; try again"
        )

    def _settled(self, note: RenamesNote) -> RenamesNote:
        """The note with all that has happened, and of the others those alone that still may."""
        begun = tuple(filter(self._may_happen, note.begun))
        return RenamesNote(note.counting(self._has_happened), begun)

    def _has_happened(self, begun: Begun) -> bool:
        document = self._documents.refreshed(begun.folder)
        return document is not None and document.renamed == begun.id

    def _may_happen(self, begun: Begun) -> bool:
        document = self._documents.refreshed(begun.folder)
        return document is not None and is_coming(document, begun)

    def _read(self) -> tuple[RenamesNote, Tag | None]:
        """The note as it is now, and the state of the object, None where there is none."""
        try:
            blob = self._objects.read(keys.RENAMED, self._known[1])
        except NotChanged:
            return self._known
        if blob is None:
            self._known = RenamesNote(), None
            return self._known
        where = f"{self._objects.url}/{keys.RENAMED}"
        with well_formed(where):
            self._known = RenamesNote.from_json(json.loads(blob.data), where), blob.tag
        return self._known

    def _is_written(self, note: RenamesNote, tag: Tag | None) -> bool:
        """Whether the object was in that state, and was written; it is read again in any case."""
        data = json_text(note.to_json()).encode()
        try:
            if tag is None:
                self._objects.create(keys.RENAMED, data)
            else:
                self._objects.replace(keys.RENAMED, data, tag)
        except ConditionFailed:
            return False
        return True


def is_coming(document: FeatureDocument, begun: Begun) -> bool:
    """Whether nobody has crossed a begun rename of the document's feature yet."""
    return document.renaming is not None and document.renaming.id == begun.id
