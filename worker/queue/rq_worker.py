"""The shared part of both kinds of worker: settings that cannot be wrong, definitions loaded ahead."""

from __future__ import annotations

import gc
import math
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, NoReturn

from redis import Redis
from rq import Queue, SimpleWorker
from rq.exceptions import StopRequested
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException, UnixSignalDeathPenalty
from rq.utils import now
from rq.worker.base import BaseWorker, WorkerStatus

from mlforge.core.collection import end_loading
from mlforge.core.failpoints import reach
from mlforge.core.logs import get_logger
from mlforge.definitions.building import engine_of
from mlforge.definitions.registry import Definitions
from mlforge.definitions.runners import without_address
from mlforge.errors import MissingExtra, MlforgeError
from worker import logs, project
from worker.connection import patience
from worker.ending import Ending, start_anew
from worker.project import JOB_TIMEOUT, Project, Settings
from worker.queue.intake import ForgeJob, ForgeQueue, queue_named
from worker.queue.rq_queue import (
    LIFE,
    MARK,
    QUEUE,
    RESULT_TTL_S,
    WORKER_TTL_S,
    JobQueue,
    argument,
    give_back,
    queue_of,
)
from worker.state.sign_of_life import give_sign
from worker.supervision import FAULTS, TimeIsUpError, pause_after, tell_fault

INTERVAL_S = 5
"""With rq's own intervals a killed worker would be noticed after thirteen minutes."""
_AHEAD = (
    "worker.queue.refresh_job",
    "mlforge.engines.polars_engine",
    "polars._utils.parquet",
    "pyarrow.compute",
)
"""Modules that the first job would import late, and every fork anew."""
SCOPE = "MLFORGESCOPE"
"""Tells the scope to a process that starts itself anew and does not load the definitions."""
_YOUNG_S, _STRANGER_S = 2.0, 30.0
"""How old a process is, at the least, when it starts anew for other definitions: one that had the say, any other."""
_PAUSE_S, _LOOK_S = 1.0, 0.1
_REPORT_S = 1.0
"""So long a report between jobs does for those that follow it."""

log = get_logger(__name__)


def import_ahead(definitions: Definitions) -> None:
    """Import what jobs of these definitions use, as far as it is installed: no engine that none of the features names."""
    for module in _AHEAD:
        with suppress(ImportError):
            import_module(module)
    for name in definitions.features:
        with suppress(MissingExtra):
            engine_of(definitions, name)


class Alarm(UnixSignalDeathPenalty):
    """rq's alarm, which rings with our own error where a job is what it ends."""

    def handle_death_penalty(self, signum: int, frame: Any) -> None:
        """Raise the error that the alarm was set for."""
        if issubclass(self._exception, JobTimeoutException):
            raise TimeIsUpError(f"it was not done within {self._timeout} s ({JOB_TIMEOUT})")
        super().handle_death_penalty(signum, frame)  # type: ignore[no-untyped-call]


class Forge(BaseWorker):
    """The shared part of both worker classes: settings that cannot be wrong, definitions loaded ahead."""

    log_result_lifespan = False
    death_penalty_class = Alarm
    max_connection_wait_time = 5.0

    def __init__(
        self, queues: Any = QUEUE, name: str | None = None, *, connection: Redis, **options: Any
    ) -> None:
        names = [queue if isinstance(queue, str) else queue.name for queue in _listed(queues)]
        limits = {
            "maintenance_interval": INTERVAL_S,
            "job_monitoring_interval": INTERVAL_S,
            "worker_ttl": WORKER_TTL_S,
        }
        for option, limit in limits.items():
            options[option] = min(options.get(option) or limit, limit)
        options.pop("default_worker_ttl", None)
        options |= {
            "serializer": JSONSerializer,
            "job_class": ForgeJob,
            "queue_class": ForgeQueue,
        }
        options["default_result_ttl"] = RESULT_TTL_S
        connection.set_retry(patience())
        self._project: Project | None = None
        self._opened_at = time.monotonic()
        self._reported_at = -math.inf
        self._has_just_taken = False
        self._had_say = False
        self._told_to_end = False
        self._ending: Ending | None = None
        super().__init__(names, name, connection=connection, **options)
        # rq lengthens the patience of connections to come alone. One that there is may give up at the very time at which the
        # wait for a job ends, and the client would ask again and again on it, while nothing is heard of this worker.
        connection.connection_pool.disconnect()
        connection.connection_pool.reset()

    def bootstrap(self, *arguments: Any, **options: Any) -> None:
        """Load what jobs need, then report for work."""
        logs.configure("worker")
        try:
            self._project = self._open()
        except MlforgeError as error:
            log.error("cannot start", error=str(error))
            sys.exit(1)
        end_loading()
        self._opened_at = time.monotonic()
        self._ending = Ending(Settings.read().redis_url, self._give_up)
        self._listen_to(os.environ.get(SCOPE) if self._project is None else self._project.scope)
        super().bootstrap("WARNING")
        log.info("worker ready", definitions=self._hash, name=self.name)

    def subscribe(self) -> None:
        """Listen to no channel: rq's commands by it, such as to shut down, are nothing that the server may ask of us."""

    def work(self, burst: bool = False, *arguments: Any, **options: Any) -> bool:
        """rq's own; ends the process with exit code 1 if it was not asked to end.

        At a fault, rq exits quietly with 0, which a supervisor would take for a requested stop.
        """
        worked = super().work(burst, *arguments, **options)
        bounded = burst or options.get("max_jobs") or options.get("max_idle_time")
        if not (self._told_to_end or bounded):
            log.critical("worker ends without having been asked to", name=self.name)
            sys.exit(1)
        return worked

    def request_stop(self, signum: int, frame: Any) -> None:
        """rq's own; from now on the end of the process is a requested one, whether the server is there or not."""
        self._told_to_end = True
        if self._ending is not None:
            self._ending.begin()
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]

    def _shutdown(self) -> None:
        """rq's own; notes the request, too: what a handler raises is lost where it interrupts a finalizer."""
        self._stop_requested = True
        with outage_survived():
            super()._shutdown()  # type: ignore[no-untyped-call]

    def _give_up(self) -> None:
        """End what this process has started, before it ends at once."""

    def serialize(self) -> dict[str, Any]:
        """The record of this worker on the server."""
        return {**super().serialize(), MARK: self._hash}

    def check_for_suspension(self, burst: bool) -> None:
        """rq's own."""
        with outage_survived():
            super().check_for_suspension(burst)

    def run_maintenance_tasks(self) -> None:
        """rq's own, and a look whether the definitions have changed."""
        with outage_survived():
            super().run_maintenance_tasks()  # type: ignore[no-untyped-call]
        self.last_cleaned_at: Any = now()  # also after a fault: the next turn is at the usual time
        with outage_survived():
            self._follow_definitions()

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """rq's own, for a worker whose definitions decide; another takes no job until they do.

        Nor does it end where the server answers with an error, such as that it is full.
        """
        faults = 0
        while not self._stop_requested:
            try:
                if self._has_say():
                    return super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)
                if timeout is None:
                    return None
                self._follow_definitions()
                self.heartbeat()
                faults = 0
            except StopRequested:
                raise
            except FAULTS as error:
                faults += 1
                tell_fault("take a job", error)
            self._pause(pause_after(faults) if faults else _PAUSE_S)
        raise StopRequested

    def reorder_queues(self, reference_queue: Queue) -> None:
        """rq's own, for a job that was just taken; rq would report next, in two trips, and what prepares the job reports as well."""
        self._has_just_taken = True
        super().reorder_queues(reference_queue)

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """rq's own, in one trip; between jobs, each round of its loops comes by here, and ends where an end was asked for.

        A round that reports within a moment of another, as those around a job do, has nothing new to say. Where jobs come one
        upon the other, some rounds report all the same: what prepares jobs does not look whether the worker is still listed.
        """
        has_just_taken, self._has_just_taken = self._has_just_taken, False
        if self._stop_requested and self.get_state() == WorkerStatus.IDLE:
            raise StopRequested
        is_round = timeout is None and pipeline is None
        is_news = not has_just_taken and time.monotonic() - self._reported_at >= _REPORT_S
        if is_round and not is_news:
            return
        with outage_survived():
            commands = self.connection.pipeline(transaction=False) if pipeline is None else pipeline
            life_s = timeout or self.worker_ttl + 60  # as rq has it
            super().heartbeat(life_s, commands)
            commands.hset(self.key, LIFE, life_s)
            give_sign(commands, socket.gethostname(), self.name, life_s)
            if pipeline is None:
                commands.execute()
                self.stay_listed()
        if is_round:
            self._reported_at = time.monotonic()

    def handle_execution_ended(self, job: Job, queue: Queue, heartbeat_ttl: int) -> None:
        """rq's own, without a report of the job: that of its result follows."""
        job.ended_at = now()

    def stay_listed(self) -> None:
        """Be listed again where the server has lost this worker's record: it was flushed, or this host slept for long."""
        if not self.connection.hexists(self.key, "birth"):
            # Reports since have begun it anew, and rq would take that for another worker of this name.
            self.connection.delete(self.key)
            self.register_birth()  # type: ignore[no-untyped-call]
            self.set_state(self.get_state())
            log.warning(
                "listed again: the server had lost the record of this worker", name=self.name
            )

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run a job, unless it belongs to definitions that this process does not have.

        Results lost in an outage of the server are repaired by the reconciler.
        """
        reach("job.taken")
        with outage_survived():
            if self._project is not None and not self._has_say():
                self._return(self._project, job)
                self._follow_definitions()
                return
            super().execute_job(job, queue)

    def teardown(self) -> None:
        """rq's own."""
        with outage_survived():
            super().teardown()  # type: ignore[no-untyped-call]

    def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until an end was asked for."""
        until = time.monotonic() + seconds
        while not self._stop_requested and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_S))

    @property
    def _hash(self) -> str:
        return self._project.hash[:12] if self._project else ""

    def _open(self) -> Project | None:
        opened = Project.open(Settings.read())
        project.use(opened)
        import_ahead(opened.definitions)
        for sentence in without_address(opened.definitions, opened.definitions.features):
            log.warning("a runner has no address", reason=sentence)
        gc.freeze()  # a collection in a fork would write to, and so copy, every page that holds an object
        return opened

    def _listen_to(self, scope: str | None) -> None:
        """Take jobs from the queue of the project alone, whatever the command line calls it."""
        if scope is not None:
            self.queues = [queue_named(queue_of(scope), self.connection)]
            self._ordered_queues = self.queues[:]

    def _return(self, opened: Project, job: Job) -> None:
        feature = argument(job, "feature")
        job.delete()
        if feature is not None:
            give_back(opened, feature, job.id)

    def _has_say(self) -> bool:
        """Whether the definitions of this process are the current ones; of late forks they are unknown."""
        opened = self._project
        if opened is not None and not opened.has_say():
            return False
        self._had_say = True
        return True

    def _follow_definitions(self) -> None:
        """Start this program anew, in the same process, if the watcher took up other definitions.

        Whoever has just loaded them is ahead of the watcher and waits for it, or is of another release
        than the watcher: then it looks again now and then whether its own files have changed.
        """
        age = time.monotonic() - self._opened_at
        young = age < (_YOUNG_S if self._had_say else _STRANGER_S)
        if self._stop_requested or self._has_say() or young:
            return
        log.info("definitions have changed: starting anew")
        if self._project is not None:
            JobQueue(self.connection, self._project.scope).note_start()
        self.teardown()
        self._restart({})

    def _restart(self, environment: dict[str, str]) -> NoReturn:
        """Become a new process under the same id; raises StopRequested where an end was asked for."""
        start_anew(environment, lambda: self._told_to_end)
        raise StopRequested


class ForgeSimpleWorker(Forge, SimpleWorker):
    """A worker that runs jobs in its own process: the least latency, and no protection from a job's crash."""


@contextmanager
def outage_survived() -> Iterator[None]:
    """Survive a server that is away, that refuses, or that holds entries of others."""
    try:
        yield
    except StopRequested:
        raise
    except FAULTS as error:
        tell_fault("go on with the queue", error)


def _listed(queues: Any) -> Iterable[Any]:
    return [queues] if isinstance(queues, str | Queue) else queues
