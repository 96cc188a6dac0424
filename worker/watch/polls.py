"""Sources that tell nobody of their changes, such as prefixes of buckets: they are listed again and again, in a thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from mlforge.core import clock
from worker.supervision import survived
from worker.watch.file_tracker import Change, FileTracker

_SHARE = 10
"""The pause after a listing, in times of its length."""
_LISTED = Change({"listed": 1}, "source")
"""The news of a first listing: a file may have come between it and the refresh that every feature has at the start."""


class Polls:
    """Trackers of such sources. A listing that takes long, or gets no answer, keeps nobody else waiting."""

    def __init__(self, trackers: Iterable[FileTracker]) -> None:
        self.trackers = tuple(trackers)
        self._changes: deque[tuple[FileTracker, Change]] = deque()

    @contextmanager
    def running(self, every_s: float) -> Iterator[None]:
        """Listings at intervals, for as long as the block runs."""
        stop = threading.Event()
        threads = [
            threading.Thread(
                target=self._poll, args=(tracker, every_s, stop), name="poll", daemon=True
            )
            for tracker in self.trackers
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()

    def taken(self) -> Iterator[tuple[FileTracker, Change]]:
        """The changes since the last call."""
        while self._changes:
            yield self._changes.popleft()

    def _poll(self, tracker: FileTracker, every_s: float, stop: threading.Event) -> None:
        is_first = True
        while not stop.is_set():
            began = time.monotonic()
            with survived("look into a source", source=tracker.source.text):
                change = tracker.look(tracker.scan(), clock.now(), time.monotonic())
                if change is not None or is_first:
                    self._changes.append((tracker, change or _LISTED))
                is_first = False
            stop.wait(max(every_s, _SHARE * (time.monotonic() - began)))
