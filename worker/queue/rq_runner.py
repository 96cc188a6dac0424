"""The runner "rq": the workers that there are share a full build, and so does the process that builds."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from uuid import uuid4

import structlog
from redis import Redis
from redis.exceptions import RedisError

from mlforge import errors
from mlforge.build.runner import RunHere, Runner
from mlforge.build.tasks import BuildTask, TaskResult
from mlforge.definitions.environment import redis_url
from mlforge.definitions.registry import Definitions
from mlforge.definitions.running import running_url
from mlforge.errors import MlforgeError, RunnerUnavailable, TaskFailed
from worker import project
from worker.connection import connect
from worker.project import Project, Settings, fingerprint, scope_of
from worker.queue.rq_queue import JobQueue, is_within_job
from worker.state.shared_build import Ended, SharedBuild

LOSSES = 3
"""So many processes may be lost at a task."""
_LOOK_S = 1

log = structlog.get_logger()


def open_runner(definitions: Definitions) -> Runner:
    """The runner of a project: that of the worker in which it builds, or of the server that REDIS_URL names, or a running `mlforge up`."""
    return RqRunner(definitions)


class RqRunner(Runner):
    """Tasks through the project's own queue; each waits in Redis, and its parts and result lie in the store."""

    name = "rq"

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions

    def run(self, tasks: Sequence[BuildTask], here: RunHere) -> Iterable[TaskResult]:
        """Offer the tasks, run some, wait for the others; the results once all have ended."""
        at_work = self._project()
        queue = JobQueue(at_work.redis, at_work.scope)
        others = self._others(queue)
        by_id = {task.id: task for task in tasks}
        shared = SharedBuild.of(at_work.redis, at_work.scope, [*by_id])
        ask = partial(queue.enqueue_task, shared.id, at_work, at_work.hash)
        log.info("build shared", build=shared.id, tasks=len(tasks), workers=others)
        try:
            _see_through(shared, by_id, here, ask, min(others, len(tasks)))
            for worker, why in shared.refusals().items():
                log.warning("a worker took no part in the build", worker=worker, why=why)
        finally:
            shared.close()
        return map(here, tasks)  # each has its result by now

    def _others(self, queue: JobQueue) -> int:
        """The number of other workers; raises RunnerUnavailable where there is no worker, and this process is none."""
        try:
            workers = [worker for worker in queue.workers() if worker.is_ours]
        except RedisError as error:
            raise RunnerUnavailable(
                f"the server of the workers does not answer ({error})"
            ) from error
        inside = is_within_job()
        if not workers and not inside:
            raise RunnerUnavailable(
                "no worker of this project is there to share the build: start some with 'mlforge worker' or 'mlforge up', "
                'or let the build go on alone with Definitions(fallback="local")'
            )
        return len(workers) - inside

    def _project(self) -> Project:
        """The project in use, or that of the server which the environment or a running `mlforge up` names."""
        definitions = self._definitions
        if (known := project.known()) is not None and known.definitions is definitions:
            return known
        url = redis_url() or _running(definitions)
        if url is None:
            raise RunnerUnavailable(
                'runner="rq" needs the workers\' Redis: set REDIS_URL, or start them with `mlforge up`'
            )
        try:
            redis: Redis = connect(url)
        except MlforgeError as error:
            raise RunnerUnavailable(str(error)) from error
        settings = Settings(url, None, Path.cwd())
        return Project(
            settings, definitions, redis, fingerprint(definitions), scope_of(definitions)
        )


def _see_through(
    shared: SharedBuild,
    tasks: Mapping[str, BuildTask],
    here: RunHere,
    ask: Callable[[], None],
    others: int,
) -> None:
    """Offer the tasks, run what waits, and let what is lost wait again, until every task has ended.

    ask: asks another worker to take part. others: how many of them are asked.
    """
    me = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
    _offer(shared, tasks, ask, others)
    while True:
        claimed = shared.take(me)
        if claimed is not None:
            with shared.renewed(claimed.id, me):
                here(tasks[claimed.id])
            shared.end(claimed.id, Ended(me))
            continue
        ended = shared.ended()
        for id, each in ended.items():
            if each.error is not None:
                raise _error(tasks[id], each)
        if len(ended) == len(tasks):
            return
        if not shared.is_known():
            # The server came back without it, or another process at the same build has ended it.
            log.warning(
                "a build is offered again, of which the server knows nothing", build=shared.id
            )
            _offer(shared, tasks, ask, others)
            continue
        for id, losses in shared.lost().items():
            log.warning("a task was lost and is run again", task=id[:12], losses=losses)
            if losses >= LOSSES:
                raise TaskFailed(
                    f"{_title(tasks[id])} ended {losses} processes that ran it; "
                    "look at what the workers log, and at the memory of their machines"
                )
            ask()
        shared.wait(_LOOK_S)


def _offer(
    shared: SharedBuild, tasks: Mapping[str, BuildTask], ask: Callable[[], None], others: int
) -> None:
    shared.offer({id: task.to_json() for id, task in tasks.items()})
    for _ in range(others):
        ask()


def _running(definitions: Definitions) -> str | None:
    return None if definitions.loaded_from is None else running_url(*definitions.loaded_from)


def _error(task: BuildTask, ended: Ended) -> MlforgeError:
    """The error of a task in this process: of the same class, where it is one of mlforge's."""
    kind = getattr(errors, ended.error or "", None)
    if isinstance(kind, type) and issubclass(kind, MlforgeError):
        error: MlforgeError = kind(ended.text)
        return error
    return TaskFailed(f"{_title(task)} failed on {ended.worker}: {ended.error}: {ended.text}")


def _title(task: BuildTask) -> str:
    return f"{task.feature}: the task {task.id[:12]}"
