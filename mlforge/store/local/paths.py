"""Names and paths of a store's folder, checked before each read and write."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mlforge.core.values import check_name
from mlforge.errors import DefinitionError, IntegrityError, StoreError, UnsupportedStore
from mlforge.store.addresses import is_bucket, scheme_of

META, DATA = ".meta.json", "data.parquet"
State = tuple[str, int, int, int]


def refuse_url(place: str | os.PathLike[str]) -> None:
    """Raise UnsupportedStore for an address such as `s3://bucket/store`: it would become a folder named `s3:`."""
    text = os.fspath(place)
    if scheme := scheme_of(text):
        bucket = text if is_bucket(text) else "s3://bucket/feature_store"
        raise UnsupportedStore(
            f"no LocalStore takes {text!r}: it keeps a store in a folder of a local disk and knows no {scheme!r}; "
            f"give a folder, LocalStore('feature_store'), or a bucket, ObjectStore({bucket!r})"
        )


def checked(name: str, what: str = "feature") -> str:
    """The name of a feature, if it is one: nothing else becomes part of a path."""
    try:
        return check_name(name, what)
    except DefinitionError as error:
        raise StoreError(str(error)) from error


def check_format(document: Mapping[str, Any], path: Path | str, known: int) -> None:
    """Notes of a newer mlforge are left alone: what this one does not know it would drop."""
    if document.get("format", known) != known:
        raise UnsupportedStore(
            f"{path} has format {document['format']!r}, this mlforge knows {known}: "
            "upgrade to the release that wrote it"
        )


def state_of(path: Path | str) -> State:
    """The identity of a file's bytes: path, modification time, inode and size."""
    stat = os.lstat(path)
    return str(path), stat.st_mtime_ns, stat.st_ino, stat.st_size


def state_or_none(path: Path | str) -> State | None:
    """The identity of a file's bytes, None where there is no such file."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return state_of(path)
    return None


def entries_of(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder; empty where the folder does not exist."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        return list(entries)
    return []


def no_link(path: Path) -> Path:
    """The path, unless it is a symbolic link."""
    if os.path.islink(path):  # noqa: PTH114 - False where pathlib raises
        raise is_link(path)
    return path


def is_link(path: Path) -> StoreError:
    """The error that refuses a symbolic link in a store."""
    return StoreError(f"{path} is a link, and a store follows none; put the real thing there")


@contextmanager
def well_formed(path: Path | str) -> Iterator[None]:
    """Turn errors of decoding a document into IntegrityError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, StoreError) as error:
        if isinstance(error, StoreError) and str(path) in str(error):
            raise
        raise IntegrityError(
            f"{path} is damaged ({type(error).__name__}: {error}); restore it from a backup"
        ) from error
