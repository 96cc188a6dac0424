"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlforge.errors import IntegrityError, StoreError


def write_json(path: Path, document: Any) -> None:
    """Replace a document atomically and durably."""
    with replacing(path) as temporary:
        temporary.write_text(
            json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def read_json(path: Path) -> Any:
    """The document, or None where there is none; IntegrityError if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{path} is damaged ({error}); restore it from a backup") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden sibling to write to; once the block ends it is synced and takes the path's place."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with storage_errors(path):
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Say in our words what the operating system says of a full, read-only or vanished disk."""
    hints = {
        errno.ENOSPC: "the disk is full: free some space, or prune old versions",
        errno.EDQUOT: "the disk quota is used up: free some space, or prune old versions",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "permission is denied",
        errno.ENOENT: "a folder has vanished meanwhile",
    }
    try:
        yield
    except OSError as error:
        hint = hints.get(error.errno or 0)
        if hint is None:
            raise
        raise StoreError(f"cannot write {path}: {hint} ({error.strerror})") from error


def sync(path: Path) -> None:
    """Flush a file or a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> str:
    """sha256 of the file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none or they are two."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
