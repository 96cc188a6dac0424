"""Advisory locks on files, for the processes of one host: they end with their holder, whose name they carry.

A lock is the kernel's (`flock`), so a killed process leaves none behind. A child that is forked while one is
held does not inherit it, whatever a feature's function starts.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mlforge.core import clock
from mlforge.core.text import printable
from mlforge.core.values import to_iso
from mlforge.errors import StoreBusy
from mlforge.store.local import io

TIMEOUT_S = 60.0
_LOOK_S = (0.001, 0.05)  # the first pause between looks, and the longest
_NOTE_BYTES = 1_000
_NO_FILE = -1

_held: dict[int, int] = {}
"""Descriptors of the locks that this process holds, and its process id."""


@contextmanager
def exclusive(path: Path, timeout_s: float = TIMEOUT_S, *, wait: bool = True) -> Iterator[None]:
    """Hold the exclusive lock on a file, which is created if it does not exist.

    Raises StoreBusy, naming the holder, if the lock is not free within the timeout, or at once where it is not to be waited for.
    """
    timeout_s = timeout_s if wait else 0.0
    deadline = time.monotonic() + timeout_s
    descriptor = _opened(path)
    try:
        _take(descriptor, path, timeout_s)
        while not _lies_at(descriptor, path):  # its folder was moved while it was waited for
            _close(descriptor)
            descriptor = _NO_FILE  # another thread's lock may have the number by now
            descriptor = _opened(path)
            _take(descriptor, path, max(deadline - time.monotonic(), 0))
        note = {"pid": os.getpid(), "host": socket.gethostname(), "since": to_iso(clock.now())}
        _write_note(descriptor, note)
        try:
            yield
        finally:
            if _is_ours(descriptor):
                _write_note(descriptor, None)
    finally:
        if _is_ours(descriptor):
            _close(descriptor)


def _opened(path: Path) -> int:
    with io.storage_errors(path):
        descriptor = io.no_link(str(path), os.O_CREAT | os.O_RDWR)
    _held[descriptor] = os.getpid()
    return descriptor


def _close(descriptor: int) -> None:
    del _held[descriptor]
    # Children that were forked behind Python's back have it, too: it must end for all of them.
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _lies_at(descriptor: int, path: Path) -> bool:
    """Whether a path still leads to the file that was opened by it."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False


def _is_ours(descriptor: int) -> bool:
    """Whether this process holds a lock by a descriptor; in a child it may be another file's by now."""
    return _held.get(descriptor) == os.getpid()


def _take(descriptor: int, path: Path, timeout_s: float) -> None:
    deadline, pause = time.monotonic() + timeout_s, _LOOK_S[0]
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EINTR):
                raise
        if time.monotonic() >= deadline:
            raise StoreBusy(
                f"{path.parent} is locked by {_holder(path)}: it was waited for {timeout_s:g} s; "
                "let that end, or end it, then try again"
            )
        time.sleep(pause)
        pause = min(2 * pause, _LOOK_S[1])


def _write_note(descriptor: int, note: Mapping[str, object] | None) -> None:
    """Write the holder into the lock file. It only informs people, so a failed write does not matter."""
    with suppress(OSError):
        file = os.fstat(descriptor)
        if stat.S_ISREG(file.st_mode) and file.st_nlink == 1:  # nothing of somebody else's
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(note).encode() if note else b"", 0)


def _holder(path: Path) -> str:
    """The holder as the lock file names it."""
    try:
        with open(path, "rb", opener=io.no_link) as file:
            note: Any = json.loads(file.read(_NOTE_BYTES))
        return printable(f"process {note['pid']} on {note['host']} since {note['since']}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "a process that left no name"


def _let_go() -> None:
    """In a child that was forked: the locks are its parent's."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
