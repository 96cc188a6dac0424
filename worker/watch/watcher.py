"""File events -> settled changes -> requests.

An event only says where to look. Requests follow from comparing the present files with the files
seen before; so lost, doubled and reordered events do no harm, and a scan every few seconds finds
changes without events: folders that were filled before their watch was set, queues that overflowed.
A bell tells of files in known folders at once; the watch and the scans find what it misses.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from watchfiles import Change as Event
from watchfiles import watch

from mlforge.core import clock
from mlforge.core.logs import get_logger
from mlforge.sources.row_source import RowSource
from worker.state.pending import PendingRequest, merge_into
from worker.supervision import FAULTS, Heartbeat, noted, pause_after, survived, tell_fault
from worker.watch.bell import Bell
from worker.watch.file_tracker import Change, FileTracker
from worker.watch.polls import Polls
from worker.watch.roots import Roots

STEP_MS, DEBOUNCE_MS, TICK_MS = 5, 50, 200
"""The watch wakes once a step, whether anything happened or not: at 3 ms that is most of what a watcher at rest takes, at 5 ms
a drop is noticed a millisecond later."""
BELL_STEP_MS, BELL_TICK_MS = 200, 400
"""The same where a bell tells of most files: the watch then finds what the bell misses, and wakes less often at rest."""
SCAN_EVERY_S = 5.0
POLL_MS = 300
ANEW_AFTER_S = 2.0
"""How old a watch is, at the least, when another takes its place for what it missed."""
ECHOES_S = (0.05, 0.3, 1.0)
"""When a folder that appeared is walked again: files may come before its own watch is set."""
_SCAN_SHARE, _REST_SHARE, _WHOLE_SHARE = 20, 5, 500
"""Pauses after a scan, in times of its length: before a periodic one, before any other, before one that asks for every file."""
_ROOTS_SHARE = 1_000
"""The same after a look whether the roots exist, while nothing tells of a change."""
_FLOOD = 4_096
"""Events at once after which all is looked at: the system keeps only so many that nobody has read, and drops the rest."""

Request = Callable[[Mapping[str, PendingRequest]], None]
"""Called with the refreshes to request, by their features, of all that was seen in one turn."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """How often to look, and what else to listen to."""

    scan_every_s: float = SCAN_EVERY_S
    polling: bool = False
    hints: str | None = None
    """The URL of a queue that is told of buckets' changes."""


class Watcher:
    """A watcher of features' sources, which requests the features whose files changed."""

    def __init__(
        self,
        sources: Mapping[str, RowSource],
        request: Request,
        timing: Timing = Timing(),
        on_tick: Callable[[], None] = lambda: None,
        on_start: Callable[[], None] = lambda: None,
        on_fault: Callable[[BaseException], None] = lambda _: None,
        why: str = "start",
        unseal: Callable[[str, str], None] = lambda feature, path: None,
    ) -> None:
        trackers = list(_by_source(sources))
        self._trackers = [each for each in trackers if not each.source.is_polled]
        polled = [each for each in trackers if each.source.is_polled]
        self._polls = Polls(polled, timing.hints, unseal)
        self._request = request
        self._timing = timing
        self._on_tick = on_tick
        self._on_start = on_start
        self._on_fault = on_fault
        self._faults = 0
        self._why = why
        self._polling = timing.polling
        self._roots = Roots(self._trackers)
        self._bell = Bell(self._heard, self._hand_on_heard)
        self._looking = threading.RLock()  # the bell has a thread of its own
        self._seen: dict[int, tuple[FileTracker, Change]] = {}
        self._noted: dict[str, PendingRequest] = {}
        self._watched: dict[str, int] = {}
        self._watched_at = 0.0
        self._scan_at: list[float] = []
        self._rests_until = 0.0
        self._whole_at = 0.0
        self._roots_at = 0.0
        self._started = False
        self._forgiving = False
        self._stands = False  # whether the present watch has begun to tell events
        self._untold = False  # whether a scan found a change that no event reported

    @property
    def unlisted(self) -> list[Heartbeat]:
        """The heartbeats of sources that could not be listed when they were last looked into."""
        trackers = (*self._trackers, *self._polls.trackers)
        return [tracker.heartbeat for tracker in trackers if tracker.heartbeat.error]

    @property
    def takes_hints(self) -> bool:
        """Whether a source tells nobody of its changes."""
        return bool(self._polls.trackers)

    def hint(self, addresses: Collection[str]) -> None:
        """Have sources listed soon to which objects of these addresses belong; called from any thread."""
        self._polls.hint(addresses)

    def run(self, stop: threading.Event) -> None:
        """Watch until `stop` is set. Every feature is requested once at the start."""
        ringing = nullcontext() if self._polling else self._bell.running()
        with self._polls.running(self._timing.scan_every_s), ringing:
            self._run(stop)

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self._stands = False
            try:
                self._watch(stop)
            except FileNotFoundError:  # a root went just now
                continue
            except PermissionError as error:
                if self._forgiving:
                    self._poll(error)
                self._forgiving = True  # then the limit of watches is passed in silence, too
            except OSError as error:  # the limit of watches
                self._poll(error)
            except RuntimeError as error:
                if isinstance(error, RecursionError | NotImplementedError):
                    self._pause(error, stop)
                elif not self._stands and not self._polling:  # the limit of instances
                    self._poll(error)
                else:  # a name that is not UTF-8 ends a watch
                    log.warning("file events interrupted: watching anew", error=str(error))
                    with survived("look at the sources"):
                        self._tick()
                    stop.wait(TICK_MS / 1000)
            except FAULTS as error:
                self._pause(error, stop)

    def _pause(self, error: BaseException, stop: threading.Event) -> None:
        """Log an unexpected fault of the watch, and wait a while before the next try."""
        self._faults += 1
        self._on_fault(error)
        tell_fault("watch sources", error)
        stop.wait(pause_after(self._faults))

    def _poll(self, error: Exception) -> None:
        log.warning("no file events to be had: polling instead", error=str(error), every_ms=POLL_MS)
        self._polling = True

    def _watch(self, stop: threading.Event) -> None:
        """Watch the roots that exist now; returns when the set of existing roots changes, or a root is replaced."""
        self._roots = Roots(self._trackers)
        self._watched, self._untold = self._roots.existing(), False
        self._watched_at = time.monotonic()
        if not self._watched:
            self._tick(scan=True)
            stop.wait(TICK_MS / 1000)
            return
        step_ms = BELL_STEP_MS if self._bell.is_there else STEP_MS
        # What polls find is handed on at a tick.
        may_rest = self._bell.is_there and not self._polls.trackers
        events = watch(
            *self._watched,
            watch_filter=None,
            debounce=DEBOUNCE_MS,
            step=step_ms,
            stop_event=stop,
            rust_timeout=BELL_TICK_MS if may_rest else TICK_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
            force_polling=self._polling,
            poll_delay_ms=POLL_MS,
            ignore_permission_denied=self._forgiving,
        )
        for batch in events:
            # What came before the watch stood is seen by the scan.
            scan, self._stands = not self._stands, True
            with self._looking:
                self._look_at(batch)
                self._hand_on()
            self._tick(scan)
            self._untold = self._untold and not scan
            if self._are_others(bool(batch)) or self._has_holes():
                return

    def _are_others(self, told: bool) -> bool:
        """Whether the existing roots are others than those that are watched; looked up after events, else now and then."""
        began = time.monotonic()
        if not told and began < self._roots_at:
            return False
        existing = self._roots.existing()
        ended = time.monotonic()
        self._roots_at = ended + _ROOTS_SHARE * (ended - began)
        return existing != self._watched

    def _has_holes(self) -> bool:
        """Whether some folders may be without a watch, since a scan found a change that no event reported.

        A new watch covers them, unless the system reports that its watches are used up.
        """
        young = time.monotonic() - self._watched_at < ANEW_AFTER_S
        return self._untold and not young and not self._polling

    def _heard(self, files: Collection[str]) -> None:
        """Look at files that the bell tells of. What this finds is no news once the watch tells of it."""
        with self._looking:
            self._look_at({(Event.modified, file) for file in files})

    def _hand_on_heard(self) -> None:
        """Request what files that the bell told of have changed: together, as several of a drop would make a job each."""
        with self._looking:
            self._hand_on()

    def _look_at(self, batch: Collection[tuple[Event, str]]) -> None:
        now_us, now_s = clock.now(), time.monotonic()
        if len(batch) >= _FLOOD:  # more than that may have been lost
            self._whole_at = now_s
            self._scan_at += [now_s, *(now_s + echo for echo in ECHOES_S)]
        events: dict[int, list[tuple[Event, Path]]] = defaultdict(list)
        concerned: dict[int, FileTracker] = {}
        for kind, path in batch:
            for tracker in self._roots.concerned(path):
                concerned[id(tracker)] = tracker
                events[id(tracker)].append((kind, Path(path)))
        for key, tracker in concerned.items():
            with survived("look at files of a source", source=tracker.source.text):
                for kind, place_of_event in events[key]:
                    place = tracker.locate(place_of_event)
                    if place is not None and tracker.takes(place):
                        if later := tracker.glance(place, now_us, now_s):
                            _, before = self._seen.get(key, (tracker, None))
                            self._seen[key] = tracker, later.and_then(before)
                    elif kind is not Event.modified and tracker.concerns_folder(place_of_event):
                        self._scan_at += [now_s, *(now_s + echo for echo in ECHOES_S)]

    def _tick(self, scan: bool = False) -> None:
        with self._looking:
            now_s = time.monotonic()
            due = not self._scan_at or min(self._scan_at) <= now_s >= self._rests_until
            if scan or due:
                self._scan()
            else:
                for tracker in self._trackers:
                    if tracker.unfinished:
                        self._note(tracker, tracker.settle(clock.now(), now_s), is_told=True)
            for tracker, change in self._polls.taken() if self._started else ():
                self._note(tracker, change)
            self._hand_on()
        self._on_tick()
        self._faults = 0

    def _scan(self) -> None:
        """Look at all that is there. Folders as they were are passed over, but for a whole look now and then."""
        began = time.monotonic()
        whole, moved = began >= self._whole_at, False
        for tracker in self._trackers:
            with noted(tracker.heartbeat, "look into a source", source=tracker.source.text):
                if not tracker.source.roots:
                    continue  # a feature's versions, which the reconciler compares
                if not whole and tracker.has_same_folders():
                    continue
                roots = tracker.source.roots
                change = tracker.look(tracker.scan(), clock.now(), time.monotonic())
                moved = moved or tracker.source.roots != roots
                self._untold = self._untold or change is not None
                self._note(tracker, change)
                self._hand_on()  # a scan of others may take its time
                self._bell.follow(tracker.folders or ())
        if moved:
            self._roots = Roots(self._trackers)
        if not self._started:
            self._started = True
            trackers = (*self._trackers, *self._polls.trackers)
            features = [feature for tracker in trackers for feature in tracker.features]
            self._request(dict.fromkeys(features, PendingRequest(self._why)))
            self._on_start()
        ended = time.monotonic()
        # A scan of very many files takes its time: it must not become all that is done.
        pause = max(self._timing.scan_every_s, _SCAN_SHARE * (ended - began))
        if whole:
            self._whole_at = ended + max(pause, _WHOLE_SHARE * (ended - began))
            pause = self._timing.scan_every_s
        self._rests_until = ended + _REST_SHARE * (ended - began)
        self._scan_at = [at for at in self._scan_at if at > ended] + [ended + pause]

    def _note(self, tracker: FileTracker, change: Change | None, *, is_told: bool = False) -> None:
        """Note that the features of a changed source are to be refreshed, until they are handed on.

        is_told: an event told of the change. Only then its files are named: what a scan has to find shows that events are
        missed here, as on disks that other hosts write to, and refreshes are to look at all that is there.
        """
        if change is None or not self._started:  # the first scan only learns what is there
            return
        named = change.paths if is_told and not self._polling else None
        of_rows = PendingRequest(str(change), change.closed_at, paths=named)
        of_tables = replace(of_rows, paths=None)
        by_feature = {f: of_rows if f in tracker.of_rows else of_tables for f in tracker.features}
        merge_into(self._noted, by_feature)

    def _hand_on(self) -> None:
        """Request all that was seen and noted together."""
        seen, self._seen = self._seen, {}
        for tracker, change in seen.values():
            self._note(tracker, change, is_told=True)
        noted, self._noted = self._noted, {}
        if noted:
            self._request(noted)


def _by_source(sources: Mapping[str, RowSource]) -> Iterator[FileTracker]:
    """Features that share a source share its tracker."""
    grouped: dict[RowSource, list[str]] = {}
    for feature, source in sources.items():
        grouped.setdefault(source.rows, []).append(feature)
        for _, table in source.tables:
            grouped.setdefault(table, []).append(feature)
    for source, features in grouped.items():
        of_rows = frozenset(feature for feature in features if sources[feature].rows == source)
        yield FileTracker(source, tuple(features), of_rows)
