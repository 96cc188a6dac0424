"""Turns "this feature needs a look" into tickets and jobs; an outage of the server loses nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import structlog
from redis.exceptions import RedisError

from worker.project import Project
from worker.queue import enqueue
from worker.state.work_queue import Ticket

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Wish:
    reason: str
    closed_at: int | None
    afresh: bool

    def merged(self, later: _Wish) -> _Wish:
        times = [time for time in (self.closed_at, later.closed_at) if time is not None]
        return _Wish(later.reason, min(times, default=None), self.afresh or later.afresh)


class Requests:
    """Requests refreshes; what the server did not take is kept and sent again by `flush`."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._unsent: dict[str, _Wish] = {}
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def __call__(self, feature: str, reason: str, closed_at: int | None) -> None:
        """Request a refresh because something changed."""
        self._add(feature, _Wish(reason, closed_at, True))

    def remind(self, feature: str, reason: str) -> None:
        """Request a refresh although nothing changed: failures are not forgotten for it."""
        self._add(feature, _Wish(reason, None, False))

    def counts(self) -> dict[str, int]:
        """The count that each feature's last request was given."""
        with self._lock:
            return dict(self._counts)

    def repeat(self, tickets: Iterable[Ticket], counts: Mapping[str, int]) -> None:
        """Request again what the server has forgotten: it was flushed, restored, or evicted a ticket.

        counts: those of before the tickets were read.
        """
        for ticket in tickets:
            if ticket.wanted < counts.get(ticket.feature, 0):
                log.warning("request lost by the server", feature=ticket.feature)
                self.remind(ticket.feature, "the server lost a request")

    def flush(self) -> None:
        """Send what is unsent; does not raise while the server is away."""
        with self._lock:
            try:
                for feature, wish in list(self._unsent.items()):
                    self._send(feature, wish)
                    del self._unsent[feature]
            except RedisError as error:
                log.warning(
                    "server away: requests wait", waiting=len(self._unsent), error=str(error)
                )

    def _add(self, feature: str, wish: _Wish) -> None:
        with self._lock:
            before = self._unsent.get(feature)
            self._unsent[feature] = before.merged(wish) if before else wish
        self.flush()

    def _send(self, feature: str, wish: _Wish) -> None:
        request = self._project.tickets.request(feature, wish.reason, wish.closed_at, wish.afresh)
        self._counts[feature] = request.wanted
        enqueue(self._project, feature, request.job)
        log.debug("requested", feature=feature, reason=wish.reason, job=request.job)
