"""Sources that tell nobody of their changes, such as prefixes of buckets: they are listed again and again, in a thread each.

A hint, where there are any, has a source listed sooner.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mlforge.core import clock
from mlforge.store.addresses import as_path
from worker.supervision import FAULTS, noted, survived
from worker.watch.file_tracker import Change, FileTracker
from worker.watch.hints import Hints

_SHARE = 10
"""The pause after a listing, in times of its length."""
HINTED_EVERY_S = 60.0
"""How often a source that hints tell of is listed at the least while a queue of hints is heard."""
_LISTED = Change({}, "first look into the source")
"""The news of a first listing, which no file stands for: a file may have come between it and the refresh that every feature has at the start."""


@dataclass
class _Poll:
    """A tracker, and the paths that hints have named since its last listing.

    late: those of objects that a refresh may not list by itself. is_first: whether no listing has ended yet.
    """

    tracker: FileTracker
    is_hinted: threading.Event = field(default_factory=threading.Event)
    paths: deque[str] = field(default_factory=deque)
    late: set[str] = field(default_factory=set)
    is_first: bool = True

    def hint(self, path: str) -> None:
        """Note a path, and end the pause before the next listing."""
        self.paths.append(path)
        self.is_hinted.set()

    def taken(self) -> set[str]:
        """The named paths, each once."""
        self.is_hinted.clear()
        paths = set[str]()
        while self.paths:
            paths.add(self.paths.popleft())
        return paths


class Polls:
    """Trackers of such sources. A listing that takes long, or gets no answer, keeps nobody else waiting.

    queue: the URL of a queue of hints. unseal: called with a feature and the path of an object that a hint named in a partition
    that is not listed any more.
    """

    def __init__(
        self,
        trackers: Iterable[FileTracker],
        queue: str | None = None,
        unseal: Callable[[str, str], None] = lambda feature, path: None,
    ) -> None:
        self.trackers = tuple(trackers)
        self._polls = [_Poll(tracker) for tracker in self.trackers]
        self._hints = Hints(queue, self.hint, self._wake) if queue and self.trackers else None
        self._unseal = unseal
        self._changes: deque[tuple[FileTracker, Change]] = deque()

    @contextmanager
    def running(self, every_s: float) -> Iterator[None]:
        """Listings at intervals, for as long as the block runs."""
        stop = threading.Event()
        threads = [
            threading.Thread(
                target=self._poll, args=(poll, every_s, stop), name="poll", daemon=True
            )
            for poll in self._polls
        ]
        if self._hints is not None:
            listening = self._hints.run
            threads.append(
                threading.Thread(target=listening, args=(stop,), name="hints", daemon=True)
            )
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            self._wake()

    def taken(self) -> Iterator[tuple[FileTracker, Change]]:
        """The changes since the last call."""
        while self._changes:
            yield self._changes.popleft()

    def hint(self, addresses: Collection[str]) -> None:
        """Have the sources listed that objects of these addresses belong to."""
        for address in addresses:
            place = as_path(address)
            if place is None:
                continue
            for poll in self._polls:
                source = poll.tracker.source
                path = source.path_of(place) if source.matches(place) else None
                if path is not None:
                    poll.hint(path)
                elif source.feeds(place):  # of a table
                    poll.is_hinted.set()

    def _wake(self) -> None:
        """End all pauses between listings."""
        for poll in self._polls:
            poll.is_hinted.set()

    def _poll(self, poll: _Poll, every_s: float, stop: threading.Event) -> None:
        while not stop.is_set():
            began = time.monotonic()
            self._round(poll)
            took = time.monotonic() - began
            stop.wait(took)  # whatever comes in meanwhile is seen by one listing
            poll.is_hinted.wait(max(self._every(poll, every_s), _SHARE * took) - took)

    def _round(self, poll: _Poll) -> None:
        """List a source, and have refreshes list all of it where a hint named what they may not see."""
        tracker = poll.tracker
        with noted(tracker.heartbeat, "look into a source", source=tracker.source.text):
            change = _look(poll)
            if change is not None or poll.is_first:
                self._changes.append((tracker, change or _LISTED))
            poll.is_first = False
        if late := sorted(poll.late):
            with survived("have a source listed as a whole", source=tracker.source.text):
                self._unseal_of(tracker, late[0])
                poll.late.clear()

    def _every(self, poll: _Poll, every_s: float) -> float:
        are_heard = self._hints is not None and self._hints.are_heard
        if are_heard and poll.tracker.source.is_told_of:
            return max(every_s, HINTED_EVERY_S)
        return every_s

    def _unseal_of(self, tracker: FileTracker, path: str) -> None:
        """Have the next refreshes list all of a source, and ask for them."""
        for feature in tracker.features:
            self._unseal(feature, path)
        self._changes.append((tracker, Change({"came late": 1}, path)))


def _look(poll: _Poll) -> Change | None:
    """List a source. Of hinted paths whose partitions' time is over, and of what the listing found itself, it notes what is not as it was.

    Whether a refresh lists these partitions is not known here: it may have sealed them sooner than this listing does.
    """
    tracker, paths = poll.tracker, poll.taken()
    try:
        over = [path for path in paths if tracker.source.is_sealed(path, clock.now())]
        before = {path: tracker.known.get(path) for path in over}
        if any(map(tracker.is_changed_though_sealed, over)):
            tracker.sealed_until = 0
        change = tracker.look(tracker.scan(), clock.now(), time.monotonic())
    except FAULTS:
        poll.paths.extend(paths)  # no answer: they are looked into with the next listing
        raise
    poll.late.update(path for path in over if tracker.known.get(path) != before[path])
    if change is not None and tracker.source.is_sealed(change.example, clock.now()):
        poll.late.add(change.example)
    return change
