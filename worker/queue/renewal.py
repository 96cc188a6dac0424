"""Renewal of a lease while its job is at work, by a thread that the process keeps.

A thread for each job would have to be waited for until the system first runs it, amid each drop, and on busy cores that takes
milliseconds.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache

from mlforge.core.logs import get_logger
from worker.state.work_queue import RENEW_S, Lease, WorkQueue
from worker.supervision import survived

log = get_logger(__name__)


@dataclass(eq=False, slots=True)
class _Held:
    """A lease in hand, and when it is to be renewed, by the monotonic clock."""

    work_queue: WorkQueue
    lease: Lease
    due_s: float


@dataclass
class Renewer:
    """A thread that renews the lease in hand, started with the first one.

    Leases that come and go before one is due do not wake it: each time it would take its turn amid the work.
    """

    _changed: threading.Condition = field(default_factory=threading.Condition)
    _held: _Held | None = None
    _thread: threading.Thread | None = None
    _is_resting: bool = False

    @contextmanager
    def renewing(self, work_queue: WorkQueue, lease: Lease) -> Iterator[None]:
        """Renew the lease for as long as the block runs."""
        self._hold(_Held(work_queue, lease, time.monotonic() + RENEW_S))
        try:
            yield
        finally:
            self._hold(None)

    def _hold(self, held: _Held | None) -> None:
        with self._changed:
            self._held = held
            if held is not None and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
                self._thread.start()
            elif held is not None and self._is_resting:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            self._renew(self._next_due())

    def _next_due(self) -> _Held:
        """The lease in hand, once it is due."""
        with self._changed:
            while True:
                held, now = self._held, time.monotonic()
                if held is not None and held.due_s <= now:
                    held.due_s = now + RENEW_S
                    return held
                self._is_resting = held is None
                self._changed.wait(None if held is None else held.due_s - now)

    def _renew(self, held: _Held) -> None:
        feature, job = held.lease.feature, held.lease.job
        with survived("renew the lease", feature=feature):
            if held.work_queue.renew(feature, job):
                return
            with self._changed:
                if self._held is not held:
                    return  # it was given back while it was renewed
                self._held = None
            log.warning("lease lost: another worker may take over", feature=feature)


def renewing(work_queue: WorkQueue, lease: Lease) -> AbstractContextManager[None]:
    """Renew the lease, by the thread of this process, for as long as the block runs."""
    return _of_process().renewing(work_queue, lease)


@cache
def _of_process() -> Renewer:
    return Renewer()


# A fork has none of its parent's threads.
os.register_at_fork(after_in_child=_of_process.cache_clear)
