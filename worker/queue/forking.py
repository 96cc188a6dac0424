"""The worker that runs jobs in a process beside its own, forked and warmed up before the first of them came.

The parent imports the definitions, polars, and duckdb where a feature names it, but never uses an engine: children
of a process that has used polars cannot use it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from typing import Any

from redis.exceptions import RedisError
from rq import Queue, Worker
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job

from mlforge.core import clock
from mlforge.core.bound import die_with_parent
from mlforge.core.logs import get_logger
from mlforge.core.values import SECOND_US, to_us
from mlforge.definitions.together import of_one_source
from worker import project
from worker.child_process import GROWTH_BYTES, resident_bytes
from worker.project import JOB_TIMEOUT, Project
from worker.queue.intake import ForgeJob
from worker.queue.outcomes import SOUND
from worker.queue.prefork import ORDER_BYTES, ForkedProcess, PreforkPool
from worker.queue.rq_queue import argument
from worker.queue.rq_worker import SCOPE, Forge, outage_survived
from worker.queue.warmup import warm_up
from worker.state.work_queue import WorkQueue

OVERDUE_S = 5
"""Time that a job that ran into its timeout has left to say so, before its process is killed."""
_TRIAL_S = 3.0
"""How long a fork may take to show that it can use polars."""
_LATE = "MLFORGE_LOAD_LATE"
_BYTES = "latin-1"  # a character for each byte
_PREFORKED = 1
JOBS_A_PROCESS = 1_000
"""After so many jobs a process is replaced, whatever it may have gathered."""

log = get_logger(__name__)


class ForgeWorker(Forge, Worker):
    """Runs jobs in a forked process: it imports nothing, and cannot take the worker down.

    The process serves one job after the other, until one fails, it has grown, or it has served many; it is
    killed when a job's time is up. Then another takes its place.
    """

    _overdue: str | None = None
    _forking = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._prefork: ForkedProcess | None = None
        self._served = 0
        self._bytes_before = 0
        self._pool = PreforkPool(
            _PREFORKED, self.setup_work_horse_signals, self._warm_up, self._serve
        )

    def teardown(self) -> None:
        """rq's own, and the end of the processes forked ahead."""
        if not self.is_horse:
            self._pool.dismiss()
        super().teardown()

    def dequeue_job_and_maintain_ttl(self, *arguments: Any, **options: Any) -> Any:
        """Wait for a job, with processes forked ahead; while jobs wait, forks ahead of them would only compete."""
        if self._pool.wanting and self._at_leisure():
            self._refill()
        return super().dequeue_job_and_maintain_ttl(*arguments, **options)

    def _refill(self) -> None:
        """Fork processes ahead; a request to stop waits for it: what is raised within a fork's hooks is lost."""
        self._forking = True
        try:
            self._pool.refill()
        finally:
            self._forking = False
        if self._stop_requested:
            raise StopRequested

    def _shutdown(self) -> None:
        """rq's own; it raises, wherever the signal finds this process."""
        if self._forking:
            self._stop_requested = True
        else:
            super()._shutdown()

    def _give_up(self) -> None:
        """End the process of the job in hand; those forked ahead end as their pipes are closed."""
        if self.horse_pid:
            self.kill_horse()

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Let a process that was forked ahead do the job, or a new fork where there is none."""
        order = order_text(job, self.execution.id) if self.execution else ""
        self._prefork = self._pool.give(order) if order else None
        if self._prefork is None:
            super().fork_work_horse(job, queue)
        else:
            self._horse_pid = self._prefork.pid

    def wait_for_horse(self) -> Any:
        """Wait until the job is done, or for the end of its process, as rq does."""
        if self._prefork is None:
            return super().wait_for_horse()
        outcome = self._prefork.wait()
        if outcome.goes_on:
            self._pool.take_back(self._prefork)
        return self._horse_pid, outcome.status, None

    def _warm_up(self) -> Iterator[float]:
        return warm_up(project.in_use, self.connection.ping)

    def _serve(self, order: str) -> bool:
        """Run the job, within a process that was forked ahead; returns whether it may run another."""
        if not self._served:
            random.seed()
            self._is_horse = True
            self._bytes_before = resident_bytes()
        job, execution_id = self._ordered(order)
        job.redis_server_version = self.get_redis_server_version()  # type: ignore[no-untyped-call]
        execution = Execution(execution_id, job.id, self.connection, self.name)
        execution._job = job
        self.execution = execution
        self._served += 1
        outcome = job._result if self.perform_job(job, self.queues[0], execution) else None
        return may_serve_on(outcome, self._served, resident_bytes() - self._bytes_before)

    def _ordered(self, order: str) -> tuple[Job, str]:
        """The job of an order, and the id of its execution."""
        fields = json.loads(order)
        job, record = fields["job"], fields["record"]
        if not record:
            return ForgeJob.fetch(job, self.connection, self.serializer), fields["execution"]
        as_read = {name.encode(_BYTES): text.encode(_BYTES) for name, text in record.items()}
        return ForgeJob.of_record(job, as_read, self.connection), fields["execution"]

    def _at_leisure(self) -> bool:
        try:
            return not self.queues[0].count
        except RedisError:
            return True

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """How long rq believes in a worker that has gone silent."""
        return 3 * int(self.job_monitoring_interval)

    def maintain_heartbeats(self, job: Job, execution: Any) -> None:
        """Renew the job's lease too: the fork cannot while native code holds its interpreter.

        Kills a fork that has not ended itself long after its time was up, for the same reason.
        """
        scope = argument(job, "definitions")
        with outage_survived():
            if scope is not None:
                work_queue = WorkQueue(self.connection, scope)
                any(work_queue.renew(feature, job.id) for feature in self._features_of(job))
            self.stay_listed()
            super().maintain_heartbeats(job, execution)
        if job.timeout and _seconds_of(job) > job.timeout + OVERDUE_S:
            self._overdue = job.id
            self.kill_horse()

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """In the fork: do not outlive the parent, then run the job."""
        die_with_parent(os.getppid())
        super().main_work_horse(job, queue)

    def handle_work_horse_killed(
        self, job: Job, retpid: int | None, ret_val: int | None, rusage: Any
    ) -> None:
        """Give back the lease of a fork that was killed, and log it."""
        features, scope = self._features_of(job), argument(job, "definitions")
        if not features or scope is None:
            return
        overdue = self._overdue == job.id
        error = (
            f"it was not done within {job.timeout} s ({JOB_TIMEOUT}), and its process was killed"
            if overdue
            else f"the process at work was ended by {_cause(ret_val)}"
        )
        work_queue = WorkQueue(self.connection, scope)
        interrupted = (f for f in features if work_queue.died(f, job.id, error, at_fault=overdue))
        log.error(
            "refresh interrupted", feature=next(interrupted, features[0]), job=job.id, error=error
        )

    def _features_of(self, job: Job) -> list[str]:
        """Features that a job may be at work on, one at a time: its own, then the others of that one's source."""
        feature = argument(job, "feature")
        if feature is None:
            return []
        known = self._project.definitions.features if self._project else {}
        return [feature, *(of_one_source(known, feature) if feature in known else ())]

    def _open(self) -> Project | None:
        """Load the definitions, unless forks of a process that did so would hang."""
        if os.environ.get(_LATE):
            return None
        opened = super()._open()
        assert opened is not None, "the shared way opens one"
        if not _forks_are_safe():
            log.warning(
                "the definitions compute with polars while they are imported, and forks of a process "
                "that did so hang: each job imports them anew, which takes longer; compute inside the "
                "feature functions instead"
            )
            self._restart({_LATE: "1", SCOPE: opened.scope})
        return opened


def order_text(job: Job, execution: str) -> str:
    """The order to run a job, with the job as this process has read it, which spares the other a trip; without it where it is long."""
    read = job.record or {} if isinstance(job, ForgeJob) else {}
    record = {name.decode(_BYTES): text.decode(_BYTES) for name, text in read.items()}
    fields = {"job": job.id, "execution": execution, "record": record}
    text = json.dumps(fields, ensure_ascii=False)
    is_long = len(text.encode()) > ORDER_BYTES
    return json.dumps(fields | {"record": {}}) if is_long else text


def may_serve_on(outcome: str | None, served: int, grown_bytes: int) -> bool:
    """Whether a process may serve another job. outcome: that of its last job, None if the job raised an error.

    served: how many jobs it has served. grown_bytes: by how much it is larger than before the first.
    """
    return outcome in SOUND and served < JOBS_A_PROCESS and grown_bytes <= GROWTH_BYTES


def _forks_are_safe() -> bool:
    """Whether a fork of this process can use polars: tried, in a fork."""
    child = os.fork()
    if child == 0:
        import polars as pl

        groups = pl.LazyFrame({"a": [1, 2]}).group_by("a").len().collect().height
        os._exit(0 if groups == 2 else 1)
    deadline = time.monotonic() + _TRIAL_S
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _seconds_of(job: Job) -> float:
    """How long the job has been running."""
    began = job.started_at
    return 0.0 if began is None else (clock.now() - to_us(began)) / SECOND_US


def _cause(status: int | None) -> str:
    if status is None:
        return "somebody who left no word"
    if not os.WIFSIGNALED(status):
        return f"itself, with exit code {os.waitstatus_to_exitcode(status)}"
    name = signal.Signals(os.WTERMSIG(status)).name
    return f"{name}; was memory short?" if name == "SIGKILL" else name
