"""The check of jobs in Redis's queue: only jobs written by a process of ours run; all others are refused.

A queue is input. A list entry that is no id, a hash that is no job, a job that asks for something else:
each is logged and removed, and the worker goes on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Self

from redis import Redis
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import TimeoutError as NoAnswer
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import import_attribute

from mlforge.core.logs import get_logger
from mlforge.errors import MlforgeError

REFRESH = "worker.queue.refresh_job.refresh"
_REFRESH_BEFORE = "worker.jobs.refresh"
"""Its name in jobs that a release before 0.6 queued: they run too."""
ARGUMENTS = ("feature", "definitions", "definitions_hash")
TAKE_PART = "worker.queue.task_job.take_part"
_TEXTS = {
    REFRESH: ARGUMENTS,
    _REFRESH_BEFORE: ARGUMENTS,
    TAKE_PART: ("build", "definitions", "definitions_hash"),
}
"""The arguments of each job that runs, all of them texts."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,300}")
_LONGEST_S = 366 * 86_400

log = get_logger(__name__)


class ForgeJob(Job):
    """A job of ours: it may call the refresh or take part in a build, and nothing else, whatever was put into the queue.

    record: its hash in Redis as it was read, None for a job that was not.
    """

    record: Mapping[bytes, bytes] | None = None

    @classmethod
    def of_record(cls, id: str, record: Mapping[bytes, bytes], connection: Redis) -> Self:
        """The job that another process has read; raises as `restore` does."""
        job = cls(id, connection=connection, serializer=JSONSerializer)
        job.restore(record)
        return job

    def restore(self, raw_data: Any) -> Any:
        """Read the job's hash; NoSuchJobError, after a word in the log, where it is no job of ours."""
        self.record = raw_data
        try:
            restored = super().restore(raw_data)
            self._check()
        except NoSuchJobError:
            raise
        except Exception as error:
            refuse(self.id, error)
            raise NoSuchJobError(f"job {self.id} is refused: {error}") from error
        return restored

    def _check(self) -> None:
        """Raise MlforgeError, or what rq raises, unless this is a job that runs here."""
        arguments = self._arguments()
        kwargs: Any = self.kwargs
        if self.args or not isinstance(kwargs, dict) or self._dependency_ids:
            raise MlforgeError(
                "a job has no other arguments than those by name, and depends on no job"
            )
        texts = [kwargs.get(name) for name in arguments]
        if set(kwargs) != set(arguments) or not all(isinstance(text, str) for text in texts):
            raise MlforgeError(f"{self.func_name} takes the texts {', '.join(arguments)}")
        if self.timeout is not None and not 0 < float(self.timeout) <= _LONGEST_S:
            raise MlforgeError(f"its timeout of {self.timeout} s is none")

    @property
    def func(self) -> Any:
        """The function to call; raises for any other than ours."""
        self._arguments()
        return import_attribute(TAKE_PART if self.func_name == TAKE_PART else REFRESH)

    def _arguments(self) -> tuple[str, ...]:
        """The names of the arguments of the job's function; MlforgeError for a function that does not run here."""
        arguments = _TEXTS.get(self.func_name or "")
        if arguments is None:
            raise MlforgeError(
                f"job {self.id} asks for {self.func_name!r}; this queue runs {REFRESH} and {TAKE_PART} alone"
            )
        return arguments

    @property
    def success_callback(self) -> None:
        """None: a name in the queue is not called."""

    @property
    def failure_callback(self) -> None:
        """None: a name in the queue is not called."""

    @property
    def stopped_callback(self) -> None:
        """None: a name in the queue is not called."""


class ForgeQueue(Queue):
    """A queue that removes entries that are no job of ours, instead of raising their errors."""

    def move_dependents_to_ready(self, *arguments: Any, **options: Any) -> dict[str, list[str]]:
        """rq's own looks for jobs that wait for this one, a trip for each job: nothing does, as a job that depends on others is refused."""
        return {}

    @classmethod
    def lmove(cls, connection: Redis, queue_key: str, timeout: int | None) -> Any:
        """rq's own, for the first entry that is an id."""
        while True:
            moved = super().lmove(connection, queue_key, timeout)
            if moved is None or is_job_id(moved[1]):
                return moved
            refuse(moved[1], "an entry of the queue that is no job's id")
            connection.lrem(IntermediateQueue.get_intermediate_queue_key(queue_key), 0, moved[1])

    @classmethod
    def _fetch_dequeued_job(
        cls, connection: Redis, queue_key: str, job_id: str, *arguments: Any, **options: Any
    ) -> tuple[Job, Queue] | None:
        """rq's own; a job that cannot be fetched is removed, since each cleaning would meet it again."""
        try:
            fetched: tuple[Job, Queue] | None = super()._fetch_dequeued_job(
                connection, queue_key, job_id, *arguments, **options
            )
        except Exception as error:
            if isinstance(error, NoConnection | NoAnswer):
                raise
            refuse(job_id, error)
            fetched = None
        if fetched is None:
            connection.delete(Job.key_for(job_id))
            connection.lrem(IntermediateQueue.get_intermediate_queue_key(queue_key), 0, job_id)
        return fetched


def queue_named(name: str, redis: Redis) -> ForgeQueue:
    """The queue of that name, whose jobs are ours."""
    return ForgeQueue(name, connection=redis, serializer=JSONSerializer, job_class=ForgeJob)


def is_job_id(entry: bytes | str) -> bool:
    """Whether an entry of a queue can be the id of a job of ours."""
    text = entry.decode(errors="replace") if isinstance(entry, bytes) else entry
    return _ID.fullmatch(text) is not None


def refuse(job: object, why: object) -> None:
    """Log a queue entry that is not run."""
    text = f"{type(why).__name__}: {why}" if isinstance(why, Exception) else str(why)
    log.error("job refused", job=str(job)[:200], error=text[:500])
