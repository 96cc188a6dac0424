"""How a feature of a bucket gets another name. A bucket renames nothing, so no object moves: the feature's document says its name.

1. The feature's document says which name may come (`renaming`), with an id.
2. The folder of the new name gets a document that leads to the feature, where none has it that another feature needs.
3. The note of the store's renames says what is about to happen.
4. The feature's document takes the name: one conditional write, which decides. Publishers elsewhere find their condition failed.
5. The note says that it has happened.

A process that ends before the fourth step leaves a feature with its old name, and behind it one with the new name, of which the
note tells already. Whoever wants the new name for another feature first takes the id out of the feature's document: so a process
that goes on late finds its fourth step refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from mlforge.core import clock
from mlforge.core.failpoints import reach
from mlforge.core.manifest import Manifest
from mlforge.core.renames import Rename, Renames
from mlforge.errors import StoreBusy, StoreError
from mlforge.store.local.leases import unshared
from mlforge.store.local.paths import META, checked
from mlforge.store.objects import removal
from mlforge.store.objects.cached import CachedStore
from mlforge.store.objects.document import FeatureDocument, Renaming, new_id
from mlforge.store.objects.documents import Documents
from mlforge.store.objects.identity import Identity
from mlforge.store.objects.objects import Objects
from mlforge.store.objects.renames import RenamesObject, is_coming
from mlforge.store.objects.stored_documents import ATTEMPTS
from mlforge.store.renames_note import Begun


def rename(documents: Documents, objects: Objects, renames: RenamesObject, begun: Begun) -> None:
    """Give a feature another name, where no other has it; call with both names' locks held.

    Raises StoreError where another feature takes the name meanwhile, StoreBusy where another process renames or deletes.
    """
    stored, before, after = documents.stored, begun.rename.before, begun.rename.after

    def announced(document: FeatureDocument) -> FeatureDocument:
        return replace(_alive(document, begun), renaming=Renaming(after, begun.id))

    def moved(document: FeatureDocument) -> FeatureDocument:
        if not is_coming(_alive(document, begun), begun):
            raise StoreBusy(
                f"{before}: another process renames it, or takes the name {after}; see with 'mlforge list' what came of it"
            )
        if document.sweeping is not None:
            raise StoreBusy(f"{before}: another machine deletes what it no longer needs; try again")
        called = "" if after == begun.folder else after
        return replace(document, called=called, renamed=begun.id, renaming=None)

    stored.change(begun.folder, announced)
    if after != begun.folder:
        _lead(documents, objects, renames, begun)
    reach("rename.made_room")
    renames.begin(begun)
    reach("rename.noted")
    stored.change(begun.folder, moved)
    reach("rename.moved")
    renames.settle()
    reach("rename.settled")


def _alive(document: FeatureDocument, begun: Begun) -> FeatureDocument:
    """The document of the feature under its old name; StoreBusy where it is that no more."""
    name = begun.rename.before
    is_there = document.is_of(name, begun.folder) and document.erasing is None
    if not is_there or document.pointer is None:
        raise StoreBusy(
            f"{name} was renamed or erased meanwhile; see with 'mlforge list' what there is"
        )
    return document


def _lead(documents: Documents, objects: Objects, renames: RenamesObject, begun: Begun) -> None:
    """Have the document in the folder of the new name lead to the feature; one that leads there already is written anew.

    So a process that has read it as leading nowhere finds it changed.
    """
    after, folder = begun.rename.after, begun.folder
    stored, leading = documents.stored, FeatureDocument(lies_in=folder)
    for _ in range(ATTEMPTS):
        there = documents.refreshed(after)
        if there is None:
            if documents.takes_place(after, leading):
                return
        elif there.pointer is not None:
            raise StoreError(f"{after} is taken; 'mlforge list' shows what there is")
        else:  # a build that failed has left it
            removal.finish(documents, objects, renames, after)
            removal.erase(documents, objects, renames, after)
            if documents.likely_folder(after) == after and stored.replace(after, leading):
                return
    raise StoreBusy(f"{after}: other writers change it all the time; try again")


class RenamingStore(CachedStore):
    """A store in a bucket that knows the names which its features had."""

    _identity: Identity
    _renames: RenamesObject

    def renames(self) -> Renames:
        """Read `_metadata/renamed.json`."""
        return self._renames.read()

    def write_renames(self, renames: Renames) -> None:
        """Replace `_metadata/renamed.json`."""
        self._identity.settle()
        self._renames.replace(renames)

    def rename(self, before: str, after: str) -> None:
        """Have the feature's document say another name; its objects stay where they are."""
        checked(after)
        if self.renames().now(before) != after:
            self.resolve(before)
            with self._both_locked(before, after):
                self.resolve(before)
                self._refuse_taken(before, after)
                happening = Rename(before, after, clock.now())
                begun = Begun(happening, new_id(), self._documents.folder(before))
                with self._unread(before):
                    rename(self._documents, self._objects, self._renames, begun)
        self._renames.settle()

    def _with_present_source(self, manifest: Manifest) -> Manifest:
        """The manifest with the present name of the feature that it was made from.

        Nothing is read where the document at hand says that this has the name still, as refreshes read that document first.
        """
        upstream = manifest.upstream
        if upstream is None or self._documents.at_hand(upstream[0]) is not None:
            return manifest
        return self.renames().manifest(manifest)

    @contextmanager
    def _both_locked(self, before: str, after: str) -> Iterator[None]:
        """Hold the feature's lock, and this machine's on the other name, in an order that two renames agree on."""
        with ExitStack() as locks:
            for name in sorted((before, after)):
                locks.enter_context(self.lock(name) if name == before else self._exclusive(name))
            yield

    @contextmanager
    def _unread(self, name: str) -> Iterator[None]:
        """Nobody on this machine reads a version until the block ends; VersionInUse where somebody does."""
        folder = self._files(name).path
        with ExitStack() as leases:
            for version in self.versions(name):
                path = folder / str(version) / META
                if path.is_file():
                    leases.enter_context(unshared(path, f"{name} {version}"))
            yield
