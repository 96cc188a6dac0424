"""`_metadata/locks/<model>.json`: the lock that each model was registered with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlforge.core.disk import sync
from mlforge.core.failpoints import reach
from mlforge.core.lock import FORMAT, Lock
from mlforge.core.values import is_name
from mlforge.errors import IntegrityError, MlforgeError, StoreError
from mlforge.store.local import io
from mlforge.store.local.paths import check_format, checked, entries_of, no_link

_SUFFIX = ".json"


def read(store: Path) -> dict[str, Lock]:
    """The locks by model, sorted; a store without any costs a look at a folder that is not there.

    Raises IntegrityError for a damaged one, UnsupportedStore for one that a newer mlforge wrote.
    """
    names = (entry.name for entry in entries_of(_folder(store)))
    models = (name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))
    locks = ((model, _read(store, model)) for model in sorted(models) if is_name(model))
    return {model: lock for model, lock in locks if lock is not None}


def write(store: Path, model: str, lock: Lock) -> None:
    """Replace the lock of a model, whole or not at all."""
    path = _path(store, model)
    with io.storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with io.replacing(path) as temporary:
        temporary.write_text(lock.text, encoding="utf-8")
    with io.storage_errors(path):
        sync(path.parent.parent)
    reach("lock.written")


def remove(store: Path, model: str) -> bool:
    """Delete the lock of a model; returns whether there was one."""
    return io.remove(_path(store, model))


def _read(store: Path, model: str) -> Lock | None:
    path = _path(store, model)
    document = io.read_json(path)
    # It may have been removed since it was listed.
    return None if document is None else understood(document, path, model)


def understood(document: Any, path: Path | str, model: str) -> Lock:
    """The lock of a model in a document; raises as `read`."""
    try:
        check_format(document, path, FORMAT)
        return Lock.from_json(document)
    except StoreError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, MlforgeError) as error:
        raise IntegrityError(
            f"{path} is damaged ({error}); restore it from a backup, or end it with 'mlforge locks --remove {model}'"
        ) from error


def _folder(store: Path) -> Path:
    return no_link(no_link(store / "_metadata") / "locks")


def _path(store: Path, model: str) -> Path:
    return no_link(_folder(store) / f"{checked(model, 'model')}{_SUFFIX}")
