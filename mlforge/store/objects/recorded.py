"""The part of a store in a bucket that keeps records beside versions: file states, audits, locks of models, versions of services."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from mlforge.core.failpoints import reach
from mlforge.core.keeper import DefinedNames
from mlforge.core.lock import Lock
from mlforge.core.values import Version, is_name
from mlforge.errors import StoreError, VersionConflict
from mlforge.store.base import Store
from mlforge.store.local import io
from mlforge.store.local.paths import checked
from mlforge.store.local.promise_documents import lock_of, names_document, names_file, names_of
from mlforge.store.objects import keys
from mlforge.store.objects.document import FeatureDocument
from mlforge.store.objects.documents import Documents
from mlforge.store.objects.file_states import FileStates
from mlforge.store.objects.identity import Identity
from mlforge.store.objects.objects import ConditionFailed, Objects, each
from mlforge.store.records import Audit, Books, FileStateMap

_FORMAT = 1


class RecordedStore(Store):
    """A store whose records are objects, each replaced or created as a whole."""

    _objects: Objects
    _documents: Documents
    _identity: Identity
    _states: FileStates

    def books(self, name: str) -> Books:
        """The books in the feature's document; while this thread holds the lock, as it read them first or wrote them last."""
        session = self._documents.session(checked(name))
        if session is not None and session.books is not None:
            return session.books
        document = self._documents.read(name)
        books = document.books if document else Books()
        if session is not None:
            session.books = books
        return books

    def write_books(self, name: str, books: Books) -> None:
        """Replace the books in the feature's document; VersionConflict if another machine has changed them meanwhile."""
        before, session = self.books(name), self._documents.session(name)

        def replaced(document: FeatureDocument) -> FeatureDocument:
            if document.books not in (before, books):
                raise VersionConflict(f"{name}: another machine has changed its books; try again")
            return replace(document, books=books)

        self._documents.change(name, replaced)
        if session is not None:
            session.books = books
        reach("books.written")

    def file_states(self, name: str) -> FileStateMap:
        """Read `_sources.json.gz`, once while it stays as it is."""
        session = self._documents.session(checked(name))
        if session is None:
            return self._states.read(self._documents.folder(name))
        folder = self._documents.likely_folder(name)
        return self._states.known(folder) if session.states is None else session.states

    def write_file_states(self, name: str, file_states: FileStateMap) -> None:
        """Write them with the next version, or when the lock ends."""
        session = self._documents.session(checked(name))
        if session is not None:
            session.states = file_states
        else:
            self._states.write(self._documents.folder(name), file_states)
        reach("file_states.written")

    def audit(self, name: str) -> Audit | None:
        """Read `_audit.json`; a damaged one is as good as none, which the next audit replaces."""
        blob = self._objects.read(self._audit_key(name))
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            return Audit.from_json(json.loads(blob.data)["audit"]) if blob else None
        return None

    def write_audit(self, name: str, audit: Audit) -> None:
        """Replace `_audit.json`."""
        text = io.json_text({"format": _FORMAT, "audit": audit.to_json()})
        self._objects.put(self._audit_key(name), text.encode())

    def locks(self) -> dict[str, Lock]:
        """Read the objects of `_metadata/locks`."""
        listed = (keys.stem(entry.key) for entry in self._objects.entries(keys.LOCKS))
        models = sorted(model for model in listed if is_name(model))
        blobs = each(lambda model: self._objects.read(_lock_key(model)), models)
        names = self.renames().names if models else {}
        return {
            model: lock_of(_decoded(blob.data), self._url(_lock_key(model)), model).renamed(names)
            for model, blob in zip(models, blobs, strict=True)
            if blob is not None
        }

    def write_lock(self, model: str, lock: Lock) -> None:
        """Replace `_metadata/locks/<model>.json`."""
        key = _lock_key(model)
        self._identity.settle()
        self._objects.put(key, lock.text.encode())

    def remove_lock(self, model: str) -> bool:
        """Delete `_metadata/locks/<model>.json`."""
        return self._removed(_lock_key(model))

    def services(self) -> list[str]:
        """List `_metadata/services`."""
        return sorted(self._objects.folders(keys.SERVICES))

    def service_versions(self, service: str) -> dict[Version, Any]:
        """Read the objects of `_metadata/services/<service>`."""
        versions = []
        for entry in self._objects.entries(_service_folder(service)):
            with suppress(StoreError):
                versions.append(Version.parse(keys.stem(entry.key)))
        versions.sort()
        blobs = each(lambda version: self._objects.read(_service_key(service, version)), versions)
        return {
            version: io.parsed_json(blob.data, self._url(_service_key(service, version)))
            for version, blob in zip(versions, blobs, strict=True)
            if blob is not None
        }

    def create_service_version(
        self, service: str, version: Version, document: Mapping[str, Any]
    ) -> bool:
        """Create `_metadata/services/<service>/<version>.json`."""
        self._identity.settle()
        try:
            self._objects.create(_service_key(service, version), io.json_text(document).encode())
        except ConditionFailed:
            return False
        return True

    def remove_service_version(self, service: str, version: Version) -> bool:
        """Delete `_metadata/services/<service>/<version>.json`."""
        return self._removed(_service_key(service, version))

    def defined_names(self, definitions: str) -> DefinedNames | None:
        """Read the object of `_metadata/definitions`."""
        key = _names_key(definitions)
        blob = self._objects.read(key)
        if blob is None:
            return None
        return names_of(_decoded(blob.data), self._url(key))

    def write_defined_names(self, definitions: str, names: DefinedNames) -> None:
        """Replace the object of `_metadata/definitions`."""
        self._identity.settle()
        text = io.json_text(names_document(definitions, names))
        self._objects.put(_names_key(definitions), text.encode())

    def _removed(self, key: str) -> bool:
        """Whether there was an object, which is deleted."""
        if self._objects.look(key) is None:
            return False
        self._objects.delete([key])
        return True

    def _audit_key(self, name: str) -> str:
        return f"{self._documents.folder(checked(name))}/{keys.AUDIT}"

    def _url(self, key: str) -> str:
        return f"{self._objects.url}/{key}"


def _lock_key(model: str) -> str:
    return f"{keys.LOCKS}/{checked(model, 'model')}.json"


def _service_folder(service: str) -> str:
    return f"{keys.SERVICES}/{checked(service, 'service')}"


def _service_key(service: str, version: Version) -> str:
    return f"{_service_folder(service)}/{version}.json"


def _names_key(definitions: str) -> str:
    return f"{keys.DEFINITIONS}/{names_file(definitions)}"


def _decoded(data: bytes) -> Any:
    with suppress(ValueError):
        return json.loads(data)
    return None
