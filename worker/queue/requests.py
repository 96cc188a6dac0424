"""Turns "this feature needs a look" into tickets and jobs; an outage of the server loses nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as NoAnswer

from mlforge.core.logs import get_logger
from worker.project import Project
from worker.queue.rq_queue import enqueue_each
from worker.state.work_queue import Request, Ticket
from worker.supervision import FAULTS, tell_fault

_TOLD = 3
"""Of so many faults the first are told: a server that refuses one request refuses all."""
_LOST = "the server lost a request"

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A refresh that is to be requested: why, since when, whether failures are forgotten for it, and for which files (None: any)."""

    reason: str
    closed_at: int | None
    afresh: bool
    paths: frozenset[str] | None = None

    def merged(self, later: PendingRequest) -> PendingRequest:
        """The two requests merged into one."""
        times = [time for time in (self.closed_at, later.closed_at) if time is not None]
        of_all = self.paths is None or later.paths is None
        paths = None if of_all else frozenset((*(self.paths or ()), *(later.paths or ())))
        afresh = self.afresh or later.afresh
        return PendingRequest(later.reason, min(times, default=None), afresh, paths)


class Requests:
    """A sender of refresh requests; those that the server did not accept are kept, and `flush` sends them again."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._unsent: dict[str, PendingRequest] = {}
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def __call__(self, feature: str, reason: str, closed_at: int | None) -> None:
        """Request a refresh because something changed that any file may be of."""
        self.each([feature], reason, closed_at, None)

    def each(
        self,
        features: Iterable[str],
        reason: str,
        closed_at: int | None,
        paths: frozenset[str] | None,
    ) -> None:
        """Request a refresh of each feature because something changed. paths: the files that did; None where that is not known of all."""
        self._add(features, PendingRequest(reason, closed_at, True, paths))

    def remind(self, feature: str, reason: str) -> None:
        """Request a refresh although nothing changed: failures are not forgotten for it."""
        self._add([feature], PendingRequest(reason, None, False))

    def counts(self) -> dict[str, int]:
        """The count that each feature's last request was given."""
        with self._lock:
            return dict(self._counts)

    def repeat(self, tickets: Iterable[Ticket], counts: Mapping[str, int]) -> None:
        """Request features again whose tickets the server lost: by a flush, a restore or an eviction.

        counts: the requests sent for each feature before the tickets were read.
        """
        for ticket in tickets:
            if ticket.wanted < counts.get(ticket.feature, 0):
                log.warning("request lost by the server", feature=ticket.feature)
                self.remind(ticket.feature, _LOST)

    def flush(self) -> None:
        """Send the unsent requests, those that are alike together; never raises."""
        faults: dict[str, BaseException] = {}
        with self._lock:
            for pending, features in _alike(self._unsent).items():
                try:
                    faults |= self._send(features, pending)
                except FAULTS as error:
                    faults |= dict.fromkeys(features, error)
                    if isinstance(error, NoConnection | NoAnswer):
                        break
        for feature, fault in islice(faults.items(), _TOLD):
            tell_fault("request a refresh", fault, feature=feature, waiting=len(self._unsent))

    def _add(self, features: Iterable[str], pending: PendingRequest) -> None:
        with self._lock:
            for feature in features:
                before = self._unsent.get(feature)
                self._unsent[feature] = before.merged(pending) if before else pending
        self.flush()

    def _send(self, features: Sequence[str], pending: PendingRequest) -> dict[str, ResponseError]:
        """Request features together; the errors of those that the server did not accept, which stay unsent."""
        answers = self._project.work_queue.request_each(
            features, pending.reason, pending.closed_at, pending.afresh, pending.paths
        )
        told = dict(zip(features, answers, strict=True))
        sent = {feature: each for feature, each in told.items() if isinstance(each, Request)}
        enqueue_each(self._project, {f: each.job for f, each in sent.items() if each.job})
        faults = {f: each for f, each in told.items() if not isinstance(each, Request)}
        lost = []
        for feature, request in sent.items():
            log.debug("requested", feature=feature, reason=pending.reason, job=request.job)
            if pending.paths is not None and request.wanted <= self._counts.get(feature, 0):
                lost.append(feature)
            else:
                self._counts[feature] = request.wanted
                del self._unsent[feature]  # one that has a fault waits alone
        if lost:
            # The server has lost requests, and with them what they named: one about all of the source follows.
            faults |= self._send(lost, PendingRequest(_LOST, None, False))
        return faults


def _alike(unsent: Mapping[str, PendingRequest]) -> dict[PendingRequest, list[str]]:
    """The features of each request among these."""
    features: dict[PendingRequest, list[str]] = {}
    for feature, pending in unsent.items():
        features.setdefault(pending, []).append(feature)
    return features
