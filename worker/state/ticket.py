"""The ticket of a feature: what is known of the work on it, and what follows for whoever looks for work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from mlforge.core.values import SECOND_US
from worker.state.scripts import LEASE_AT_MOST_MS, REST_AT_MOST_US

RETRY_AFTER_S = (1, 5, 25)
"""Pauses before a failed refresh is tried again; after the last one it is parked."""
RESUME_AFTER_S = (0, 0, 5, 25, 60)
"""Pauses after an interruption (a dead process, no server); the last one repeats."""
PAUSE_AT_MOST_S = 600
"""The longest pause after attempts that took long and ended in an outage: each pause is longer by what an attempt takes."""
DEATHS = 10
"""So many processes in a row may die at a feature, without one that got through, until it is parked."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """The state of the work on a feature; instants are UTC microseconds."""

    feature: str
    wanted: int = 0
    served: int = 0
    queued: str | None = None
    working: str | None = None
    leased: bool = False
    closed_at: int | None = None
    reason: str = ""
    failures: int = 0
    interruptions: int = 0
    deaths: int = 0
    error: str | None = None
    exhausted: bool = False
    """Whether memory or time ran out at the last attempt."""
    failed_at: int | None = None
    failing_since: int | None = None
    """When the first refresh failed of those since the last that went well: whatever is dropped meanwhile. One death alone is no failure."""
    took: int = 0
    """So many microseconds the last attempt took, where an outage ended it and it was a costly one."""
    served_at: int | None = None
    rests_until: int = 0
    """When a feature of which a version was just published is due again at the earliest."""
    told_hold: str = ""
    """The hold that the event log told of last, behind the time at which the file was closed that it kept back, if one was."""
    told_outages: str = ""
    """The classes of errors of an outage that the event log has told of since the last refresh that went well."""
    unreadable: str | None = None
    """A description of what is in Redis in its place, if no process of ours wrote it."""

    @property
    def behind(self) -> bool:
        """Whether a request is not covered by a finished refresh."""
        return self.wanted > self.served

    @property
    def parked(self) -> bool:
        """Whether it failed too often: it waits for a change or for `mlforge retry`."""
        return self.behind and (self.failures > len(RETRY_AFTER_S) or self.deaths >= DEATHS)

    def rests(self, now: int) -> bool:
        """Whether it is left alone, since a version of it has just been published; not where the server's clock was set back since."""
        return (self.served_at or 0) <= now and 0 < self.rests_until - now <= REST_AT_MOST_US

    @property
    def troubled(self) -> bool:
        """Whether no refresh has succeeded since the last fault."""
        return self.failures + self.interruptions + self.deaths > 0

    @property
    def may_be_a_files_fault(self) -> bool:
        """Whether a file may have ended the last attempt, so that each is to end no more than a process of its own.

        So it may where a process has died, or memory or time ran out. An error that was raised was raised by code, and to
        read all files apart would take the feature's lock, and a worker, for as long as that takes, for nothing.
        """
        return self.deaths > 0 or self.exhausted

    @property
    def retry_at(self) -> int | None:
        """When a failed refresh is due again; None if nothing failed or it is parked."""
        if self.failed_at is None or self.parked:
            return None
        if self.failures:
            pause = RETRY_AFTER_S[min(self.failures, len(RETRY_AFTER_S)) - 1]
        else:
            times = self.interruptions + self.deaths
            again = self.took * (self.interruptions - 1) // SECOND_US
            pause = max(
                RESUME_AFTER_S[min(times, len(RESUME_AFTER_S)) - 1], min(again, PAUSE_AT_MOST_S)
            )
        return self.failed_at + pause * SECOND_US


def overdue(ticket: Ticket, now: int, lost: bool) -> bool:
    """Whether a ticket needs a new job; `lost`: its queued job will never start."""
    if not ticket.behind or ticket.leased:
        return False
    if ticket.queued is not None:
        return lost
    if ticket.parked or ticket.rests(now):
        return False
    return ticket.retry_at is None or _has_come(ticket, ticket.retry_at, now)


def idle(ticket: Ticket, now: int) -> bool:
    """Whether nobody is about to work on the feature; a parked one is idle after a pause.

    The rows of an idle feature are compared with what they should be, and pushed if they differ.
    """
    if ticket.leased:
        return False
    if ticket.behind and ticket.parked and ticket.queued is None and ticket.failed_at is not None:
        return _has_come(ticket, ticket.failed_at + RESUME_AFTER_S[-1] * SECOND_US, now)
    return not ticket.behind or (ticket.queued is None and ticket.rests(now))


def _has_come(ticket: Ticket, pause_ends: int, now: int) -> bool:
    """Whether the pause after a failure is over; also where the server's clock was set back, which would make it as long as that."""
    return now >= pause_ends or (ticket.failed_at is not None and now < ticket.failed_at)


def orphaned(ticket: Ticket) -> bool:
    """Whether the process that worked on it stopped renewing its lease."""
    return ticket.working is not None and not ticket.leased


def ticket_of(
    feature: str, raw: dict[bytes, bytes] | RedisError, left_ms: int | RedisError
) -> Ticket:
    """The ticket of Redis's fields; for unreadable fields a ticket with only the error.

    Raises RedisError where the server refuses the question itself.
    """
    if isinstance(left_ms, RedisError):
        raise left_ms
    if isinstance(raw, RedisError):
        if not str(raw).startswith("WRONGTYPE"):
            raise raw
        return Ticket(feature, unreadable="it is of another type than ours")
    leased = 0 <= left_ms <= LEASE_AT_MOST_MS
    try:
        fields = {key.decode(): value.decode() for key, value in raw.items()}
        return Ticket(
            feature=feature,
            leased=leased,
            **{name: read(fields[name]) for name, read in _FIELDS.items() if name in fields},
        )
    except ValueError as error:  # a UnicodeDecodeError is one
        return Ticket(feature, leased=leased, unreadable=str(error))


def _count(text: str) -> int:
    """A count or time stamp, at most 2**53, which Lua represents exactly."""
    if not (text.isascii() and text.isdecimal()) or int(text[:20]) > _MOST:
        raise ValueError(f"{text[:40]!r} is no count")
    return int(text)


_MOST = 2**53
_FIELDS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("queued", "working", "reason", "error", "told_hold", "told_outages"), str),
    "exhausted": "1".__eq__,
    **dict.fromkeys(
        (
            *("wanted", "served", "closed_at", "failures", "interruptions", "deaths", "took"),
            *("failed_at", "failing_since", "served_at", "rests_until"),
        ),
        _count,
    ),
}
"""How each field of a ticket is read; a field that is not among these is left alone."""
