"""Documents of models' locks and of the names that definitions have, in folders and buckets alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlforge.core.keeper import DefinedNames
from mlforge.core.lock import FORMAT as LOCK_FORMAT
from mlforge.core.lock import Lock
from mlforge.errors import IntegrityError, MlforgeError, StoreError
from mlforge.store.local.paths import check_format

SUFFIX = ".json"
_NAMES_FORMAT = 1


def lock_of(document: Any, where: Path | str, model: str) -> Lock:
    """The lock of a model. Raises IntegrityError for a damaged one, UnsupportedStore for one of a newer mlforge."""
    works = f"restore it from a backup, or end it with 'mlforge locks --remove {model}'"
    with _damage_told(where, works):
        check_format(document, where, LOCK_FORMAT)
        return Lock.from_json(document)


def names_of(document: Any, where: Path | str) -> DefinedNames:
    """The names that definitions have; raises as `lock_of`."""
    with _damage_told(where, "delete it, and build with these definitions again"):
        check_format(document, where, _NAMES_FORMAT)
        return DefinedNames.from_json(document)


def names_document(definitions: str, names: DefinedNames) -> dict[str, Any]:
    """The document of names, as `names_of` reads it."""
    return {"format": _NAMES_FORMAT, "definitions": definitions, **names.to_json()}


def names_file(definitions: str) -> str:
    """The name of the document of definitions, whose own name may be any text."""
    return f"{hashlib.sha256(definitions.encode()).hexdigest()[:32]}{SUFFIX}"


@contextmanager
def _damage_told(where: Path | str, works: str) -> Iterator[None]:
    """Turn errors of decoding a document into IntegrityError; works: what helps."""
    try:
        yield
    except StoreError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, MlforgeError) as error:
        raise IntegrityError(f"{where} is damaged ({error}); {works}") from error
