"""`_metadata/definitions/<hash>.json`: the features and services that definitions have which share the store."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from mlforge.core.disk import sync
from mlforge.core.keeper import DefinedNames
from mlforge.errors import IntegrityError, StoreError
from mlforge.store.local import io
from mlforge.store.local.paths import check_format, no_link

FORMAT = 1


def file_name(definitions: str) -> str:
    """The name of the document of definitions, whose own name may be any text."""
    return f"{hashlib.sha256(definitions.encode()).hexdigest()[:32]}.json"


def document(definitions: str, names: DefinedNames) -> dict[str, Any]:
    """The document, as `understood` reads it."""
    return {"format": FORMAT, "definitions": definitions, **names.to_json()}


def understood(found: Any, where: Path | str) -> DefinedNames:
    """The names in a document. Raises IntegrityError for a damaged one, UnsupportedStore for one of a newer mlforge."""
    try:
        check_format(found, where, FORMAT)
        return DefinedNames.from_json(found)
    except StoreError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise IntegrityError(
            f"{where} is damaged ({error}); delete it, and build with these definitions again"
        ) from error


def read(store: Path, definitions: str) -> DefinedNames | None:
    """The names that definitions have; None where they never said."""
    path = _path(store, definitions)
    found = io.read_json(path)
    return None if found is None else understood(found, path)


def write(store: Path, definitions: str, names: DefinedNames) -> None:
    """Replace them, whole or not at all."""
    path = _path(store, definitions)
    with io.storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    io.write_json(path, document(definitions, names))
    with io.storage_errors(path):
        sync(path.parent.parent)


def _path(store: Path, definitions: str) -> Path:
    return no_link(no_link(no_link(store / "_metadata") / "definitions") / file_name(definitions))
