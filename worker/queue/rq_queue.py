"""Refreshes in the queue, as JSON, and who listens to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redis import Redis
from rq import Queue, Worker, get_current_job
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import import_attribute

from mlforge.core import clock
from mlforge.core.values import from_iso
from mlforge.errors import MlforgeError
from worker.project import Project

QUEUE = "mlforge"
REFRESH = "worker.queue.refresh_job.refresh"
_REFRESH_BEFORE = "worker.jobs.refresh"
"""Its name in jobs that a release before 0.6 queued: they run too."""
RESULT_TTL_S, FAILURE_TTL_S = 60, 3_600
WORKER_TTL_S = 20
MARK = "mlforge_definitions"
"""Under which a worker of ours tells which definitions it has."""


class ForgeJob(Job):
    """A job of ours: it may call the refresh and nothing else, whatever was put into the queue."""

    @property
    def func(self) -> Any:
        """The function to call; raises for any other than ours."""
        if self.func_name not in (REFRESH, _REFRESH_BEFORE):
            raise MlforgeError(
                f"job {self.id} asks for {self.func_name!r}; this queue runs {REFRESH} alone"
            )
        return import_attribute(REFRESH)

    @property
    def success_callback(self) -> None:
        """None: a name in the queue is not called."""

    @property
    def failure_callback(self) -> None:
        """None: a name in the queue is not called."""

    @property
    def stopped_callback(self) -> None:
        """None: a name in the queue is not called."""


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
                        definitions=fields.get(MARK),
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


def argument(job: Job, name: str) -> str | None:
    """An argument of a job of ours; None if it is another's."""
    try:
        value = job.kwargs.get(name)
    except (DeserializationError, NoSuchJobError):
        return None
    return value if isinstance(value, str) else None


def _seconds_since(text: str | None) -> float:
    then = from_iso(text)
    return 0.0 if then is None else (clock.now() - then) / 1_000_000
