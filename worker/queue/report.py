"""The report of a job: what it tells of a refresh and a push in the event log, in the counters, and in the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlforge.core.logs import get_logger
from mlforge.core.values import to_iso
from worker.project import Project
from worker.queue.outcomes import Outcome
from worker.state.drop_steps import drop_steps, trigger_of
from worker.state.figures import add_each
from worker.state.ticket import Ticket
from worker.state.work_queue import Lease

if TYPE_CHECKING:
    from mlforge.build.result import BuildResult
    from mlforge.online.push import PushResult

WAITING = ("waiting", "source_missing")
"""Reasons of a refresh that found nothing to do yet, which is nobody's mistake."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A refresh of a feature, and the push behind it.

    before: the feature's ticket before the lease. push_steps: the seconds that the push took, as `Steps` has them. began,
    readable_at: when the refresh began, and since when its rows are readable, in UTC microseconds.
    """

    lease: Lease
    before: Ticket
    built: BuildResult
    pushed: PushResult
    push_steps: Mapping[str, float]
    began: int
    readable_at: int

    @property
    def has_moved(self) -> bool:
        """Whether a version was published, or rows online are others than before."""
        return bool(self.built.changed or self.pushed.written or self.pushed.deleted)

    @property
    def set_aside(self) -> dict[str, str]:
        """The reasons for which files were set aside by this refresh, by path."""
        return {bad.path: bad.reason for bad in self.built.quarantined if bad.since >= self.began}

    @property
    def fresh_ms(self) -> float | None:
        """The time from the first file's close to its rows being readable; None where there was no file, or it was set aside."""
        closed_at = self.lease.closed_at
        if closed_at is None or (self.set_aside and not self.has_moved):
            return None
        return max(0.0, (self.readable_at - closed_at) / 1000)


def report(at_work: Project, done: Delivery) -> Outcome:
    """Tell of a delivery; its outcome."""
    feature, built, pushed = done.lease.feature, done.built, done.pushed
    if built.held is not None:
        _report_hold(at_work, done.lease, done.before, built.held)
        return "held"
    told = [at_work.work_queue.hold_told(feature, "")] if done.before.told_hold else []
    # What changed nothing made nothing readable either: its time is told, and is no freshness.
    served_ms = done.fresh_ms if done.has_moved else None
    steps: dict[str, float] = {}
    if served_ms is not None:
        steps = drop_steps(done.lease, {**built.steps, **done.push_steps}, served_ms)
        told.append(at_work.event_log.drop_time(feature, served_ms))
    details = _details(done) | {"steps": steps or None, "quarantined": done.set_aside}
    if done.has_moved or done.fresh_ms is not None or done.set_aside:
        told.append(at_work.event_log.entry("refreshed", feature, **details))
    outcome: Outcome = "refreshed" if done.has_moved else "unchanged"
    amounts = {
        outcome: 1,
        "rows_changed": built.rows_changed if built.changed else 0,
        "rows_recomputed": built.rows_recomputed,
        "pushes": int(pushed.written + pushed.deleted > 0),
        "entities_pushed": pushed.written,
        "entities_deleted": pushed.deleted,
    }
    served_s = None if served_ms is None else served_ms / 1000
    add_each(at_work.redis, *told, at_work.counts.rise(feature, amounts, served_s, steps))
    for warning in built.warnings:
        (log.info if built.reason in WAITING else log.warning)(warning)
    log.info("refreshed", **_as_logged(details))
    return outcome


def report_failure(
    at_work: Project, lease: Lease, before: Ticket, error: BaseException, *, is_outage: bool
) -> None:
    """Count a failure, and put it into the event log if it is news.

    An outage is news once for each class of its errors until a refresh goes well, whatever is dropped meanwhile: it lasts as
    long as it takes, and the log holds so many entries. A fault of the feature is news where the attempt before had another.
    """
    feature, kind, text = lease.feature, type(error).__name__, in_words(error)
    log.error("refresh failed", error=text, transient=is_outage, exc_info=error)
    told = [at_work.counts.rise(feature, {"failed": 1})]
    known = before.told_outages.split()
    if kind not in known if is_outage else text != before.error:
        told.append(at_work.event_log.entry("failed", feature, error=text, trigger=lease.reason))
        if is_outage:
            told.append(at_work.work_queue.outages_told(feature, [*known, kind]))
    add_each(at_work.redis, *told)


def in_words(error: BaseException) -> str:
    """An error in one line, as a ticket keeps it."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:2_000]


def _report_hold(at_work: Project, lease: Lease, before: Ticket, reason: str) -> None:
    """Tell a hold once, however often it is found, and again for each drop that it keeps back."""
    feature, (closed_at, _, known) = lease.feature, before.told_hold.partition(" ")
    told = [at_work.counts.rise(feature, {"held": 1})]
    if reason != known or (lease.closed_at is not None and str(lease.closed_at) != closed_at):
        told.append(at_work.event_log.entry("held", feature, reason=reason))
        note = f"{lease.closed_at or ''} {reason}"
        told.append(at_work.work_queue.hold_told(feature, note))
        log.warning("held", reason=reason)
    add_each(at_work.redis, *told)


def _as_logged(details: Mapping[str, Any]) -> dict[str, Any]:
    """The details for people: without what is empty, and with the instant of the rows as ISO 8601."""
    told = {name: value for name, value in details.items() if value not in (None, {})}
    return told if "as_of" not in told else told | {"as_of": to_iso(told["as_of"])}


def _details(done: Delivery) -> dict[str, Any]:
    built, pushed, fresh_ms = done.built, done.pushed, done.fresh_ms
    change = built.manifest.change if built.changed and built.manifest is not None else None
    evidence = {} if change is None else change.evidence
    return {
        "version": built.version,
        "bump": built.bump if built.changed else None,
        "reason": built.reason,
        "trigger": trigger_of(done.lease.reason, evidence),
        "changed": built.changed,
        "mode": built.mode,
        "mode_reason": built.mode_reason,
        "rows": built.rows,
        "rows_recomputed": built.rows_recomputed,
        "rows_changed": built.rows_changed,
        "rows_dropped": dict(built.rows_dropped),
        "entities_pushed": pushed.written,
        "entities_deleted": pushed.deleted,
        "as_of": pushed.as_of,
        "freshness_ms": None if fresh_ms is None else round(fresh_ms, 1),
        "refresh_ms": round(built.seconds * 1000, 1),
        "push_ms": round(pushed.seconds * 1000, 1),
    }
