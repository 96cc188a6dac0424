"""Places of a project: its folder, its root, and the store that a relative path means."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType

from mlforge.core import signatures
from mlforge.core.arguments import shown
from mlforge.core.paths import path_of
from mlforge.definitions.collection import describe_store
from mlforge.errors import DefinitionError, OnlineError
from mlforge.online import OnlineStore
from mlforge.online.opening import online_store_at
from mlforge.store import Store
from mlforge.store.addresses import is_bucket
from mlforge.store.opening import store_at

# Any folder serves: a relative path resolved against it shows that it was relative.
_SOMEWHERE = Path("/definitions")


def checked_store(store: object) -> Store:
    """The store, of an address of a bucket too; DefinitionError for all else."""
    if isinstance(store, str) and is_bucket(store):
        return store_at(store)
    if isinstance(store, Store):
        return store
    raise DefinitionError(
        "Definitions: store must be a Store such as LocalStore('feature_store') or the address of a bucket "
        f"such as 's3://bucket/feature_store', not {shown(store)}"
    )


def checked_online_store(online_store: object) -> OnlineStore | None:
    """The online store, of a URL too; DefinitionError for all else."""
    if isinstance(online_store, str):
        try:
            return online_store_at(online_store)
        except DefinitionError as error:
            raise DefinitionError(f"Definitions: online_store: {error}") from None
    if online_store is None or isinstance(online_store, OnlineStore):
        return online_store
    raise DefinitionError(
        "Definitions: online_store must be an OnlineStore such as RedisStore(host='localhost') or the URL of one such "
        f"as 'redis://localhost:6379/0', not {shown(online_store)}"
    )


def given_online_store(online_store: OnlineStore | None) -> OnlineStore:
    """The online store of definitions; OnlineError where they have none."""
    if online_store is None:
        raise OnlineError(
            "these definitions have no online store; give Definitions(online_store=RedisStore(...))"
        )
    return online_store


def absolute(path: Path) -> Path:
    """The path from the file system's root, without following links."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - without `..`, and links stay


def calling_folder(called: str) -> Path:
    """The folder of the file that calls into a module; the current folder where the caller has no file."""
    passed = {__name__, called, signatures.__name__}
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") in passed:
        frame = frame.f_back
    file = frame.f_globals.get("__file__") if frame is not None else None
    return absolute(Path(file).parent if file else Path())


def parsed_root(root: object) -> Path:
    """The root as it was written; DefinitionError for all that is no path."""
    if root is not None and not isinstance(root, (str, os.PathLike)):
        raise DefinitionError(
            f"Definitions: root must be a folder's path, not {shown(root)}; leave it out for the file's folder"
        )
    return path_of(root or "")


def described_places(
    store: Store, online_store: OnlineStore | None, folder: Path, root: Path
) -> list[str]:
    """A project's stores and root as texts that are the same on every host, wherever the project lies."""
    return [
        describe_store(store.located_at(_SOMEWHERE)),
        describe_store(online_store),
        relative_to_folder(folder, root),
    ]


def relative_to_folder(folder: Path, path: Path) -> str:
    """A path that is the same on every host: relative to the definitions' folder, if it lies inside."""
    resolved = absolute(folder / path)
    return str(resolved.relative_to(folder) if resolved.is_relative_to(folder) else path)
