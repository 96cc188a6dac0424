"""Files of a version in the making that threads write and sync; events are read from memory meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import cache

from mlforge.store.file_tasks import Kept

_WRITERS = 2  # at a time: encoding takes a core, syncing none
_NONE: Mapping[str, Kept] = {}


class WriteBehind:
    """Writes under way. kept: the rows that their files will hold, by file."""

    def __init__(self) -> None:
        self._under_way: list[Future[None]] = []
        self.kept: dict[str, Kept] = {}
        self._afterwards: list[Callable[[], None]] = []

    def begin(self, write: Callable[[], None], kept: Mapping[str, Kept] = _NONE) -> None:
        """Begin to write; at once and in this thread where no other can be started. kept: the rows of files that are written."""
        try:
            self._under_way.append(_threads().submit(write))
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

    def settle(self) -> None:
        """Wait until all is written, then do what was to follow. Raises the error of a write that failed: then nothing follows."""
        if not self._under_way:
            return
        writes, actions = self._under_way, self._afterwards
        self._under_way, self.kept, self._afterwards = [], {}, []
        wait(writes)
        for write in writes:
            write.result()
        for action in actions:
            action()

    @contextmanager
    def settled(self) -> Iterator[None]:
        """All is written when the block ends; an error of the block comes first."""
        try:
            yield
        except BaseException:
            with suppress(Exception):
                self.settle()
            raise
        self.settle()


@cache
def _threads() -> ThreadPoolExecutor:
    """Threads of their own: a write waits for the checksum that another thread computes."""
    return ThreadPoolExecutor(_WRITERS, "mlforge-write")


os.register_at_fork(after_in_child=_threads.cache_clear)  # a fork has none of its parent's threads
