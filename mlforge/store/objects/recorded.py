"""The part of a store in a bucket that keeps records beside versions: file states, audits, locks of models, versions of services."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlforge.core.failpoints import reach
from mlforge.core.keeper import DefinedNames
from mlforge.core.lock import Lock
from mlforge.core.values import Version
from mlforge.errors import VersionConflict
from mlforge.store.base import Store
from mlforge.store.local.paths import checked
from mlforge.store.objects import keys, records
from mlforge.store.objects.document import FeatureDocument
from mlforge.store.objects.documents import Documents
from mlforge.store.objects.identity import Identity
from mlforge.store.objects.objects import Objects
from mlforge.store.objects.records import FileStates
from mlforge.store.records import Audit, Books, FileStateMap


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
        """Read `_audit.json`."""
        return records.audit(self._objects, self._documents.folder(checked(name)))

    def write_audit(self, name: str, audit: Audit) -> None:
        """Replace `_audit.json`."""
        records.write_audit(self._objects, self._documents.folder(checked(name)), audit)

    def locks(self) -> dict[str, Lock]:
        """Read the objects of `_metadata/locks`."""
        locks = records.locks(self._objects)
        names = self.renames().names if locks else {}
        return {model: lock.renamed(names) for model, lock in locks.items()}

    def write_lock(self, model: str, lock: Lock) -> None:
        """Replace `_metadata/locks/<model>.json`."""
        records.check_model(model)
        self._identity.settle()
        records.write_lock(self._objects, model, lock)

    def remove_lock(self, model: str) -> bool:
        """Delete `_metadata/locks/<model>.json`."""
        return records.remove_lock(self._objects, model)

    def services(self) -> list[str]:
        """List `_metadata/services`."""
        return sorted(self._objects.folders(keys.SERVICES))

    def service_versions(self, service: str) -> dict[Version, Any]:
        """Read the objects of `_metadata/services/<service>`."""
        return records.service_versions(self._objects, service)

    def create_service_version(
        self, service: str, version: Version, document: Mapping[str, Any]
    ) -> bool:
        """Create `_metadata/services/<service>/<version>.json`."""
        self._identity.settle()
        return records.create_service_version(self._objects, service, version, document)

    def remove_service_version(self, service: str, version: Version) -> bool:
        """Delete `_metadata/services/<service>/<version>.json`."""
        return records.remove_service_version(self._objects, service, version)

    def defined_names(self, definitions: str) -> DefinedNames | None:
        """Read the object of `_metadata/definitions`."""
        return records.defined_names(self._objects, definitions)

    def write_defined_names(self, definitions: str, names: DefinedNames) -> None:
        """Replace the object of `_metadata/definitions`."""
        self._identity.settle()
        records.write_defined_names(self._objects, definitions, names)
