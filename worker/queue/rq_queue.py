"""Refreshes in the queue, as JSON, and who listens to it."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from redis import Redis
from redis.exceptions import ResponseError
from rq import get_current_job
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.job import Job
from rq.worker.base import BaseWorker
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from mlforge.core import clock
from mlforge.core.values import SECOND_US, from_iso
from mlforge.errors import MlforgeError
from worker.project import Project
from worker.queue.intake import REFRESH, TAKE_PART, queue_named

QUEUE = "mlforge"
"""The queue's name on command lines: a worker of ours listens on that of its own project."""
RESULT_TTL_S, FAILURE_TTL_S = 60, 3_600
WORKER_TTL_S = 20
STARTS_WITHIN_S = 15
"""So long a worker that becomes a new process is not missed."""
MARK = "mlforge_definitions"
"""Under which a worker of ours tells which definitions it has."""
LIFE = "mlforge_life_s"
"""Under which it tells how long the server keeps its record after each report: hosts need not agree on the time."""


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker on our queue, as the server knows it."""

    name: str
    host: str
    pid: int
    state: str
    definitions: str | None
    silent_s: float = 0.0
    unreadable: str | None = None
    """A description of what is in Redis in its place, if no worker wrote it."""

    @property
    def is_dead(self) -> bool:
        """Whether it should have reported long ago; one that is not ours reports seldom."""
        return self.is_ours and self.silent_s > WORKER_TTL_S

    @property
    def is_ours(self) -> bool:
        """Whether it is a ForgeWorker; another would read our JSON as pickle and fail each job."""
        return self.definitions is not None


class JobQueue:
    """The job queue of one project, named by its scope."""

    def __init__(self, redis: Redis, scope: str) -> None:
        self._redis = redis
        self._scope = scope
        self._queue = queue_named(queue_of(scope), redis)

    def enqueue(self, jobs: Mapping[str, str], definitions_hash: str, timeout_s: int) -> None:
        """Add refreshes, in one trip. jobs: by features, their ids, which were never used before."""
        commands = self._redis.pipeline()
        for feature, job in jobs.items():
            self._queue.enqueue_call(
                REFRESH,
                kwargs={
                    "feature": feature,
                    "definitions": self._scope,
                    "definitions_hash": definitions_hash,
                },
                timeout=timeout_s,
                result_ttl=RESULT_TTL_S,
                failure_ttl=FAILURE_TTL_S,
                job_id=job,
                description=f"refresh {feature}",
                pipeline=commands,
            )
        commands.execute()

    def enqueue_task(self, build: str, at_work: Project, definitions_hash: str) -> None:
        """Ask a worker to take part in a build of the project. definitions_hash: that of the build."""
        self._queue.enqueue_call(
            TAKE_PART,
            kwargs={
                "build": build,
                "definitions": self._scope,
                "definitions_hash": definitions_hash,
            },
            timeout=at_work.settings.job_timeout_s,
            result_ttl=RESULT_TTL_S,
            failure_ttl=FAILURE_TTL_S,
            job_id=f"task-{uuid4().hex}",
            description=f"take part in the build {build}",
        )

    def entry(self, job: str) -> list[str]:
        """The keys that a waiting job takes: the queue's, and its own."""
        return [self._queue.key, Job.key_for(job)]

    def waiting(self) -> set[str]:
        """The ids of jobs that no worker has taken yet."""
        entries: Any = self._redis.lrange(self._queue.key, 0, -1)
        return {entry.decode(errors="replace") for entry in entries}

    def has_waiting(self) -> bool:
        """Whether there are jobs that no worker has taken yet."""
        return bool(self._redis.llen(self._queue.key))

    def note_start(self) -> None:
        """Note that a worker becomes a new process, which listens in a moment."""
        self._redis.set(self._starting, "", ex=STARTS_WITHIN_S)

    def is_starting(self) -> bool:
        """Whether a worker has lately become a new process."""
        return bool(self._redis.exists(self._starting))

    @property
    def _starting(self) -> str:
        return f"mlforge-work:{self._scope}:starting"

    def workers(self) -> list[WorkerState]:
        """The workers that listen on the queue, including those whose records cannot be read."""
        keys: Any = self._redis.smembers(WORKERS_BY_QUEUE_KEY % self._queue.name)
        states = []
        for key in sorted(keys):
            name = key.decode(errors="replace").rpartition(":")[2]
            try:
                commands = self._redis.pipeline(transaction=False)
                commands.hgetall(key)
                commands.pttl(key)
                record, left_ms = commands.execute()
                state = _worker_state(name, record, left_ms)
            except (
                ValueError,
                TypeError,
                ResponseError,
            ) as error:  # a UnicodeDecodeError is a ValueError
                state = WorkerState(name, "?", 0, "?", None, unreadable=str(error))
            if state is not None and not state.is_dead:
                states.append(state)
        return states


def queue_of(scope: str) -> str:
    """The name of a project's queue."""
    return f"{QUEUE}-{scope}"


def _worker_state(name: str, raw: Any, left_ms: int) -> WorkerState | None:
    """A worker by its own record, which the server keeps for a while; None if it has ended. Raises ValueError for a record that no worker wrote."""
    fields = {key.decode(): value.decode() for key, value in raw.items()}
    if "birth" not in fields or "death" in fields:
        return None
    return WorkerState(
        name=name,
        host=fields.get("hostname", ""),
        pid=int(fields.get("pid", 0)),
        state=fields.get("state", "?"),
        definitions=fields.get(MARK),
        silent_s=_silent_s(fields, left_ms),
    )


def _silent_s(fields: Mapping[str, str], left_ms: int) -> float:
    """The seconds since a worker's last report, by the server's clock where it has told how long its record lives."""
    if LIFE in fields and left_ms >= 0:
        return float(fields[LIFE]) - left_ms / 1000
    return _seconds_since(fields.get("last_heartbeat"))


def enqueue(at_work: Project, feature: str, job: str | None) -> None:
    """Enqueue the job with this id, if there is an id."""
    if job is not None:
        enqueue_each(at_work, {feature: job})


def enqueue_each(at_work: Project, jobs: Mapping[str, str]) -> None:
    """Enqueue jobs, by features their ids, in one trip."""
    if jobs:
        queue = JobQueue(at_work.redis, at_work.scope)
        queue.enqueue(jobs, at_work.hash, at_work.settings.job_timeout_s)


def give_back(at_work: Project, feature: str, job: str) -> None:
    """Put a job that this process must not run back into the queue, under a new id."""
    ticket = at_work.work_queue.read([feature])[0]
    if ticket.queued == job:
        enqueue(at_work, feature, at_work.work_queue.requeue(ticket))


def current_job_id() -> str:
    """The id of the job that runs in this process."""
    job = get_current_job()
    if job is None:
        raise MlforgeError(f"{REFRESH} is called by a worker; `mlforge build` refreshes by hand")
    return job.id


def current_worker() -> str:
    """The host and the worker of the job that runs in this process."""
    job = get_current_job()
    return f"{socket.gethostname()} {job.worker_name if job is not None else os.getpid()}"


def is_within_job() -> bool:
    """Whether a job runs in this process."""
    return get_current_job() is not None


def is_worker_ending(redis: Redis) -> bool:
    """Whether the worker of the job that runs in this process was asked to end after it."""
    job = get_current_job()
    if job is None or not job.worker_name:
        return False
    key = f"{BaseWorker.redis_worker_namespace_prefix}{job.worker_name}"
    return bool(redis.hexists(key, "shutdown_requested_date"))


def argument(job: Job, name: str) -> str | None:
    """An argument of a job of ours; None if it is another's."""
    try:
        value = job.kwargs.get(name)
    except (DeserializationError, NoSuchJobError):
        return None
    return value if isinstance(value, str) else None


def _seconds_since(text: str | None) -> float:
    then = from_iso(text)
    return 0.0 if then is None else (clock.now() - then) / SECOND_US
