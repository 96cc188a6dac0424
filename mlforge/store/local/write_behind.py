"""Files of a version in the making that threads write and sync; events are read from memory meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache

from mlforge.store.file_tasks import Kept

_WRITERS = 2  # at a time: encoding takes a core, syncing none
_NONE: Mapping[str, Kept] = {}


class WriteBehind:
    """Writes under way. kept: the rows that their files will hold, and those of others that somebody has just read, by file.

    Whoever holds the feature's lock begins and settles them. All others only wait, whether a thread that reads or a part of the same
    refresh that does without what it cannot read: neither a write nor its error is taken from the one who publishes.
    """

    def __init__(self) -> None:
        self._under_way: list[Future[None]] = []
        self.kept: dict[str, Kept] = {}
        self._afterwards: list[Callable[[], None]] = []

    def begin(self, write: Callable[[], None], kept: Mapping[str, Kept] = _NONE) -> None:
        """Begin to write; at once and in this thread where no other can be started. kept: the rows of files that are written."""
        try:
            self._under_way.append(_threads().submit(copy_context().run, write))
        except RuntimeError:
            write()
        else:
            self.kept |= kept

    def afterwards(self, action: Callable[[], None]) -> None:
        """Do something that relies on what is being written, once all of it is there; at once where nothing is under way."""
        if self._under_way:
            self._afterwards.append(action)
        else:
            action()

    def wait(self) -> None:
        """Return once all is written. Raises the error of a write that failed, as it does at each call until the lock is given back."""
        writes = self._under_way
        wait(writes)
        for write in writes:
            write.result()

    def settle(self) -> None:
        """Wait until all is written, then do what was to follow; raises as `wait` does: then nothing follows."""
        self.wait()
        actions = self._afterwards
        self._forget()
        for action in actions:
            action()

    @contextmanager
    def settled(self) -> Iterator[None]:
        """All is written when the block ends; an error of the block comes first."""
        try:
            yield
            self.settle()
        finally:
            wait(self._under_way)
            self._forget()

    def _forget(self) -> None:
        """Know of nothing that is written any more."""
        self._under_way, self.kept, self._afterwards = [], {}, []


@cache
def _threads() -> ThreadPoolExecutor:
    """Threads of their own: a write waits for the checksum that another thread computes."""
    return ThreadPoolExecutor(_WRITERS, "mlforge-write")


os.register_at_fork(after_in_child=_threads.cache_clear)  # a fork has none of its parent's threads
