"""Turns "this feature needs a look" into tickets and jobs; an outage of the server loses nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from itertools import islice

from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as NoAnswer

from mlforge.core.logs import get_logger
from worker.project import Project
from worker.queue.rq_queue import enqueue_each
from worker.state.pending import PendingRequest, merge_into
from worker.state.ticket import Ticket
from worker.state.work_queue import Request
from worker.supervision import FAULTS, tell_fault

_TOLD = 3
"""Of so many faults the first are told: a server that refuses one request refuses all."""
AT_ONCE = 100
"""So many features are requested in one trip."""
_LOST = "the server lost a request"

log = get_logger(__name__)


class Requests:
    """A sender of refresh requests; those that the server did not accept are kept, and `flush` sends them again."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._unsent: dict[str, PendingRequest] = {}
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def __call__(self, feature: str, reason: str, closed_at: int | None) -> None:
        """Request a refresh because something changed that any file may be of."""
        self.each({feature: PendingRequest(reason, closed_at)})

    def each(self, pending: Mapping[str, PendingRequest]) -> None:
        """Request refreshes of features."""
        with self._lock:
            merge_into(self._unsent, pending)
        self.flush()

    def remind(self, feature: str, reason: str) -> None:
        """Request a refresh although nothing changed: failures are not forgotten for it."""
        self.each({feature: PendingRequest(reason, afresh=False)})

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
        """Send the unsent requests; never raises."""
        faults: dict[str, BaseException] = {}
        with self._lock:
            unsent = iter([*self._unsent.items()])
            while some := dict(islice(unsent, AT_ONCE)):
                try:
                    faults |= self._send(some)
                except FAULTS as error:
                    faults |= dict.fromkeys(some, error)
                    if isinstance(error, NoConnection | NoAnswer):
                        break
        for feature, fault in islice(faults.items(), _TOLD):
            tell_fault("request a refresh", fault, feature=feature, waiting=len(self._unsent))

    def _send(self, pending: Mapping[str, PendingRequest]) -> dict[str, ResponseError]:
        """Request refreshes in one trip; the errors of those that the server did not accept, which stay unsent."""
        sent, faults = _sent(self._project, pending)
        lost: dict[str, PendingRequest] = {}
        for feature, request in sent.items():
            is_named = pending[feature].paths is not None
            if is_named and request.wanted <= self._counts.get(feature, 0):
                # The server has lost requests, and with them what they named: one about all of the source follows.
                lost[feature] = PendingRequest(_LOST, afresh=False)
            else:
                self._counts[feature] = request.wanted
                del self._unsent[feature]
        return faults | self._send(lost) if lost else faults


def request_each(project: Project, pending: Mapping[str, PendingRequest]) -> dict[str, Request]:
    """The requests of features, in one trip, whose jobs are enqueued in another.

    Raises ResponseError for a ticket that is none of ours, once the others are requested.
    """
    sent, faults = _sent(project, pending)
    for fault in faults.values():
        raise fault
    return sent


def _sent(
    project: Project, pending: Mapping[str, PendingRequest]
) -> tuple[dict[str, Request], dict[str, ResponseError]]:
    """The requests of features, whose jobs are enqueued, and the errors of those that the server did not accept."""
    answers = project.work_queue.request_each(pending)
    sent = {feature: each for feature, each in answers.items() if isinstance(each, Request)}
    jobs = {feature: each.job for feature, each in sent.items() if each.job}
    enqueue_each(project, jobs)
    log.debug("requested", features=[*sent], jobs=[*jobs.values()])
    return sent, {f: each for f, each in answers.items() if not isinstance(each, Request)}
