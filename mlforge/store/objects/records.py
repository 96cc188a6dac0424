"""Records of a store in a bucket that are no part of a feature's document: file states, audits, locks of models."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from mlforge.core.keeper import DefinedNames
from mlforge.core.lock import Lock
from mlforge.core.values import Version, is_name
from mlforge.errors import StoreError
from mlforge.store.local import defined_names as local_names
from mlforge.store.local import io, state_files
from mlforge.store.local import locks as local_locks
from mlforge.store.local.paths import checked
from mlforge.store.objects import keys
from mlforge.store.objects.objects import ConditionFailed, NotChanged, Objects, Tag, each
from mlforge.store.records import Audit, FileStateMap

_FORMAT = 1
_GZIP = 31


class FileStates:
    """The file states of all features, by their folders, each read once while its object stays as it is. They only save work."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._known: dict[str, tuple[Tag, FileStateMap]] = {}

    def read(self, folder: str) -> FileStateMap:
        """The states as they are now; the very mapping that was written or read last, if they are the same."""
        tag, before = self._known.get(folder, (None, FileStateMap()))
        try:
            blob = self._objects.read(f"{folder}/{keys.SOURCES}", tag)
        except NotChanged:
            return before
        if blob is None:
            self._known.pop(folder, None)
            return FileStateMap()
        states = _unpacked(blob.data)
        self._known[folder] = blob.tag, before if before == states else states
        return self._known[folder][1]

    def known(self, folder: str) -> FileStateMap:
        """The states as they were read last."""
        return self._known[folder][1] if folder in self._known else FileStateMap()

    def write(self, folder: str, states: FileStateMap) -> None:
        """Replace the states; the mapping is kept, not copied."""
        text = "".join(state_files.lines_of(states)).encode()
        tag = self._objects.put(f"{folder}/{keys.SOURCES}", zlib.compress(text, 1, wbits=_GZIP))
        states.before = None  # else those of all refreshes would stay in memory
        self._known[folder] = tag, states

    def forget(self, folder: str) -> None:
        """Know nothing of a feature any more."""
        self._known.pop(folder, None)


def _unpacked(data: bytes) -> FileStateMap:
    try:
        text = zlib.decompress(data, wbits=_GZIP).decode(errors="replace")
    except zlib.error:
        return FileStateMap()
    return state_files.understood(text)


def audit(objects: Objects, folder: str) -> Audit | None:
    """The last audit; None where there is none or its document is damaged, which the next audit replaces."""
    blob = objects.read(f"{folder}/{keys.AUDIT}")
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        return Audit.from_json(json.loads(blob.data)["audit"]) if blob else None
    return None


def write_audit(objects: Objects, folder: str, result: Audit) -> None:
    """Replace the last audit's result."""
    text = io.json_text({"format": _FORMAT, "audit": result.to_json()})
    objects.put(f"{folder}/{keys.AUDIT}", text.encode())


def locks(objects: Objects) -> dict[str, Lock]:
    """The locks by model, sorted; IntegrityError for a damaged one, UnsupportedStore for a newer mlforge's."""
    listed = (keys.stem(entry.key) for entry in objects.entries(keys.LOCKS))
    models = sorted(model for model in listed if is_name(model))
    blobs = each(lambda model: objects.read(_key(model)), models)
    return {
        model: local_locks.understood(_decoded(blob.data), f"{objects.url}/{_key(model)}", model)
        for model, blob in zip(models, blobs, strict=True)
        if blob is not None
    }


def check_model(model: str) -> None:
    """Refuse what is no model's name, as nothing else becomes part of a key; StoreError."""
    _key(model)


def write_lock(objects: Objects, model: str, lock: Lock) -> None:
    """Replace the lock of a model."""
    objects.put(_key(model), lock.text.encode())


def remove_lock(objects: Objects, model: str) -> bool:
    """Delete the lock of a model; returns whether there was one."""
    return _removed(objects, _key(model))


def service_versions(objects: Objects, service: str) -> dict[Version, Any]:
    """The documents of a service's versions, ascending; IntegrityError for one that is no JSON."""
    folder = f"{keys.SERVICES}/{checked(service, 'service')}"
    versions = []
    for entry in objects.entries(folder):
        with suppress(StoreError):
            versions.append(Version.parse(keys.stem(entry.key)))
    versions.sort()
    blobs = each(lambda version: objects.read(f"{folder}/{version}.json"), versions)
    return {
        version: io.parsed_json(blob.data, f"{objects.url}/{folder}/{version}.json")
        for version, blob in zip(versions, blobs, strict=True)
        if blob is not None
    }


def create_service_version(
    objects: Objects, service: str, version: Version, document: Mapping[str, Any]
) -> bool:
    """Create the document of a service's version; returns whether there was none before."""
    key = f"{keys.SERVICES}/{checked(service, 'service')}/{version}.json"
    try:
        objects.create(key, io.json_text(document).encode())
    except ConditionFailed:
        return False
    return True


def remove_service_version(objects: Objects, service: str, version: Version) -> bool:
    """Delete the document of a service's version; returns whether there was one."""
    return _removed(objects, f"{keys.SERVICES}/{checked(service, 'service')}/{version}.json")


def defined_names(objects: Objects, definitions: str) -> DefinedNames | None:
    """The names of features and services that definitions have; None where they never said."""
    key = _definitions_key(definitions)
    blob = objects.read(key)
    if blob is None:
        return None
    return local_names.understood(_decoded(blob.data), f"{objects.url}/{key}")


def write_defined_names(objects: Objects, definitions: str, names: DefinedNames) -> None:
    """Replace the names that definitions have."""
    text = io.json_text(local_names.document(definitions, names))
    objects.put(_definitions_key(definitions), text.encode())


def _definitions_key(definitions: str) -> str:
    return f"{keys.DEFINITIONS}/{local_names.file_name(definitions)}"


def _removed(objects: Objects, key: str) -> bool:
    """Delete an object; returns whether there was one."""
    if objects.look(key) is None:
        return False
    objects.delete([key])
    return True


def _key(model: str) -> str:
    return f"{keys.LOCKS}/{checked(model, 'model')}.json"


def _decoded(data: bytes) -> Any:
    with suppress(ValueError):
        return json.loads(data)
    return None
