"""The queue and the worker class; the only module that knows rq.

    rq worker -w worker.queue.ForgeWorker -S json mlforge

is all that a supervisor needs to run: serializer, intervals and queue are set right by the class,
whatever the command line says. The parent imports polars, duckdb and the definitions, but never uses
an engine: a process that has used polars cannot fork children that do. Each job runs in a fork, which
was made, and warmed up, before the job came.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn

import structlog
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker, Worker, get_current_job
from rq.exceptions import DeserializationError, NoSuchJobError, StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException, UnixSignalDeathPenalty
from rq.worker.base import BaseWorker

from mlforge import clock
from mlforge.errors import MissingExtra, MlforgeError
from mlforge.failpoints import reach
from mlforge.values import from_iso, to_us
from worker import logs, project
from worker.leash import die_with_parent
from worker.project import JOB_TIMEOUT, Project, Settings
from worker.rehearsal import rehearse
from worker.spares import Spare, Spares
from worker.tickets import Tickets

QUEUE = "mlforge"
REFRESH = "worker.jobs.refresh"
OVERDUE_S = 5
"""What a job that ran into its timeout has left to say so, before its process is killed."""
RESULT_TTL_S, FAILURE_TTL_S = 60, 3_600
WORKER_TTL_S, INTERVAL_S = 20, 5
"""With rq's own intervals a killed worker would be noticed after thirteen minutes."""
_MARK = "mlforge_definitions"
_LATE = "MLFORGE_LOAD_LATE"
_AHEAD = (
    "mlforge.engines.polars_engine",
    "mlforge.engines.duckdb_engine",
    "polars._utils.parquet",
    "pyarrow.compute",
)
"""What the first job would import late, and every fork anew."""
_YOUNG_S, _STRANGER_S = 2.0, 30.0
"""How old a process is, at the least, when it starts anew for other definitions: one that had the say, any other."""
_PAUSE_S = 1.0
_SPARES = 2
"""A drop often concerns several features, which come one after the other."""

log = structlog.get_logger()


class ForgeJob(Job):
    """A job of ours: it may call the refresh and nothing else, whatever was put into the queue."""

    @property
    def func(self) -> Any:
        """The function to call; raises for any other than ours."""
        if self.func_name != REFRESH:
            raise MlforgeError(
                f"job {self.id} asks for {self.func_name!r}; this queue runs {REFRESH} alone"
            )
        return super().func

    @property
    def success_callback(self) -> None:
        """None: a name in the queue is not called."""

    @property
    def failure_callback(self) -> None:
        """None: a name in the queue is not called."""

    @property
    def stopped_callback(self) -> None:
        """None: a name in the queue is not called."""


class TimeIsUpError(BaseException):
    """A job has run for as long as it may; no Exception, so that nobody takes it for a fault of a file."""


class Alarm(UnixSignalDeathPenalty):
    """rq's alarm, which rings with our own error where a job is what it ends."""

    def handle_death_penalty(self, signum: int, frame: Any) -> None:
        """Raise what the alarm was set for."""
        if issubclass(self._exception, JobTimeoutException):
            raise TimeIsUpError(f"it was not done within {self._timeout} s ({JOB_TIMEOUT})")
        super().handle_death_penalty(signum, frame)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker on our queue, as the server knows it."""

    name: str
    host: str
    pid: int
    state: str
    definitions: str | None
    silent_s: float = 0.0

    @property
    def is_dead(self) -> bool:
        """Whether it should have reported long ago; one that is not ours reports seldom."""
        return self.is_ours and self.silent_s > WORKER_TTL_S

    @property
    def is_ours(self) -> bool:
        """Whether it is a ForgeWorker; another would read our JSON as pickle and fail each job."""
        return self.definitions is not None


class JobQueue:
    """Puts refreshes into the queue, and looks at it."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._queue = Queue(QUEUE, connection=redis, serializer=JSONSerializer, job_class=ForgeJob)

    def enqueue(
        self, job: str, feature: str, scope: str, definitions_hash: str, timeout_s: int
    ) -> None:
        """Add a refresh under an id that was never used before."""
        self._queue.enqueue_call(
            REFRESH,
            kwargs={
                "feature": feature,
                "definitions": scope,
                "definitions_hash": definitions_hash,
            },
            timeout=timeout_s,
            result_ttl=RESULT_TTL_S,
            failure_ttl=FAILURE_TTL_S,
            job_id=job,
            description=f"refresh {feature}",
        )

    def waiting(self) -> set[str]:
        """The ids of jobs that no worker has taken yet."""
        return set(self._queue.get_job_ids())

    def workers(self) -> list[WorkerState]:
        """The workers that listen on the queue."""
        found = []
        for key in sorted(Worker.all_keys(queue=self._queue)):
            raw: Any = self._redis.hgetall(key)
            fields = {name.decode(): value.decode() for name, value in raw.items()}
            if "birth" in fields and "death" not in fields:
                found.append(
                    WorkerState(
                        name=key.rpartition(":")[2],
                        host=fields.get("hostname", ""),
                        pid=int(fields.get("pid", 0)),
                        state=fields.get("state", "?"),
                        definitions=fields.get(_MARK),
                        silent_s=_seconds_since(fields.get("last_heartbeat")),
                    )
                )
        return [worker for worker in found if not worker.is_dead]


def enqueue(at_work: Project, feature: str, job: str | None) -> None:
    """Enqueue the job that a ticket asked for, if it did."""
    if job is not None:
        JobQueue(at_work.redis).enqueue(
            job, feature, at_work.scope, at_work.hash, at_work.settings.job_timeout_s
        )


def give_back(at_work: Project, feature: str, job: str) -> None:
    """Put a job that this process must not run back into the queue, under a new id."""
    ticket = at_work.tickets.read([feature])[0]
    if ticket.queued == job:
        enqueue(at_work, feature, at_work.tickets.requeue(ticket))


def current_job_id() -> str:
    """The id of the job that runs in this process."""
    job = get_current_job()
    if job is None:
        raise MlforgeError(f"{REFRESH} is called by a worker; `mlforge build` refreshes by hand")
    return job.id


class _Forge(BaseWorker):
    """What both worker classes share: settings that cannot be wrong, definitions loaded ahead."""

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
        options |= {"serializer": JSONSerializer, "job_class": ForgeJob}
        options["default_result_ttl"] = RESULT_TTL_S
        connection.set_retry(project.patience())
        self._project: Project | None = None
        self._opened_at = time.monotonic()
        self._had_say = False
        super().__init__(names, name, connection=connection, **options)

    def bootstrap(self, *arguments: Any, **options: Any) -> None:
        """Load what jobs need, then report for work."""
        logs.configure("worker")
        try:
            self._project = self._open()
        except MlforgeError as error:
            log.error("cannot start", error=str(error))
            sys.exit(1)
        self._opened_at = time.monotonic()
        super().bootstrap("WARNING")
        log.info("worker ready", definitions=self._hash, name=self.name)

    def serialize(self) -> dict[str, Any]:
        """What the server is told about this worker."""
        return {**super().serialize(), _MARK: self._hash}

    def check_for_suspension(self, burst: bool) -> None:
        """rq's own."""
        with _outage_survived():
            super().check_for_suspension(burst)

    def run_maintenance_tasks(self) -> None:
        """rq's own, and a look whether the definitions have changed."""
        with _outage_survived():
            super().run_maintenance_tasks()  # type: ignore[no-untyped-call]
            self._follow_definitions()

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """rq's own, for a worker whose definitions decide; another takes no job until they do.

        Nor does it end where the server answers with an error, such as that it is full.
        """
        while True:
            try:
                if self._has_say():
                    return super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)
                if timeout is None:
                    return None
                self._follow_definitions()
                self.heartbeat()
            except RedisError as error:
                log.warning("server away", error=str(error))
            time.sleep(_PAUSE_S)

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """rq's own."""
        with _outage_survived():
            super().heartbeat(timeout, pipeline)

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run a job, unless it belongs to definitions that this process does not have.

        What an outage of the server takes from it is found by the reconciler.
        """
        reach("job.taken")
        with _outage_survived():
            if self._project is not None and not self._has_say():
                self._return(self._project, job)
                self._follow_definitions()
                return
            super().execute_job(job, queue)

    def teardown(self) -> None:
        """rq's own."""
        with _outage_survived():
            super().teardown()  # type: ignore[no-untyped-call]

    @property
    def _hash(self) -> str:
        return self._project.hash[:12] if self._project else ""

    def _open(self) -> Project | None:
        opened = Project.open(Settings.read())
        project.use(opened)
        for module in _AHEAD:
            with suppress(ImportError, MissingExtra):
                import_module(module)
        gc.freeze()  # a collection in a fork would write to, and so copy, every page that holds an object
        return opened

    def _return(self, opened: Project, job: Job) -> None:
        feature = _argument(job, "feature")
        job.delete()
        if feature is not None:
            give_back(opened, feature, job.id)

    def _has_say(self) -> bool:
        """Whether the definitions of this process are those in use; those of late forks are not known."""
        if self._project is not None and not self._project.is_current():
            return False
        self._had_say = True
        return True

    def _follow_definitions(self) -> None:
        """Start this program anew, in the same process, if the watcher took up other definitions.

        Whoever has just loaded them is ahead of the watcher and waits for it, or is of another release
        than the watcher: then it looks again now and then whether its own files have changed.
        """
        age = time.monotonic() - self._opened_at
        if self._has_say() or age < (_YOUNG_S if self._had_say else _STRANGER_S):
            return
        log.info("definitions have changed: starting anew")
        self.teardown()
        self._restart({})

    def _restart(self, environment: dict[str, str]) -> NoReturn:
        """Become a new process under the same id: a supervisor sees nothing of it."""
        argv = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, argv, {**os.environ, **environment})


class ForgeWorker(_Forge, Worker):
    """Forks a process per job: none imports anything, and none can take the worker down."""

    _overdue: str | None = None
    _forking = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._hired: Spare | None = None
        self._tell: Callable[[], object] = lambda: None
        self._spares = Spares(_SPARES, self.setup_work_horse_signals, self._rehearsed, self._serve)

    def teardown(self) -> None:
        """rq's own, and the end of the spares."""
        if not self.is_horse:
            self._spares.dismiss()
        super().teardown()

    def dequeue_job_and_maintain_ttl(self, *arguments: Any, **options: Any) -> Any:
        """Wait for a job, with spares at hand; while jobs wait, forks ahead of them would only compete."""
        if self._spares.wanting and self._at_leisure():
            self._refill()
        return super().dequeue_job_and_maintain_ttl(*arguments, **options)

    def _refill(self) -> None:
        """Fork spares; a request to stop waits for it: what is raised within a fork's hooks is lost."""
        self._forking = True
        try:
            self._spares.refill()
        finally:
            self._forking = False
        if self._stop_requested:
            raise StopRequested

    def _shutdown(self) -> None:
        """rq's own; it raises, wherever the signal finds this process."""
        if self._forking:
            self._stop_requested = True
        else:
            super()._shutdown()  # type: ignore[no-untyped-call]

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Let a spare do the job, or a new fork where there is none."""
        order = (
            json.dumps({"job": job.id, "execution": self.execution.id}) if self.execution else ""
        )
        self._hired = self._spares.give(order) if order else None
        if self._hired is None:
            super().fork_work_horse(job, queue)
        else:
            self._horse_pid = self._hired.pid

    def wait_for_horse(self) -> Any:
        """Wait until the job is done, or for the end of its process, as rq does."""
        if self._hired is None:
            return super().wait_for_horse()
        return self._horse_pid, self._hired.wait(), None

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """rq's own; nothing is left to do in this process then."""
        done = super().perform_job(job, queue, execution)
        self._tell()
        return done

    def _rehearsed(self) -> Iterator[None]:
        self.connection.ping()
        yield
        yield from rehearse(project.in_use)

    def _serve(self, order: str, tell: Callable[[], object]) -> None:
        """In a spare: run the job as a fork made for it would."""
        self._tell = tell
        ids = json.loads(order)
        job = self.job_class.fetch(
            ids["job"], connection=self.connection, serializer=self.serializer
        )
        job.redis_server_version = self.get_redis_server_version()  # type: ignore[no-untyped-call]
        execution = Execution.fetch(ids["execution"], job.id, connection=self.connection)
        execution._job = job
        self.execution = execution
        self.main_work_horse(job, self.queues[0])

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
        feature, scope = _argument(job, "feature"), _argument(job, "definitions")
        with _outage_survived():
            if feature is not None and scope is not None:
                Tickets(self.connection, scope).renew(feature, job.id)
            super().maintain_heartbeats(job, execution)
        if job.timeout and _seconds_of(job) > job.timeout + OVERDUE_S:
            self._overdue = job.id
            self.kill_horse()

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """In the fork: do not outlive the parent, then run the job."""
        die_with_parent(os.getppid(), signal.SIGKILL)
        super().main_work_horse(job, queue)

    def handle_work_horse_killed(
        self, job: Job, retpid: int | None, ret_val: int | None, rusage: Any
    ) -> None:
        """Give back the lease of a fork that was killed, and say so."""
        feature, scope = _argument(job, "feature"), _argument(job, "definitions")
        if feature is None or scope is None:
            return
        overdue = self._overdue == job.id
        error = (
            f"it was not done within {job.timeout} s ({JOB_TIMEOUT}), and its process was killed"
            if overdue
            else f"the process at work was ended by {_cause(ret_val)}"
        )
        Tickets(self.connection, scope).died(feature, job.id, error, at_fault=overdue)
        log.error("refresh interrupted", feature=feature, job=job.id, error=error)

    def _open(self) -> Project | None:
        """Load the definitions, unless forks of a process that did so would hang."""
        if os.environ.get(_LATE):
            return None
        opened = super()._open()
        if not _forks_are_safe():
            log.warning(
                "the definitions compute with polars while they are imported, and forks of a process "
                "that did so hang: each job imports them anew, which takes longer; compute inside the "
                "feature functions instead"
            )
            self._restart({_LATE: "1"})
        return opened


class ForgeSimpleWorker(_Forge, SimpleWorker):
    """Runs jobs in its own process: the least latency, and no protection from what a job does."""


def _forks_are_safe(timeout_s: float = 3.0) -> bool:
    """Whether a fork of this process can use polars: tried, in a fork."""
    child = os.fork()
    if child == 0:
        import polars as pl

        groups = pl.LazyFrame({"a": [1, 2]}).group_by("a").len().collect().height
        os._exit(0 if groups == 2 else 1)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


@contextmanager
def _outage_survived() -> Iterator[None]:
    """A server that is away or refuses is no reason to end: it is asked again later."""
    try:
        yield
    except RedisError as error:
        log.warning("server away", error=str(error))


def _seconds_of(job: Job) -> float:
    """How long the job has been running."""
    began = job.started_at
    return 0.0 if began is None else (clock.now() - to_us(began)) / 1_000_000


def _cause(status: int | None) -> str:
    if status is None:
        return "somebody who left no word"
    if not os.WIFSIGNALED(status):
        return f"itself, with exit code {os.waitstatus_to_exitcode(status)}"
    name = signal.Signals(os.WTERMSIG(status)).name
    return f"{name}; was memory short?" if name == "SIGKILL" else name


def _seconds_since(text: str | None) -> float:
    then = from_iso(text)
    return 0.0 if then is None else (clock.now() - then) / 1_000_000


def _argument(job: Job, name: str) -> str | None:
    try:
        value = job.kwargs.get(name)
    except (DeserializationError, NoSuchJobError):
        return None
    return value if isinstance(value, str) else None


def _listed(queues: Any) -> Iterable[Any]:
    return [queues] if isinstance(queues, str | Queue) else queues
