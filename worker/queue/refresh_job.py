"""The job of a worker: a feature, from its source to its rows online, and those of its source that wait with it."""

from __future__ import annotations

import random
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from mlforge.core import clock
from mlforge.core.failpoints import reach
from mlforge.core.logs import get_logger
from mlforge.core.steps import Steps
from mlforge.definitions.together import of_one_source
from mlforge.engines.asked_together import asked_together
from mlforge.engines.versions_diff import VersionsDiff
from mlforge.errors import MlforgeError, OnlineError, StoreBusy, Unavailable, VersionConflict
from mlforge.frames.shared_results import shared_results
from mlforge.maintenance import operations
from mlforge.sources.source_reading import SourceReading
from worker import project
from worker.project import Project
from worker.queue import current_job_id, enqueue, give_back
from worker.queue.cascade import request_readers
from worker.queue.outcomes import ENDING, Outcome
from worker.queue.renewal import renewing
from worker.queue.report import Delivery, in_words, report, report_failure
from worker.queue.together import waiting_beside, waiting_together
from worker.state.ticket import Ticket
from worker.state.work_queue import Lease, Looked
from worker.supervision import FAULTS, TimeIsUpError, survived

if TYPE_CHECKING:
    from mlforge.build.result import BuildResult
    from mlforge.online.push import PushResult
    from mlforge.store import Store

TRANSIENT = (Unavailable, OnlineError, StoreBusy, VersionConflict, RedisError, OSError, MemoryError)
"""Faults of the surroundings, not of the feature: tried again for as long as it takes."""
_PAUSE_S = 1.0

log = get_logger(__name__)


def refresh(feature: str, definitions: str, definitions_hash: str) -> Outcome:
    """Refresh and push a feature, as rq's job; returns the outcome.

    Other features of its source that wait too are served then, from the same reading of its files. If one of them
    ends the job, the outcome is that one's.
    """
    at_work, job = project.in_use(), current_job_id()
    with structlog.contextvars.bound_contextvars(feature=feature, job=job):
        if definitions != at_work.scope:
            log.error("job of another project on this server", other=definitions)
            return "not ours"
        before = at_work.ticket_if_current(feature)
        if before is None:
            # The watcher is about to take up what this process has just loaded.
            time.sleep(_PAUSE_S)
            give_back(at_work, feature, job)
            return "given back"
    others = of_one_source(at_work.definitions.features, feature)
    with shared_results() if others else nullcontext():
        return _serve_together(at_work, before, job)


def _serve_together(at_work: Project, before: Ticket, job: str) -> Outcome:
    """Serve the feature of the job, then others of its source, from one reading of the files. before: the feature's ticket."""
    feature = before.feature
    reading = SourceReading(at_work.definitions.settings.max_file_memory)
    with structlog.contextvars.bound_contextvars(feature=feature, job=job):
        outcome = serve(at_work, before, job, reading)
    if outcome in ENDING:
        return outcome
    served = {feature: outcome}
    features = at_work.definitions.features
    others = [features[name] for name in of_one_source(features, feature)]
    store = at_work.definitions.store
    with asked_together(others), store.listing_later():
        for lease, ticket in waiting_together(at_work, feature, job):
            with structlog.contextvars.bound_contextvars(feature=lease.feature, job=job):
                reach("job.begun")
                ending = _serve_leased(at_work, lease, ticket, reading)
            if ending in ENDING:
                return ending
            served[lease.feature] = ending
    tidy_up(at_work, [name for name, ending in served.items() if ending == "refreshed"])
    return outcome


def serve(at_work: Project, before: Ticket, job: str, reading: SourceReading) -> Outcome:
    """Take the lease of a feature, bring everything up to date, give the lease back. before: the feature's ticket.

    Never raises for a fault of the feature, its files or the server: it is logged, noted in the
    ticket and tried again, or parked.
    """
    work_queue, feature = at_work.work_queue, before.feature
    reach("job.begun")
    lease = work_queue.start(feature, job)
    if lease is None:
        return "nothing to do"
    if feature not in at_work.definitions.features:
        work_queue.done(lease)
        return "gone"
    return _serve_leased(at_work, lease, before, reading)


def _serve_leased(
    at_work: Project, lease: Lease, before: Ticket, reading: SourceReading
) -> Outcome:
    """Bring a leased feature up to date, give the lease back; as `serve`. before: its ticket before the lease."""
    work_queue, feature = at_work.work_queue, lease.feature
    if before.troubled:
        lease = replace(lease, paths=None)
    reach("lease.taken")
    with renewing(work_queue, lease):
        try:
            with at_work.common_clock(lease.clock_ahead) as off:
                if off:
                    log.warning("this host's clock is off: the server's is used", by_s=off / 1e6)
                if before.parked:
                    _keep_online(at_work, feature)
                    enqueue(at_work, feature, work_queue.rested(lease, before))
                    return "parked"
                if before.rests_until and before.rests(now := work_queue.now()):
                    _keep_online(at_work, feature)
                    work_queue.rested_on(lease, before, now)
                    return "resting"
                began = clock.now()
                built = _refreshed(at_work, lease, before, reading)
                outcome = _brought_online(at_work, lease, before, built, began)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - polars' PanicException is no Exception
            _give_back_failed(at_work, lease, before, error)
            return "failed"
    reach("job.done")
    every = at_work.definitions.settings.publish_every
    rest_us = every.us if every and built.changed else 0
    another = work_queue.done(lease, _looked(lease, built), rest_us)
    reach("lease.returned")
    enqueue(at_work, feature, another)
    return outcome


def _looked(lease: Lease, built: BuildResult) -> Looked:
    if not built.has_looked:
        return "unsure"
    return "all" if lease.paths is None else "named"


def _refreshed(
    at_work: Project, lease: Lease, before: Ticket, reading: SourceReading
) -> BuildResult:
    """Refresh the feature; where that fails, its served version stays pushed."""
    definitions, feature = at_work.definitions, lease.feature
    options = replace(
        definitions.settings.options,
        attended=False,
        careful=before.may_be_a_files_fault,
        paths=lease.paths,
        companions=partial(waiting_beside, at_work, feature),
    )
    try:
        built = definitions.refresh(feature, options=options, reading=reading)
    except FAULTS:
        _keep_online(at_work, feature)
        raise
    reach("refresh.done")
    return built


def _brought_online(
    at_work: Project, lease: Lease, before: Ticket, built: BuildResult, began: int
) -> Outcome:
    """Push the feature, report both, and return the outcome. began: when the refresh did, in UTC microseconds."""
    feature = lease.feature
    if built.changed:
        lease = _with_first_file(at_work, lease, before)
        request_readers(at_work, feature, built.version, lease.closed_at)
    steps = Steps()
    pushed = _push(at_work, feature, built.diff)
    steps.end("push")
    # Rows are readable from here on: what reporting and tidying take is no part of their freshness.
    done = Delivery(lease, before, built, pushed, steps.seconds, began, readable_at=clock.now())
    return report(at_work, done)


def _with_first_file(at_work: Project, lease: Lease, before: Ticket) -> Lease:
    """The lease with the time at which the first file was closed since the last refresh, if the request did not say it.

    A refresh that was requested for another reason, a renewal say, takes in files that the watcher is about to
    report, or a version whose publisher is about to request it.
    """
    if lease.closed_at is not None or before.served_at is None:
        return lease
    if at_work.definitions.feature(lease.feature).upstream is not None:
        [ticket] = at_work.work_queue.read([lease.feature])
        return replace(lease, closed_at=ticket.closed_at)
    states, now = at_work.definitions.store.file_states(lease.feature), clock.now()
    closed = (max(state.mtime_ns, state.ctime_ns) // 1_000 for state in states.values())
    first = min((time for time in closed if before.served_at < time <= now), default=None)
    return replace(lease, closed_at=first)


def _push(at_work: Project, feature: str, diff: VersionsDiff | None = None) -> PushResult:
    at_work.claim(feature)
    pushed = at_work.definitions.push(feature, diff=diff)
    # Again: a process that was stopped meanwhile may have pushed what was dropped and disowned.
    at_work.claim(feature)
    return pushed


def _keep_online(at_work: Project, feature: str) -> None:
    """Keep the served version pushed and alive although its refresh failed; a fault here does not replace the refresh's."""
    try:
        _push(at_work, feature)
    except FAULTS as error:
        log.warning("not pushed either", error=str(error))


def tidy_up(at_work: Project, features: list[str]) -> None:
    """Tidy features that the job has refreshed, once none waits for it any more: to pack their small files takes longer than a refresh.

    One that is at work elsewhere by now is left to whoever is; the store's own lock keeps out whoever comes. They are
    taken in any order: one whose tidying ends the process does not keep the same others from their turn each time.
    """
    if not features:
        return
    with survived("tidy up"), at_work.common_clock():
        at_rest = [t.feature for t in at_work.work_queue.read(features) if not t.leased]
        for feature in random.sample(at_rest, len(at_rest)):
            with structlog.contextvars.bound_contextvars(feature=feature):
                _tidy(at_work.definitions.store, feature)


def _tidy(store: Store, feature: str) -> None:
    """Prune old versions; a failure to prune does not stop serving."""
    try:
        pruned = operations.tidy(store, feature)
    except (MlforgeError, OSError) as error:
        log.warning("not pruned", error=str(error))
        return
    if pruned is not None and pruned.unreadable:
        log.warning("versions that cannot be read are kept", versions=pruned.unreadable)


def _give_back_failed(at_work: Project, lease: Lease, before: Ticket, error: BaseException) -> None:
    """Report a failure, and give the lease back."""
    is_outage, exhausted = (
        isinstance(error, TRANSIENT),
        isinstance(error, (MemoryError, TimeIsUpError)),
    )
    report_failure(at_work, lease, before, error, is_outage=is_outage)
    another = at_work.work_queue.failed(lease, in_words(error), is_outage, exhausted)
    enqueue(at_work, lease.feature, another)
