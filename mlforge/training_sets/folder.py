"""The folder of a training set: written beside its place, and moved there once it is whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlforge.core.disk import sync
from mlforge.errors import RetrievalError


@contextmanager
def published(out: Path) -> Iterator[Path]:
    """A hidden folder to write to, which takes its place when the block ends; nothing stays where the block fails.

    Raises RetrievalError where there is something already: training sets are never overwritten.
    """
    check_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    staged = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    staged.mkdir()
    try:
        yield staged
        for path in [*staged.iterdir(), staged]:
            sync(path)
        try:
            staged.rename(out)
        except OSError:
            check_free(out)
            raise
        sync(out.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def check_free(out: Path) -> None:
    """Raise RetrievalError where a path holds anything but an empty folder."""
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise RetrievalError(
            f"{out} exists, and a training set is never overwritten; name another folder"
        )


def hash_of(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
