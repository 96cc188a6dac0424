"""The work queue: requests, leases and failures of refreshes, one ticket per feature, kept in Redis.

The protocol is level-triggered. A request only raises a counter; a refresh serves the count that it
read when it began. While a feature's lease is held nobody else works on it, and whoever gives the
lease back sees whether more was wanted meanwhile: that makes exactly one more job. A lease that is
no longer renewed expires, and `ticket.overdue` finds the work that its holder left behind.

Every change is one script (`worker.state.scripts`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from uuid import uuid4

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from mlforge.core import clock
from mlforge.core.values import SECOND_US
from worker.state import scripts
from worker.state.figures import Addition
from worker.state.named_paths import paths_of, text_of
from worker.state.pending import PendingRequest
from worker.state.ticket import Ticket, ticket_of

LEASE_MS = 10_000
RENEW_S = 3.0
WHOLE_EVERY_S = 300
"""So long after a look at all of a source the next refresh looks at all of it again, whatever paths are named."""

Looked = Literal["all", "named", "unsure"]
"""The extent of a refresh's look: all of the source, the named paths alone, or less than it was to."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to refresh a feature: what it serves, and since when that was waited for.

    closed_at: when the earliest file that it serves was closed, by its host's clock; requested_at: when the refresh was
    requested for that file; taken_at: when the lease was taken, both by the server's clock. UTC microseconds.
    took_s: how long taking it took. clock_ahead: by how much this host's clock was ahead of the server's then, at the least, in us.
    paths: the files of the source that its requests are about, as the source's listings name them; None for all of it.
    """

    feature: str
    job: str
    serves: int
    closed_at: int | None
    reason: str
    requested_at: int | None = None
    taken_at: int = 0
    took_s: float = 0.0
    clock_ahead: int = 0
    paths: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A requested refresh: the job to enqueue, None if one is queued or running already, and the request's count."""

    job: str | None
    wanted: int


def new_job_id(feature: str, end: str | None = None) -> str:
    """An id that no job had before; letters, digits, `_` and `-` alone. end: new hex digits, which do for several features."""
    return f"{feature}-{end or uuid4().hex}"


class WorkQueue:
    """The tickets of one project; methods that return a job id ask the caller to enqueue it.

    by: the hash of the definitions at work: only under the same ones a named path is a file of the same source.
    """

    def __init__(self, redis: Redis, scope: str, by: str = "") -> None:
        self._redis, self._by = redis, by
        self._prefix = f"mlforge-work:{scope}"
        self._request = redis.register_script(scripts.REQUEST)
        self._requeue = redis.register_script(scripts.REQUEUE)
        self._start = redis.register_script(scripts.START)
        self._renew = redis.register_script(scripts.RENEW)
        self._done = redis.register_script(scripts.DONE)
        self._failed = redis.register_script(scripts.FAILED)

    def request_each(
        self, pending: Mapping[str, PendingRequest]
    ) -> dict[str, Request | ResponseError]:
        """Want refreshes of features in one trip, during which the server does nothing else; an error for a ticket that is none of ours."""
        end = uuid4().hex
        jobs = [new_job_id(feature, end) for feature in pending]
        keys = [key for feature in pending for key in self._keys(feature)]
        arguments = [self._by]
        for job, request in zip(jobs, pending.values(), strict=True):
            arguments += [job, *_arguments_of(request)]
        answers: Any = self._request(keys, arguments)
        told = zip(pending, jobs, answers, strict=True)
        return {feature: _request(job, answer) for feature, job, answer in told}

    def hurry(self, wanted: Mapping[str, int]) -> None:
        """End the rest of features, and have none begin before so many of their requests are served."""
        pipeline = self._redis.pipeline(transaction=False)
        for feature, requests in wanted.items():
            ticket, _ = self._keys(feature)
            pipeline.hset(ticket, "at_once", requests)
            pipeline.hdel(ticket, "rests_until")
        pipeline.execute()

    def end_rests(self, features: Iterable[str]) -> None:
        """Have features not be left alone, nor after the job that is at work on one, until their next request is served: edits wait for nothing."""
        tickets = [ticket for ticket in self.read(features) if ticket.unreadable is None]
        self.hurry({t.feature: t.wanted + 1 for t in tickets if t.rests_until or t.leased})

    def requeue(self, ticket: Ticket) -> str | None:
        """A new job for an overdue ticket, unless it changed since it was read."""
        job = new_job_id(ticket.feature)
        return (
            job if self._requeue(self._keys(ticket.feature), [job, ticket.queued or ""]) else None
        )

    def start(self, feature: str, job: str) -> Lease | None:
        """Take the lease; None if another holds it (and will look again) or no request is open."""
        return self._lease(feature, job)

    def claim(self, ticket: Ticket, job: str, entry: Sequence[str] = ()) -> Lease | None:
        """Take the lease for another job than the ticket's queued one, which has nothing to do any more, and take that one out of its queue.

        entry: the keys of the queue and of the queued job; where there are none, it stays there. None if that job is not queued any more,
        and where `start` gives None.
        """
        if ticket.queued is None:
            return None
        return self._lease(ticket.feature, job, ticket.queued, entry)

    def _lease(
        self, feature: str, job: str, instead_of: str = "", entry: Sequence[str] = ()
    ) -> Lease | None:
        arguments: list[str | int] = [job, LEASE_MS, uuid4().hex, instead_of]
        begun = time.perf_counter()
        answer: Any = self._start([*self._keys(feature), *entry], arguments)
        if answer is None:
            return None
        took_s = time.perf_counter() - begun
        requests, closed_at, reason, requested_at, taken_at, served, *named = answer
        return Lease(
            feature,
            job,
            serves=int(requests),
            closed_at=int(closed_at) if closed_at else None,
            reason=_text(reason),
            requested_at=int(requested_at) if requested_at else None,
            taken_at=int(taken_at),
            took_s=took_s,
            clock_ahead=_clock_ahead(int(taken_at), took_s),
            paths=self._paths(int(served), int(requests), int(taken_at), *map(_text, named)),
        )

    def _paths(
        self, served: int, wanted: int, now: int, named: str, named_by: str, whole_at: str
    ) -> frozenset[str] | None:
        """The paths that alone are to be looked at; None for all of the source."""
        # Negative: the server's clock was set back.
        since = now - int(whole_at) if whole_at.isdecimal() else -1
        is_recent = 0 <= since < WHOLE_EVERY_S * SECOND_US
        return paths_of(named, served, wanted) if is_recent and named_by == self._by else None

    def renew(self, feature: str, job: str) -> bool:
        """Extend the lease; False if it was lost, or is not taken yet."""
        return bool(self._renew(self._keys(feature), [job, LEASE_MS]))

    def done(self, lease: Lease, looked: Looked = "unsure", rest_us: int = 0) -> str | None:
        """Give the lease back after success; returns a job to enqueue if new requests came in.

        looked: after less than what was asked for the next refresh looks at all of the source.
        rest_us: for so long the feature is left alone; then the reconciler takes up what was requested meanwhile.
        """
        job = new_job_id(lease.feature)
        arguments: list[str | int] = [lease.job, lease.serves, job, looked, rest_us]
        answer = self._done(self._keys(lease.feature), arguments)
        return job if answer else None

    def rested_on(self, lease: Lease, resting: Ticket, now: int) -> None:
        """Give back the lease of a feature that is left alone, after a push without a refresh: it still is, until the same instant."""
        self.done(replace(lease, serves=resting.served), "named", resting.rests_until - now)

    def failed(
        self, lease: Lease, error: str, transient: bool = False, exhausted: bool = False
    ) -> str | None:
        """Give the lease back after a failure; returns a job to enqueue if anything changed meanwhile.

        transient: the fault lies outside the feature, so the feature is not parked for it. exhausted: memory or time ran out.
        """
        job = new_job_id(lease.feature)
        counter = "interruptions" if transient else "failures"
        arguments: list[str | int] = [lease.job, lease.serves, job, counter, error, int(exhausted)]
        return job if self._failed(self._keys(lease.feature), arguments) else None

    def rested(self, lease: Lease, parked: Ticket) -> str | None:
        """Give back the lease of a parked feature after a push without a refresh: it stays parked."""
        return self.failed(lease, parked.error or "", transient=True, exhausted=parked.exhausted)

    def died(self, feature: str, job: str, error: str, at_fault: bool = False) -> bool:
        """The process that worked under this job's id is no more; without its lease or with it.

        at_fault: its time ran out, for which the feature is to blame, so that it is parked as soon as if it had failed. Returns whether
        the job was at work on this feature; nothing is noted otherwise.
        """
        counter = "failures" if at_fault else "deaths"
        arguments: list[str | int] = [job, -1, "", counter, error, int(at_fault)]
        return self._failed(self._keys(feature), arguments) is not None

    def hold_told(self, feature: str, told: str) -> Addition:
        """A note in the ticket that a hold was told, to be added; an empty one that there is none any more."""
        ticket, _ = self._keys(feature)
        return Addition(ticket, lambda pipeline: pipeline.hset(ticket, "told_hold", told))

    def outages_told(self, feature: str, kinds: Iterable[str]) -> Addition:
        """A note in the ticket of the errors of an outage that were told, to be added; it goes with the next refresh that goes well."""
        ticket, _ = self._keys(feature)
        note = " ".join(kinds)
        return Addition(ticket, lambda pipeline: pipeline.hset(ticket, "told_outages", note))

    def read(self, features: Iterable[str]) -> list[Ticket]:
        """The tickets of these features, in order."""
        return self._read(features)[0]

    def read_beside(self, key: str, features: Iterable[str]) -> tuple[list[Ticket], bytes | None]:
        """The tickets of these features, in order, and the value of a key, in one trip; None for no key, or one of another type."""
        tickets, [value] = self._read(features, [key])
        if isinstance(value, RedisError) and not str(value).startswith("WRONGTYPE"):
            raise value
        return tickets, None if isinstance(value, RedisError) else value

    def _read(self, features: Iterable[str], keys: Sequence[str] = ()) -> tuple[list[Ticket], Any]:
        """The tickets of features, and the server's answers about other keys, in one trip."""
        names = list(features)
        pipeline = self._redis.pipeline(transaction=False)
        for name in names:
            ticket, lease = self._keys(name)
            pipeline.hgetall(ticket)
            pipeline.pttl(lease)
        for key in keys:
            pipeline.get(key)
        answers = pipeline.execute(raise_on_error=False)
        tickets = [
            ticket_of(name, answers[2 * place], answers[2 * place + 1])
            for place, name in enumerate(names)
        ]
        return tickets, answers[2 * len(names) :]

    def now(self) -> int:
        """The server's time, which all tickets are stamped with."""
        seconds, micros = self._redis.time()
        return int(seconds) * SECOND_US + int(micros)

    def forget(self, feature: str) -> None:
        """Remove the ticket of a feature that is gone."""
        self._redis.delete(*self._keys(feature))

    def _keys(self, feature: str) -> list[str]:
        ticket = f"{self._prefix}:ticket:{feature}"
        return [ticket, f"{ticket}:lease"]


def _arguments_of(pending: PendingRequest) -> tuple[str, str, str, str]:
    """A pending request as the script takes it."""
    closed_at = "" if pending.closed_at is None else str(pending.closed_at)
    return pending.reason, closed_at, str(int(pending.afresh)), text_of(pending.paths)


def _request(job: str, answer: Any) -> Request | ResponseError:
    """The script's answer about a ticket that this job was meant for."""
    if isinstance(answer, ResponseError):
        return answer
    is_new, wanted = answer
    return Request(job if is_new else None, int(wanted))


def _clock_ahead(taken_at: int, took_s: float) -> int:
    """By how many us this host's clock is ahead of the server's at the least: the lease was taken at some time of its trip."""
    most = clock.now() - taken_at
    _, least, _ = sorted((most - int(took_s * SECOND_US), 0, most))
    return least


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
