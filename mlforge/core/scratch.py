"""Folders for temporary files: each goes with the process that made it, be it that the next one finds it ownerless."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "mlforge-scratch-"


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """A new folder in the system's for temporary files, which is gone once the block ends. purpose: a word of its name.

    Folders of killed processes go first. Raises OSError where none can be made.
    """
    sweep_scratch()
    path, descriptor = _made(purpose)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def sweep_scratch() -> None:
    """Remove this user's scratch folders whose processes are gone, be they of this container or of another one.

    A folder is locked by the process that made it; where the file system has no locks, it stays.
    """
    with suppress(OSError):
        for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            with suppress(OSError):
                descriptor = _locked(path)
                try:
                    if os.fstat(descriptor).st_uid == os.getuid():
                        shutil.rmtree(path, ignore_errors=True)
                finally:
                    os.close(descriptor)


def _made(purpose: str) -> tuple[Path, int]:
    """A new folder and the descriptor that holds its lock."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{purpose}-"))
        try:
            descriptor = _locked(path)
        except (FileNotFoundError, BlockingIOError):  # swept before it was locked
            continue
        except OSError:  # no locks here: nobody sweeps it, either
            return path, os.open(path, os.O_RDONLY)
        if path.exists():
            return path, descriptor
        os.close(descriptor)


def _locked(path: Path) -> int:
    """The descriptor of a folder that this process has locked; BlockingIOError where another has."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
