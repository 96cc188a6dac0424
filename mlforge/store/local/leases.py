"""Leases: readers share a version's document, so that a process that removes the version notices them.

A lease is the kernel's (`flock`), so a killed reader leaves none behind, and the right to read will do. A file
system that knows no locks gives none.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlforge.errors import VersionInUse
from mlforge.store.local import io


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold a shared lock on a file; FileNotFoundError where it does not exist, or not any more."""
    with _opened(path) as descriptor:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        if path.stat().st_ino != os.fstat(descriptor).st_ino:
            raise FileNotFoundError(path)
        yield


@contextmanager
def unshared(path: Path, what: str) -> Iterator[None]:
    """Hold a file that nobody shares; VersionInUse at once if somebody does."""
    with _opened(path) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise VersionInUse(
                f"{what} is being read; it can be removed once that has ended"
            ) from error
        except OSError:
            pass
        yield


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A descriptor to lock; the lock ends with the block, also for forks, which have the same."""
    descriptor, process = io.no_link(str(path), os.O_RDONLY), os.getpid()
    try:
        yield descriptor
    finally:
        with suppress(OSError):
            if os.getpid() == process:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
