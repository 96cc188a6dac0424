"""The reconciler: it compares the actual state with the desired one, and requests the difference.

Each second: work that nobody will do (a dead worker's, a lost job's, a failure whose pause is over).
Every few seconds: rows online that are behind the latest version or behind the clock, rows whose
time to live needs renewing, rows that were lost, rows of features that are gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mlforge.core import clock
from mlforge.core.logs import get_logger
from mlforge.definitions.keeping import keeper_elsewhere
from mlforge.errors import OwnedElsewhere
from mlforge.online.staleness import OnlineView, SeenAtOnce
from mlforge.store import Books, Store
from worker.project import Project
from worker.queue import JobQueue, enqueue
from worker.queue.cascade import has_moved
from worker.queue.requests import Requests
from worker.reconcile.service_keeper import ServiceKeeper
from worker.state.ticket import Ticket, idle, orphaned, overdue
from worker.supervision import survived

TICK_S = 1.0
COMPARE_EVERY_S = 5.0
COMPARE_EVERY_S_A_FEATURE = 0.04
"""With more than 125 features they are compared less often, so that it takes about half a percent of a core."""
REMIND_AT_LEAST_EVERY_S = 60.0
"""The longest pause between requests of a feature that a refresh does not bring up to date."""
COUNT_EVERY_S = 10.0
"""How often the rows of all features are counted."""
COUNT_RESTS_S, COUNT_WAITS_S = 3.0, 60.0
"""How long nothing must have been at work before a count, which drops would wait for; and how long it is put off for that at most."""
_COUNT_SHARE = 100
"""The pause after a count, in times of its length: a count looks at every key of the server."""
UNFORGOTTEN_AFTER_S = 60.0
"""The time that a `mlforge forget` has before what is left of it is taken up here."""
LOST_AFTER_S = 4.0
"""A queued job that has been out of the queue so long, and has not begun, is lost."""

MOVED = "its source serves another version"
UNFORGOTTEN = "rows of forgotten entities may be left"
LET_GO = "other definitions keep it no longer"

log = get_logger(__name__)


@dataclass
class _Reminder:
    """How often a feature was requested in a row that was behind again after each: the pauses grow."""

    times: int = 0
    next_s: float = float("-inf")

    def due(self, now_s: float) -> bool:
        """Whether another request has its turn now, which is counted then."""
        if now_s < self.next_s:
            return False
        pause = min(COMPARE_EVERY_S * 2**self.times, REMIND_AT_LEAST_EVERY_S)
        self.times, self.next_s = min(self.times + 1, 10), now_s + pause
        return True


@dataclass
class Reconciler:
    """The reconciler of one project; `tick` is one round of it."""

    project: Project
    requests: Requests
    behind: Callable[[Store, OnlineView, str, Books], str | None]
    audit: Callable[[list[Ticket]], None] = lambda _: None
    since: int = 1
    _missing: dict[str, float] = field(default_factory=dict)
    _held: set[str] = field(default_factory=set)
    _elsewhere: set[str] = field(default_factory=set)
    _compare_at: float = float("-inf")
    _count_at: float | None = None
    _busy_at: float = float("-inf")
    _tickets: list[Ticket] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)
    _resting: bool = False
    _reminded: dict[str, _Reminder] = field(default_factory=dict)
    _unforgotten: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._services = ServiceKeeper(self.project)

    def tick(self, now_s: float) -> None:
        """Do one round. A fault of one feature, or of a step, keeps no other from its turn.

        Raises RedisError where the server cannot be asked.
        """
        self.requests.flush()
        self.project.stay_current(self.since)
        ttl = self.project.online.ttl or float("inf")
        compare = now_s >= self._compare_at
        tickets = self._read_tickets(now_s, afresh=compare)
        if compare:
            pause = max(COMPARE_EVERY_S, COMPARE_EVERY_S_A_FEATURE * len(tickets))
            self._compare_at = now_s + min(pause, ttl / 8)
            with self.project.common_clock():
                self._compare(tickets, now_s)
            with survived("drop features that are gone"):
                self._replace_unreadable_lists()
                self._drop_gone()
            self._services.look()
        if self._is_count_due(tickets, now_s):
            began = time.monotonic()
            with survived("count the rows online"):
                self._count()
            self._count_at = now_s + max(COUNT_EVERY_S, _COUNT_SHARE * (time.monotonic() - began))
        with survived("audit"):
            self.audit(tickets)

    def _read_tickets(self, now_s: float, afresh: bool) -> list[Ticket]:
        """All tickets; those of the last look where nobody was at work then, and nothing was requested since.

        With hundreds of features a look costs as much as all the rest of an idle project.
        """
        counts = self.requests.counts()
        if self._resting and counts == self._counts and not afresh:
            return self._tickets
        tickets = self.project.work_queue.read(self.project.definitions.features)
        self._tickets, self._counts = tickets, counts
        self._resting = all(
            not (t.behind or t.leased or t.unreadable) and t.wanted >= counts.get(t.feature, 0)
            for t in tickets
        )
        self._replace_unreadable(tickets)
        self.requests.repeat(tickets, counts)
        self._resume(tickets, now_s)
        return tickets

    def _replace_unreadable(self, tickets: list[Ticket]) -> None:
        """Replace unreadable tickets by new ones: a ticket only records whether there is work to do."""
        for ticket in tickets:
            if ticket.unreadable is not None:
                log.error(
                    "ticket unreadable: it is made anew",
                    feature=ticket.feature,
                    error=ticket.unreadable,
                )
                self.project.work_queue.forget(ticket.feature)
                self.requests.remind(ticket.feature, "its ticket could not be read")

    def _resume(self, tickets: list[Ticket], now_s: float) -> None:
        """New jobs for work that was left lying."""
        if not any(ticket.behind for ticket in tickets):
            self._missing.clear()
            return
        waiting = JobQueue(self.project.redis, self.project.scope).waiting()
        now_us = self.project.work_queue.now()
        missing = {t.queued for t in tickets if t.queued is not None and t.queued not in waiting}
        self._missing = {job: self._missing.get(job, now_s) for job in missing}
        for ticket in tickets:
            with survived("take work up again", feature=ticket.feature):
                since = self._missing.get(ticket.queued or "", now_s)
                self._resume_one(ticket, now_us, lost=now_s - since >= LOST_AFTER_S)

    def _resume_one(self, ticket: Ticket, now_us: int, lost: bool) -> None:
        if orphaned(ticket):
            assert ticket.working is not None
            log.warning("worker died at work", feature=ticket.feature, job=ticket.working)
            self.project.work_queue.died(ticket.feature, ticket.working, "its worker died at work")
        elif overdue(ticket, now_us, lost):
            log.info("taken up again", feature=ticket.feature, after=ticket.error)
            enqueue(self.project, ticket.feature, self.project.work_queue.requeue(ticket))

    def _compare(self, tickets: list[Ticket], now_s: float) -> None:
        """Request features that are behind, unless work on them is due anyway."""
        now_us = self.project.work_queue.now()
        resting = [ticket for ticket in tickets if idle(ticket, now_us)]
        online = SeenAtOnce(self.project.online, [ticket.feature for ticket in resting])
        with survived("look for what forgetting has left"):
            unfinished = self.project.definitions.store.forgotten().unfinished
            self._unforgotten = {name: self._unforgotten.get(name, now_s) for name in unfinished}
        for ticket in resting:
            with survived("compare a feature with its rows online", feature=ticket.feature):
                self._compare_one(ticket, online, now_s, rests=ticket.rests(now_us))

    def _compare_one(
        self, ticket: Ticket, online: OnlineView, now_s: float, *, rests: bool
    ) -> None:
        store = self.project.definitions.store
        noted = store.books(ticket.feature)
        held = noted.hold is not None
        released = self._released(ticket.feature, held)
        let_go = self._is_let_go(ticket.feature)
        moved = not (held or rests) and self._has_moved(ticket.feature)
        reason = (
            released
            or self._left_of_forgetting(ticket.feature, now_s)
            or (LET_GO if let_go else MOVED if moved else None)
            or self.behind(store, online, ticket.feature, noted)
        )
        if reason is None:
            self._reminded.pop(ticket.feature, None)
            return
        is_due = self._reminded.setdefault(ticket.feature, _Reminder()).due(now_s)
        if not is_due and not let_go:
            return
        if moved or let_go:
            self.requests(ticket.feature, reason, None)
        elif ticket.parked or (rests and ticket.behind):
            # Its refresh would fail again, or is not due yet, but what it serves is pushed all the same.
            enqueue(self.project, ticket.feature, self.project.work_queue.requeue(ticket))
        else:
            self.requests.remind(ticket.feature, reason)

    def _left_of_forgetting(self, feature: str, now_s: float) -> str | None:
        """That a feature may hold rows of forgotten entities, and has for so long that whoever forgot them is no longer at work."""
        since = self._unforgotten.get(feature, now_s)
        return UNFORGOTTEN if now_s - since >= UNFORGOTTEN_AFTER_S else None

    def _is_let_go(self, feature: str) -> bool:
        """Whether other definitions, which kept the feature at the last look, keep it no longer: a refresh may do by now."""
        if not self.project.definitions.partial:
            return False
        was_elsewhere = feature in self._elsewhere
        is_elsewhere = keeper_elsewhere(self.project.definitions, feature) is not None
        (self._elsewhere.add if is_elsewhere else self._elsewhere.discard)(feature)
        return was_elsewhere and not is_elsewhere

    def _has_moved(self, feature: str) -> bool:
        """Whether the feature that this one is made from serves parts that nobody is about to bring here.

        A job that publishes a version requests its readers itself, with the time at which the drop was closed.
        """
        upstream = self.project.definitions.feature(feature).upstream
        if upstream is None or not has_moved(self.project, feature):
            return False
        work_queue = self.project.work_queue
        now_us = work_queue.now()
        at_rest = all(idle(ticket, now_us) for ticket in work_queue.read([feature, upstream]))
        return at_rest and has_moved(self.project, feature)

    def _is_count_due(self, tickets: list[Ticket], now_s: float) -> bool:
        """Whether the rows are to be counted now: it is time to, and nothing is at work, or has been for long."""
        if any(ticket.leased or ticket.queued is not None for ticket in tickets):
            self._busy_at = now_s
        if self._count_at is None:
            self._count_at = now_s
        has_rested = now_s >= max(self._count_at, self._busy_at + COUNT_RESTS_S)
        return has_rested or now_s >= self._count_at + COUNT_WAITS_S

    def _count(self) -> None:
        """Note missing rows in the features' books; a server does not report keys that a client deleted."""
        online = self.project.online
        if not online.counts_cheaply:
            return
        before = {
            feature: books
            for feature, books in online.books_of([*self.project.definitions.features]).items()
            if books is not None
            and books.target is not None
            and not books.pending
            and books.layout == online.layout  # else all rows are about to be written anew
        }
        for feature, rows in online.rows_by_feature(before).items():
            missing = before[feature].rows - rows
            with survived("note missing rows", feature=feature):
                if missing > 0 and online.books(feature) == before[feature]:
                    log.warning("rows are missing online", feature=feature, missing=missing)
                    online.mark_incomplete(feature, before[feature])

    def _released(self, feature: str, held: bool) -> str | None:
        """A hold that a person has lifted since the last look."""
        was_held = feature in self._held
        (self._held.add if held else self._held.discard)(feature)
        return "no longer held" if was_held and not held else None

    def _replace_unreadable_lists(self) -> None:
        for key in self.project.delete_unreadable():
            log.error("a list of features could not be read: it is made anew", key=key)

    def _drop_gone(self) -> None:
        """Keep features alive that the definitions no longer have, and delete their rows after `gone_after`."""
        if not self.project.is_current():
            return
        gone = self.project.gone()
        self.project.note_gone(gone)
        now = self.project.work_queue.now()
        for feature in gone:
            with survived("serve a feature that is gone", feature=feature.feature):
                if now >= feature.until:
                    retire(self.project, feature.feature)
                else:
                    self._keep_alive(feature.feature)

    def _keep_alive(self, feature: str) -> None:
        """Renew the rows of a feature that is not pushed any more."""
        online = self.project.online
        books = online.books(feature)
        if books is None or books.target is None or not books.renewal_due(online.ttl, clock.now()):
            return
        identity = self.project.definitions.store.identity()
        if books.owner and (identity is None or books.owner.store != identity.id):
            return  # another store has come to own them
        online.renew(feature, books.target)


def retire(project: Project, feature: str) -> int:
    """Delete the online rows and all records of a feature that is gone; returns the number of rows deleted.

    Its versions stay in the store, and rows that another store has claimed stay online, as do those of a feature that other
    definitions of the store keep by now. Nothing is done while the store is missing, as on an unmounted disk: then the rows'
    owner is unknown.
    """
    identity = project.definitions.store.identity()
    if identity is None:
        log.warning("feature is gone, and so is the store: its rows stay", feature=feature)
        return 0
    kept_by = keeper_elsewhere(project.definitions, feature)
    if kept_by is not None:
        project.disown(feature)
        log.info(
            "feature is gone, and other definitions keep it: its rows stay",
            feature=feature,
            kept_by=kept_by,
        )
        return 0
    try:
        rows = project.online.drop(feature, owner=identity.id)
    except OwnedElsewhere as error:
        log.warning(
            "feature is gone, and its rows are another's", feature=feature, error=str(error)
        )
        rows = 0
    project.disown(feature)
    project.event_log.write("dropped", feature)
    log.info("feature is gone: its rows are dropped", feature=feature, rows=rows)
    return rows
