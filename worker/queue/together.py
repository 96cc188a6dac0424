"""Features of one source that wait for a refresh together: the job of one of them serves them all, each under its own lease."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Mapping

from redis.exceptions import RedisError

from mlforge.build.intake_by_tasks.companions import Companion
from mlforge.core import clock
from mlforge.core.logs import get_logger
from mlforge.definitions.building import companions_of
from mlforge.definitions.together import of_one_source
from mlforge.engines.asked_together import alike
from mlforge.features.feature import Feature
from worker.child_process import GROWTH_BYTES, resident_bytes
from worker.project import Project
from worker.queue.rq_queue import JobQueue, is_worker_ending
from worker.state.ticket import Ticket
from worker.state.work_queue import Lease

log = get_logger(__name__)
TIME_SHARE = 0.1
"""The share of a job's time after which it takes no further feature: the rest is enough for any that it has taken."""


def waiting_together(at_work: Project, feature: str, job: str) -> Iterator[tuple[Lease, Ticket]]:
    """Leases on the other features of the feature's source whose jobs wait, each taken when the last has been served, and their tickets before.

    The job holds one lease at a time, so that its process can only ever interrupt one feature; the jobs of all others
    stay in the queue for other workers. A feature whose last refresh failed, or ended its process, is left to a
    job of its own. Nothing more is taken once the definitions have changed, the worker is to end, the process
    has grown, or much of the job's time is over.
    """
    limits = _Limits(at_work)
    names = in_order(at_work.definitions.features, feature)
    queue = JobQueue(at_work.redis, at_work.scope)
    while waiting := [t for t in at_work.work_queue.read(names) if _can_be_taken(t)]:
        has_worked = True
        for ticket in waiting:
            if has_worked and limits.are_reached():
                return
            names.remove(ticket.feature)
            assert ticket.queued is not None
            lease = at_work.work_queue.claim(ticket, job, queue.entry(ticket.queued))
            has_worked = lease is not None
            if lease is not None:
                yield lease, ticket


def waiting_beside(at_work: Project, feature: str) -> list[Companion]:
    """The other features of a feature's source whose jobs wait: a large intake reads its files for them, too."""
    definitions = at_work.definitions
    try:
        tickets = at_work.work_queue.read(of_one_source(definitions.features, feature))
    except RedisError as error:
        log.warning("files are read for one feature alone", feature=feature, why=str(error))
        return []
    return companions_of(definitions, [t.feature for t in tickets if _can_be_taken(t)])


def in_order(features: Mapping[str, Feature], feature: str) -> list[str]:
    """The other features of a feature's source: first those that one pass evaluates with it, then all further ones, each beside those alike.

    Within both from a place of this process's own: processes that serve a source at once seldom meet, and each mostly has features
    whose evaluations it shares, and whose last versions it has made itself.
    """
    of_source = (features[name] for name in [feature, *of_one_source(features, feature)])
    [first, *groups] = ([each.name for each in group] for group in alike(of_source))
    others = [name for group in groups for name in group]
    return [*_from_own_place(first[1:]), *_from_own_place(others)]


def _from_own_place(names: list[str]) -> list[str]:
    """The names in their order, from a place of this process's own."""
    start = random.Random(os.getpid()).randrange(len(names)) if names else 0
    return names[start:] + names[:start]


def _can_be_taken(ticket: Ticket) -> bool:
    is_at_rest = ticket.rests(clock.now())  # its job only pushes
    return ticket.queued is not None and not (ticket.leased or ticket.troubled or is_at_rest)


class _Limits:
    """Conditions under which a job takes no further feature."""

    def __init__(self, at_work: Project) -> None:
        self._project = at_work
        self._end_s = time.monotonic() + TIME_SHARE * at_work.settings.job_timeout_s
        self._most_bytes = resident_bytes() + GROWTH_BYTES

    def are_reached(self) -> bool:
        return (
            time.monotonic() >= self._end_s
            or resident_bytes() > self._most_bytes
            or is_worker_ending(self._project.redis)
            or not self._project.has_say()
        )
