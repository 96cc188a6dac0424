"""Manifests as they lie in versions' folders, each understood once while its document stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlforge.core.collection import collection_paused
from mlforge.core.manifest import Manifest
from mlforge.core.values import Version
from mlforge.errors import IntegrityError
from mlforge.store import manifest_json
from mlforge.store.local import io
from mlforge.store.local.manifest_chunks import ManifestChunks
from mlforge.store.local.paths import META, State, state_of, well_formed

_REMEMBERED = 4


class ManifestCache:
    """The manifests of a feature that were read or written last: a refresh and a push ask for the same several times."""

    def __init__(self) -> None:
        self._known: dict[State, Manifest] = {}

    def get(self, path: Path) -> Manifest | None:
        """The manifest in a file, None where it is not known as the file is now.

        Raises FileNotFoundError where there is no file.
        """
        return self._known.get(state_of(path))

    def keep(self, path: Path, manifest: Manifest) -> None:
        """Know the manifest from now on, for the file as it is."""
        while len(self._known) >= _REMEMBERED:
            self._known.pop(next(iter(self._known)), None)
        self._known[state_of(path)] = manifest


def read_manifest(path: Path, document: Mapping[str, Any], chunks: ManifestChunks) -> Manifest:
    """The manifest in a document, as `read_document` gives it.

    path: where it lies. Raises IntegrityError where it, or a chunk that it names, is damaged.
    """
    with well_formed(path), collection_paused():
        lists = chunks.lists(document)
    return manifest_json.from_json(document, str(path), lists)


def read_document(
    path: Path, name: str, version: Version, present_name: Callable[[str], str]
) -> Mapping[str, Any]:
    """The document in a file, which must be that version's, with the present name of the feature.

    present_name: that of a feature that has, or had, some name. Raises FileNotFoundError where there is no file,
    UnsupportedStore for one of a newer mlforge, and IntegrityError where it is damaged.
    """
    document = io.read_json(path)
    if document is None:
        raise FileNotFoundError(path)
    manifest_json.check_format(document, str(path))
    with well_formed(path):
        stated = document["name"], document["version"]
    if stated != (name, str(version)):
        if not isinstance(stated[0], str) or (present_name(stated[0]), stated[1]) != (
            name,
            str(version),
        ):
            raise IntegrityError(
                f"{path} is that of {stated[0]} {stated[1]}; restore it from a backup"
            )
        document = {**document, "name": name}
    assert isinstance(document, Mapping)
    return document


def contradictions(stated: Mapping[str, Any], manifest: Manifest) -> list[str]:
    """Hashes that a document states and that do not fit what it says, in words."""
    computed = manifest_json.to_json(manifest)
    hashes = ("content_hash", "schema_hash", "config_hash", "rows_hash", "row_count")
    unfit = [key for key in hashes if stated.get(key) != computed[key]]
    return [f"{META}: {key} does not fit what it says" for key in unfit]
