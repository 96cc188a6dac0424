"""Compares what is with what should be, and requests the difference.

Each second: work that nobody will do (a dead worker's, a lost job's, a failure whose pause is over).
Every few seconds: rows online that are behind the latest version or behind the clock, rows whose
time to live needs renewing, rows that were lost, rows of features that are gone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from redis.exceptions import RedisError

from mlforge.errors import MlforgeError
from mlforge.online import OnlineStore
from mlforge.store import Store
from worker.project import Project
from worker.queue import JobQueue, enqueue
from worker.queue.requests import Requests
from worker.state.work_queue import Ticket, at_rest, orphaned, overdue

TICK_S = 1.0
COMPARE_EVERY_S = 5.0
COUNT_EVERY_S = 10.0
"""How often the rows of one feature are counted, each feature in its turn."""
_COUNT_SHARE = 100
"""The pause after a count, in times of its length: a count looks at every key of the server."""
LOST_AFTER_S = 4.0
"""A queued job that has been out of the queue so long, and has not begun, is lost."""

log = structlog.get_logger()


@dataclass
class Reconciler:
    """Does in a thread what the module says; `run` returns when `stop` is set."""

    project: Project
    requests: Requests
    behind: Callable[[Store, OnlineStore, str], str | None]
    audit: Callable[[list[Ticket]], None] = lambda _: None
    since: int = 1
    _missing: dict[str, float] = field(default_factory=dict)
    _held: set[str] = field(default_factory=set)
    _compared_at: float = float("-inf")
    _count_at: float = float("-inf")
    _to_count: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        """Reconcile until `stop` is set; outages and faults are logged, and the next tick tries again."""
        while not stop.wait(TICK_S):
            try:
                self.tick(time.monotonic())
            except RedisError as error:
                log.warning("server away", error=str(error))
            except (MlforgeError, OSError) as error:
                log.error("cannot reconcile", error=str(error))

    def tick(self, now_s: float) -> None:
        """One round."""
        self.requests.flush()
        self.project.stay_current(self.since)
        counts = self.requests.counts()
        tickets = self.project.tickets.read(self.project.definitions.features)
        self.requests.repeat(tickets, counts)
        self._resume(tickets, now_s)
        ttl = self.project.online.ttl or float("inf")
        if now_s - self._compared_at >= min(COMPARE_EVERY_S, ttl / 8):
            self._compared_at = now_s
            with self.project.common_clock():
                self._compare(tickets)
            self._drop_gone()
        if now_s >= self._count_at:
            began = time.monotonic()
            self._count_next()
            self._count_at = now_s + max(COUNT_EVERY_S, _COUNT_SHARE * (time.monotonic() - began))
        self.audit(tickets)

    def _resume(self, tickets: list[Ticket], now_s: float) -> None:
        """New jobs for work that was left lying."""
        if not any(ticket.behind for ticket in tickets):
            self._missing.clear()
            return
        waiting = JobQueue(self.project.redis).waiting()
        now_us = self.project.tickets.now()
        missing = {t.queued for t in tickets if t.queued is not None and t.queued not in waiting}
        self._missing = {job: self._missing.get(job, now_s) for job in missing}
        for ticket in tickets:
            if orphaned(ticket):
                assert ticket.working is not None
                log.warning("worker died at work", feature=ticket.feature, job=ticket.working)
                self.project.tickets.died(ticket.feature, ticket.working, "its worker died at work")
                continue
            since = self._missing.get(ticket.queued or "", now_s)
            if overdue(ticket, now_us, lost=now_s - since >= LOST_AFTER_S):
                log.info("taken up again", feature=ticket.feature, after=ticket.error)
                enqueue(self.project, ticket.feature, self.project.tickets.requeue(ticket))

    def _compare(self, tickets: list[Ticket]) -> None:
        """Request what is behind, unless somebody is about to see to it."""
        now_us = self.project.tickets.now()
        for ticket in tickets:
            if not at_rest(ticket, now_us):
                continue
            store, online = self.project.definitions.store, self.project.online
            reason = self._released(ticket.feature) or self.behind(store, online, ticket.feature)
            if reason is not None and ticket.parked:
                # Its refresh will fail again, but what it serves is pushed all the same.
                enqueue(self.project, ticket.feature, self.project.tickets.requeue(ticket))
            elif reason is not None:
                self.requests.remind(ticket.feature, reason)

    def _count_next(self) -> None:
        """Note in a feature's books if rows are missing, which no server tells: somebody deleted them."""
        online = self.project.online
        self._to_count = self._to_count or sorted(self.project.definitions.features)
        feature = self._to_count.pop()
        before = online.books(feature)
        if before is None or before.target is None or before.pending:
            return
        missing = before.rows - online.count_other_rows(feature, frozenset())
        if missing > 0 and online.books(feature) == before:
            log.warning("rows are missing online", feature=feature, missing=missing)
            online.mark_incomplete(feature, before)

    def _released(self, feature: str) -> str | None:
        """A hold that a person has lifted since the last look."""
        held = self.project.definitions.store.books(feature).hold is not None
        was_held = feature in self._held
        (self._held.add if held else self._held.discard)(feature)
        return "no longer held" if was_held and not held else None

    def _drop_gone(self) -> None:
        """Delete the rows of features that the definitions no longer have."""
        if not self.project.is_current():
            return
        store = self.project.online
        for feature in self.project.owned() - set(self.project.definitions.features):
            store.drop(feature)
            self.project.disown(feature)
            self.project.journal.write("dropped", feature)
            log.info("feature is gone: its rows are dropped", feature=feature)
