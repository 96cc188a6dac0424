"""How a version comes into a bucket: parts, then its manifest, then the feature's document, which serves it.

The manifest is created where there is none, and the document replaced where it is as it was read: of publishers that
race, one wins. A manifest names the pointer that its publisher saw, so that whoever finds it unserved knows whether it
still may be; and the life of the feature's name, how often it was swept, and how much was forgotten, so that nothing is served
whose objects were deleted since, or that has rows of an entity that was. A manifest that can no longer be served is as good as
none: the next publisher of its number puts its own in its place, where it is as it was read. It is not deleted, as whoever
deletes by key may be late, and hit another's. Nonces tell a lost answer from a lost race, and a publisher's own manifest
from another's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from mlforge.core import clock
from mlforge.core.failpoints import reach
from mlforge.core.manifest import Manifest
from mlforge.core.values import Version
from mlforge.errors import IntegrityError, StoreError, VersionConflict
from mlforge.store.local import io
from mlforge.store.local.manifest_chunks import named
from mlforge.store.objects import keys
from mlforge.store.objects.cache import FeatureCache
from mlforge.store.objects.document import FeatureDocument, new_id
from mlforge.store.objects.documents import Documents, Session
from mlforge.store.objects.objects import ConditionFailed, NotReadable, together
from mlforge.store.objects.transaction import ObjectTransaction
from mlforge.store.records import Books
from mlforge.store.transaction import Pointer, Snapshot

_COMMIT = "commit"


class Publisher:
    """Publishes versions of one feature."""

    def __init__(self, cache: FeatureCache, documents: Documents, session: Session | None) -> None:
        self._cache, self._documents, self._session = cache, documents, session
        self._objects, self._name, self._born = cache.objects, cache.name, cache.born
        self._home = cache.home
        self._nonce, self._swept = new_id(), 0
        self._forgotten = 0

    def publish(
        self,
        tx: ObjectTransaction,
        manifest: Manifest,
        books: Books | None,
        beside: Sequence[Callable[[], object]],
    ) -> Pointer:
        """Make a version of a transaction's table and serve it, with the books where some are given.

        beside: what writes further objects, called together with the uploads. Raises VersionConflict where the pointer is
        not the snapshot's any more, or the version exists.
        """
        snapshot, version = tx.snapshot, manifest.version
        assert version is not None
        current = self._documents.read(self._name)
        self._swept = current.swept if current else 0
        known = self._session or current
        self._forgotten = (known.forgotten or 0) if known else 0
        self._check_pointer(current, snapshot)
        document = self._cache.folder.chunks.written(manifest)
        self._upload(tx, manifest, document, beside)
        reach("publish.staged")
        document |= {_COMMIT: self._commit(snapshot)}
        self._create(version, document)
        reach("publish.renamed")
        pointer = self._point(version, snapshot, books)
        self._keep(tx, version, document, manifest)
        reach("publish.pointed")
        return pointer

    def _commit(self, snapshot: Snapshot) -> dict[str, Any]:
        """The circumstances in which the version may be served; see `settle`."""
        after = _after(snapshot.pointer)
        return {
            "nonce": self._nonce,
            "after": after,
            "born": self._born,
            "swept": self._swept,
            "forgotten": self._forgotten,
        }

    def _check_pointer(self, document: FeatureDocument | None, snapshot: Snapshot) -> None:
        is_gone = document is None or not document.is_alive(self._born)
        if is_gone or (document.pointer if document else None) != snapshot.pointer:
            raise VersionConflict(f"{self._name}: another publisher was faster; refresh again")
        if document and (document.sweeping is not None or document.swept != self._swept):
            raise VersionConflict(f"{self._name}: objects were deleted meanwhile; refresh again")
        if document and (document.forgotten or 0) > self._forgotten:
            raise VersionConflict(f"{self._name}: entities were forgotten meanwhile; refresh again")

    def _upload(
        self,
        tx: ObjectTransaction,
        manifest: Manifest,
        document: Mapping[str, Any],
        beside: Sequence[Callable[[], object]],
    ) -> None:
        """Write at once all that the manifest names and the served version does not, and what was made anew.

        The latter even where the served version names it: it may be what is missing or damaged in the bucket.
        """
        latest = tx.snapshot.latest
        known = {partial.hash for partial in latest.partials} if latest else set()
        anew = known & self._cache.written
        if anew:
            # The cache may have been deleted since.
            anew &= self._cache.folder.partial_store.hashes()
        added = _added((p.hash for p in manifest.partials), known - anew)
        partials = [h for h in added if not self._is_stored(keys.partial(self._home, h))]
        self._cache.fetch_partials(partials)  # of which some may have come from other machines
        files = {keys.part(self._home, hash_): path for hash_, path in tx.fresh.items()}
        served = self._cache.path / str(latest.version) / ".meta.json" if latest else None
        before = named(io.read_json(served) or {}) if served else set()
        for hash_ in named(document) - before:
            files[keys.piece(self._home, hash_)] = (
                self._cache.folder.chunks.folder / f"{hash_}.json"
            )
        with self._cache.loose_partials(partials) as loose:
            files |= {keys.partial(self._home, hash_): path for hash_, path in loose.items()}
            uploads: list[Callable[[], object]] = [
                partial(self._objects.put, key, file)
                for key, file in files.items()
                if not self._is_stored(key)
            ]
            together([*uploads, *beside])
        self._cache.written.clear()

    def _is_stored(self, key: str) -> bool:
        """Whether the bucket was seen to have an object, and nothing has been deleted there since."""
        return self._session is not None and self._session.stored.get(key) == self._swept

    def _is_own(self, version: Version) -> bool:
        """Whether the bucket's manifest of a version is the one that this publisher has created."""
        existing = self._cache.document(version)
        return existing is not None and existing.get(_COMMIT, {}).get("nonce") == self._nonce

    def _create(self, version: Version, document: Mapping[str, Any]) -> None:
        """Create the manifest, or put it in the place of one that nobody can serve any more."""
        key, data = keys.meta(self._home, version), io.json_text(document).encode()
        if self._is_written(version, lambda: self._objects.create(key, data)):
            return
        left = self._cache.stored(version)
        if left is not None and self._is_left(version, left.document):
            tag = left.tag
            if self._is_written(version, lambda: self._objects.replace(key, data, tag)):
                return
        if self._session is not None:
            self._session.versions = sorted({*self._session.versions, version})
        raise VersionConflict(
            f"{self._name}: version {version} exists; versions are never overwritten"
        )

    def _is_written(self, version: Version, write: Callable[[], object]) -> bool:
        """Whether a manifest was written, and not only its condition failed."""
        try:
            write()
        except StoreError as error:
            if self._is_own(version):
                return True  # only the answer was lost
            if not isinstance(error, ConditionFailed):
                raise
            return False
        return True

    def _is_left(self, version: Version, existing: Mapping[str, Any]) -> bool:
        """Whether a manifest that was read before can no longer be served."""
        document, commit = self._documents.refreshed(self._name), existing.get(_COMMIT)
        if document is None or not document.is_alive(self._born) or commit is None:
            return False
        return document.is_unserved(version) and _has_lost(commit, document)

    def _point(self, version: Version, snapshot: Snapshot, books: Books | None) -> Pointer:
        def serving(document: FeatureDocument) -> FeatureDocument:
            if self._was_served(document, version):
                return document
            self._check_pointer(document, snapshot)
            left = self._session.left if self._session else ()
            served = document.serving(version).past(left, clock.now())
            if books is None or document.books == books:
                return served
            if document.books != snapshot.books:
                raise VersionConflict(f"{self._name}: another writer was faster; refresh again")
            return replace(served, books=books)

        document = self._documents.change(self._name, serving)
        if self._session is not None and books is not None:
            self._session.books = books
        pointer = document.pointer
        is_served = pointer is not None and pointer.version == version
        return pointer if pointer and is_served else Pointer(version, document.recent[version])

    def _was_served(self, document: FeatureDocument, version: Version) -> bool:
        """Whether it was served already: by a writer that found it, or by this one, whose answer was lost."""
        is_known = document.is_alive(self._born) and version in document.recent
        return is_known and self._is_own(version)

    def _keep(
        self,
        tx: ObjectTransaction,
        version: Version,
        document: Mapping[str, Any],
        manifest: Manifest,
    ) -> None:
        """Have the version at hand, as it would be fetched otherwise."""
        for hash_, path in tx.fresh.items():
            target = self._cache.part(hash_)
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
        path = self._cache.keep_document(version, document)
        self._cache.folder.manifests.keep(path, manifest)
        if self._session is not None:
            self._session.versions = sorted({*self._session.versions, version})
            self._session.left = [other for other in self._session.left if other > version]


def settle(
    cache: FeatureCache, documents: Documents, session: Session, stored: Sequence[Version]
) -> None:
    """Serve the version that a killed publisher left unserved; tell the session what is left.

    stored: versions that have a manifest. A feature that is held keeps the version that it serves.
    """
    left = _left(cache, documents, stored)
    session.left = left
    session.versions = [version for version in stored if version not in left]


def _left(cache: FeatureCache, documents: Documents, versions: Sequence[Version]) -> list[Version]:
    """The versions that nobody can serve any more, once that is served which still may be."""
    document, left = documents.read(cache.name), list[Version]()
    if document is None:
        return left
    for version in filter(document.is_unserved, versions):
        try:
            commit = (cache.document(version) or {}).get(_COMMIT)
        except (IntegrityError, NotReadable):
            continue  # nobody knows what it says: its number stays taken, and it is not served
        if commit is None:
            continue
        if commit.get("born", document.born) != document.born:
            # One of them is of an earlier life: the manifest, if it is not the document that is read again now.
            again = documents.refreshed(cache.name)
            if again is None:
                break
            document = again
            if not document.is_unserved(version):
                continue
        is_next = commit["after"] == _after(document.pointer) and not _has_lost(commit, document)
        if is_next and document.books.hold is None:
            document = documents.change(
                cache.name, partial(_served_after, version=version, seen=document)
            )
        if document.is_unserved(version) and _has_lost(commit, document):
            left.append(version)
    return left


def _has_lost(commit: Mapping[str, Any], document: FeatureDocument) -> bool:
    """Whether a publisher cannot serve its version any more, and has ended before it could say so.

    It holds of a document from before the commit, too: lives apart, these numbers only rise.
    """
    return bool(
        commit.get("born", document.born) != document.born
        or commit.get("swept", document.swept) < document.swept
        or commit.get("forgotten", 0) < (document.forgotten or 0)
        or commit["after"][1] < document.generation
    )


def _served_after(
    document: FeatureDocument, version: Version, seen: FeatureDocument
) -> FeatureDocument:
    """The document with a version served, if nothing of that has changed since it was seen."""
    is_as_seen = (document.pointer, document.swept, document.forgotten) == (
        seen.pointer,
        seen.swept,
        seen.forgotten,
    )
    is_whole = document.is_alive(seen.born) and document.sweeping is None
    if is_as_seen and is_whole and version not in document.removing:
        return document.serving(version)
    return document


def _after(pointer: Pointer | None) -> list[Any]:
    """The pointer that a publisher saw, as JSON has it."""
    return [str(pointer.version), pointer.generation] if pointer else [None, 0]


def _added(hashes: Iterable[str], known: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(hashes).keys() - set(known))
