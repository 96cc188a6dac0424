"""A bell: it rings the moment a file of a known folder is closed, renamed or removed, sooner than the watch tells of it.

The watch (`watchfiles`) wakes at intervals, and twice before it tells a change; who waits for the bell sleeps until the
system wakes it. The bell knows folders that a scan has listed and those that are made in them, and on systems without
inotify it never rings: all that it misses, the watch and the scans find.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from worker.supervision import survived

MOST_FOLDERS = 10_000
"""Beyond so many folders the rest is left to the watch: the system keeps only so many watches for a user."""
MOST_FILES = 64
"""More files at once are left to the watch, which gathers them into one request."""
GATHER_MS, ROUNDS = 1, 10
"""While a file is looked at, and at least for a moment, others are waited for; at most so many times."""

_CLOSED, _MOVED_OUT, _MOVED_IN, _CREATED, _DELETED = 0x8, 0x40, 0x80, 0x100, 0x200
_FOLDER_GONE = 0x400 | 0x800 | 0x2000 | 0x8000  # deleted, moved, unmounted, no longer watched
_OF_FOLDER, _ONLY_FOLDERS = 0x4000_0000, 0x0100_0000
_MASK = _CLOSED | _MOVED_OUT | _MOVED_IN | _CREATED | _DELETED | 0x400 | 0x800 | _ONLY_FOLDERS
# As in inotify(7): watch, what happened, a cookie, the length of the name.
_HEAD = struct.Struct("iIII")
_BYTES = 1 << 16


class Bell:
    """Calls `heard` with the paths of files as they come, and `gathered` once no more did for a moment, in a thread of its own, while it is `running`."""

    def __init__(self, heard: Callable[[list[str]], None], gathered: Callable[[], None]) -> None:
        self._heard, self._gathered = heard, gathered
        self._inotify = -1
        self._folders: dict[int, str] = {}  # by the system's number of their watch
        self._known: set[str] = set()
        self._lock = threading.Lock()

    @property
    def is_there(self) -> bool:
        """Whether it can ring at all."""
        return self._inotify >= 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ring until the block ends."""
        self._inotify = _opened()
        if not self.is_there:
            yield
            return
        ended, end = os.pipe()
        thread = threading.Thread(target=self._run, args=(ended,), name="bell", daemon=True)
        thread.start()
        try:
            yield
        finally:
            os.close(end)
            thread.join()
            with self._lock:
                os.close(self._inotify)
                self._inotify, self._folders, self._known = -1, {}, set()
            os.close(ended)

    def follow(self, folders: Iterable[str]) -> None:
        """Know these folders, too."""
        with self._lock:
            for folder in folders:
                self._add(folder)

    def _add(self, folder: str) -> None:
        if not self.is_there or folder in self._known or len(self._known) >= MOST_FOLDERS:
            return
        watch = _libc().inotify_add_watch(self._inotify, os.fsencode(folder), _MASK)
        if watch >= 0:
            self._known.discard(self._folders.get(watch, ""))  # it was renamed
            self._folders[watch] = folder
            self._known.add(folder)

    def _run(self, ended: int) -> None:
        poll = select.poll()
        for descriptor in (self._inotify, ended):
            poll.register(descriptor, select.POLLIN)
        while ended not in dict(poll.poll()):
            with survived("look at files that the bell told of"):
                self._ring()

    def _ring(self) -> None:
        """Tell of the files that events tell of, until there are no more for a moment."""
        told = 0
        for _ in range(ROUNDS):
            began = time.monotonic()
            files = [*dict.fromkeys(self._read())]
            told += len(files)
            if not told:
                return
            if told > MOST_FILES:
                break
            if files:
                self._heard(files)
            left_s = max(0.0, began + GATHER_MS / 1000 - time.monotonic())
            if not select.select([self._inotify], [], [], left_s)[0]:
                break
        self._gathered()

    def _read(self) -> list[str]:
        """The files of the events that wait. New folders are known from now on, those that are gone no more."""
        files: list[str] = []
        with suppress(BlockingIOError), self._lock:
            for watch, what, name in _events(os.read(self._inotify, _BYTES)):
                folder = self._folders.get(watch)
                if what & _FOLDER_GONE:
                    self._known.discard(self._folders.pop(watch, ""))
                elif folder is not None and name and not what & _OF_FOLDER:
                    files += [f"{folder}/{name}"] if what & ~_CREATED else []
                elif folder is not None and name and what & (_CREATED | _MOVED_IN):
                    files += self._files_of_new(f"{folder}/{name}")
        return files

    def _files_of_new(self, folder: str) -> Iterator[str]:
        """The files that are in a new folder already: the system tells of others from now on."""
        self._add(folder)
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from self._files_of_new(entry.path)
                else:
                    yield entry.path


def _events(content: bytes) -> Iterator[tuple[int, int, str]]:
    """The watch, what happened, and the name of each event; no name for the folder's own, nor for one that is not UTF-8."""
    place = 0
    while place < len(content):
        watch, what, _, length = _HEAD.unpack_from(content, place)
        place += _HEAD.size + length
        name = ""
        with suppress(UnicodeDecodeError):
            name = content[place - length : place].rstrip(b"\0").decode()
        yield watch, what, name


def _opened() -> int:
    """A descriptor of the system's file events; -1 where there are none to be had."""
    try:
        descriptor: int = _libc().inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    except (AttributeError, OSError):  # another system than Linux
        return -1
    return descriptor


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
