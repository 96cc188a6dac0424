"""The job of a worker that takes part in a full build or a push: one task after the other, for as long as no other job waits.

Then another job follows for the next task, behind those that wait: refreshes come in between.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import structlog

from mlforge.core.failpoints import reach
from mlforge.core.logs import get_logger
from mlforge.errors import (
    DataError,
    DefinitionError,
    FunctionError,
    OwnedElsewhere,
    RetrievalError,
    SourceError,
    StalePush,
    TaskRefused,
    ValidationError,
)
from worker import project
from worker.project import Project
from worker.queue.outcomes import Outcome
from worker.queue.rq_queue import JobQueue, current_job_id, current_worker, is_worker_ending
from worker.queue.together import TIME_SHARE
from worker.state.shared_build import Ended, SharedBuild

if TYPE_CHECKING:
    from worker.state.shared_build import Claimed

OF_THE_TASK = (
    DataError,
    DefinitionError,
    FunctionError,
    OwnedElsewhere,
    RetrievalError,
    SourceError,
    StalePush,
    ValidationError,
)
"""Errors that a task has wherever it runs. Any other may be this worker's own, and another may do better."""

log = get_logger(__name__)


def take_part(build: str, definitions: str, definitions_hash: str) -> Outcome:
    """Run a task of a build that waits, as rq's job; returns the outcome."""
    at_work, job = project.in_use(), current_job_id()
    with structlog.contextvars.bound_contextvars(build=build, job=job):
        if definitions != at_work.scope:
            log.error("job of another project on this server", other=definitions)
            return "not ours"
        shared = SharedBuild(at_work.redis, at_work.scope, build)
        if not shared.is_known():
            return "nothing to do"
        if definitions_hash != at_work.hash:
            why = (
                f"it has the definitions {at_work.hash[:12]}, and the build is of {definitions_hash[:12]}: "
                "deploy the same definitions to all machines, and restart their workers"
            )
            if shared.refuse(socket.gethostname(), why):
                log.error("takes no part in a build", why=why)
            return _declined(shared)
        return _run_waiting(at_work, shared, job)


def _run_waiting(at_work: Project, shared: SharedBuild, job: str) -> Outcome:
    """Run tasks that wait, until others have their turn; as `take_part`."""
    worker, queue = current_worker(), JobQueue(at_work.redis, at_work.scope)
    if shared.has_refused(worker):
        return _declined(shared)
    end_s = time.monotonic() + TIME_SHARE * at_work.settings.job_timeout_s
    outcome: Outcome = "nothing to do"
    while (claimed := shared.take(job)) is not None:
        if not run_claimed(at_work, shared, claimed, job, worker):
            return _declined(shared)
        outcome = "task done"
        if time.monotonic() >= end_s or not _has_leisure(at_work, queue):
            if shared.has_waiting():
                queue.enqueue_task(shared.id, at_work, at_work.hash)
            break
    return outcome


def _has_leisure(at_work: Project, queue: JobQueue) -> bool:
    """Whether nothing else is to be done by this process, which serves the definitions in use and was not asked to end."""
    if queue.has_waiting() or is_worker_ending(at_work.redis):
        return False
    return at_work.has_say()


def run_claimed(
    at_work: Project, shared: SharedBuild, claimed: Claimed, job: str, worker: str
) -> bool:
    """Run a task that the job has claimed and note how it ended; False where another worker is to run it."""
    reach("task.claimed")
    with shared.renewed(claimed.id, job):
        try:
            ended = Ended(worker, text=at_work.definitions.run_task(claimed.task))
        except TaskRefused as error:
            if shared.give_back(claimed.id, job, socket.gethostname(), str(error)):
                log.error("takes no part in a build", why=str(error))
            return False
        except OF_THE_TASK as error:
            log.error("task failed", task=claimed.id[:12], error=str(error), exc_info=error)
            ended = Ended(worker, type(error).__name__, str(error)[:2_000])
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            why = f"{type(error).__name__}: {str(error)[:2_000]}"
            if not shared.is_known():
                log.info("task given up, as its build has ended", task=claimed.id[:12], why=why)
                return True
            log.error("task failed, and another worker is asked", why=why, exc_info=error)
            shared.fail(claimed.id, job, worker, why)
            return False
    shared.end(claimed.id, ended)
    log.info("task done", task=claimed.id[:12], error=ended.error)
    return True


def _declined(shared: SharedBuild) -> Outcome:
    """Take other jobs at once: the process that builds asks another worker, more and more seldom."""
    shared.decline()
    return "refused"
