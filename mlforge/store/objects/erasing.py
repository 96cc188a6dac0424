"""The part of a store in a bucket that deletes for good: features, and whatever holds rows of forgotten entities."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from contextlib import ExitStack, suppress
from dataclasses import replace

from mlforge.core.forgotten import Forgotten
from mlforge.core.values import is_name
from mlforge.store.local.leases import unshared
from mlforge.store.local.paths import META, checked
from mlforge.store.objects import keys, removal, scrubbing
from mlforge.store.objects.document import FeatureDocument
from mlforge.store.objects.documents import Session
from mlforge.store.objects.file_states import FileStates
from mlforge.store.objects.forgotten import ForgottenObject
from mlforge.store.objects.identity import Identity
from mlforge.store.objects.objects import each
from mlforge.store.objects.publishing import settle
from mlforge.store.objects.renaming import RenamingStore


class ErasingStore(RenamingStore):
    """A store in which nothing is left of what was erased: no object of the bucket, and no file of this machine's cache.

    Caches of other machines follow when these take the feature's lock next.
    """

    _identity: Identity
    _states: FileStates
    _forgotten: ForgottenObject

    def erase(self, name: str) -> None:
        """Delete all objects of the feature but its document, which says that the name is free."""
        document = self._documents.read(checked(name))
        if document is None:
            return
        served, folder = (
            document.pointer.version if document.pointer else None,
            self._files(name).path,
        )
        versions = self.versions(name)
        for version in [v for v in versions if v != served]:
            self.remove(name, version)
        with ExitStack() as leases:
            if served is not None:
                path = folder / str(served) / META
                with suppress(FileNotFoundError, NotADirectoryError):
                    leases.enter_context(unshared(path, f"{name} {served}"))
            removal.erase(self._documents, self._objects, self._renames, name)
        shutil.rmtree(folder, ignore_errors=True)
        self._states.forget(folder.name)
        session = self._documents.session(name)
        if session is not None:
            session.versions, session.states, session.books = [], None, None

    def scrub(self, name: str, hashes: Collection[str], sorted_by: str | None = None) -> None:
        """Delete from the bucket, however young, all that no version names, and from the cache the partials and the same."""
        cache = self._writable(name)
        leading = removal.leading_folders(self._documents, self._renames, name)
        named = removal.scrub(cache, self._documents, hashes, leading)
        scrubbing.scrub(cache, hashes, named, sorted_by)
        document, session = self._documents.read(name), self._documents.session(name)
        scrubbing.note_followed(cache, document.scrubbed if document else 0)
        if session is not None:
            settle(cache, self._documents, session, self._listed(name))

    def forgotten(self) -> Forgotten:
        """Read `_metadata/forgotten.json`; not even that within a lock, where the feature's document tells that it is the same."""
        sessions = self._documents.sessions()
        if not sessions:
            return self._forgotten.read().forgotten
        return self._forgotten.after(max(session.forgotten for session in sessions))

    def write_forgotten(self, forgotten: Forgotten) -> None:
        """Replace `_metadata/forgotten.json`, then have every feature's document say so: whoever refreshes it begins anew."""
        self._identity.settle()
        changes = self._forgotten.write(forgotten)

        def noted(document: FeatureDocument) -> FeatureDocument:
            is_known = document.forgotten is not None and document.forgotten >= changes
            return document if is_known else replace(document, forgotten=changes)

        stored = self._documents.stored

        def note(folder: str) -> None:
            document = stored.refreshed(folder)
            if document is not None and not document.lies_in:
                stored.change(folder, noted)

        each(note, [name for name in self._objects.folders("") if is_name(name)])

    def end_forgetting(self, names: Collection[str], forgotten: Forgotten) -> None:
        """Strike features out of `_metadata/forgotten.json`."""
        self._forgotten.end(names, forgotten)

    def kept_partials(self, name: str) -> set[str]:
        """Hashes of the partials in the bucket and in the cache."""
        entries = self._objects.entries(f"{self._documents.folder(name)}/{keys.PARTIALS}")
        stored = {keys.stem(entry.key).removesuffix(".parquet") for entry in entries}
        return {*stored, *self._feature(name).partial_store.hashes()}

    def _note_forgotten(self, name: str, session: Session) -> None:
        """Note in the session which entities its writer leaves out, and follow in the cache what others have scrubbed."""
        document = self._documents.read(name)
        assert document is not None
        if document.forgotten is None:  # new, or of a release that forgot nothing in buckets
            changes = self._forgotten.read().changes

            def noted(now: FeatureDocument) -> FeatureDocument:
                return replace(now, forgotten=changes) if now.forgotten is None else now

            document = self._documents.change(name, noted)
        session.forgotten = document.forgotten or 0
        cache = self._files(name)
        if document.scrubbed != scrubbing.followed(cache):
            latest = self.manifest(name, document.pointer.version) if document.pointer else None
            timestamp = latest.spec.timestamp if latest else None
            scrubbing.follow(cache, removal.named_keys(cache, document), timestamp)
            scrubbing.note_followed(cache, document.scrubbed)
