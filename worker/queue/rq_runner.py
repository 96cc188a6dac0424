"""The runner "rq": the workers that there are share tasks, and so does the process that asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from mlforge.build.runner import RunHere, Runner, Task
from mlforge.core.logs import get_logger
from mlforge.definitions.registry import Definitions
from mlforge.definitions.running import workers_url_of
from mlforge.errors import MlforgeError, RunnerUnavailable
from worker import project
from worker.connection import connect
from worker.project import Project, Settings, fingerprint, scope_of
from worker.queue.rq_queue import JobQueue, is_within_job
from worker.queue.task_sharing import TaskSharing
from worker.state.shared_build import SharedBuild

log = get_logger(__name__)


def open_runner(definitions: Definitions) -> Runner:
    """The runner of a project: that of the worker in which it builds, or of the server that REDIS_URL names, or a running `mlforge up`."""
    return RqRunner(definitions)


class RqRunner(Runner):
    """Tasks through the project's own queue; each waits in Redis, and its result comes back there. Parts of a build lie in the store."""

    name = "rq"

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions

    def run(self, tasks: Sequence[Task], here: RunHere) -> Iterable[Any]:
        """Offer the tasks, run some, wait for the others; each result once it is there, while workers are at the next tasks."""
        with self._project() as at_work:
            queue = JobQueue(at_work.redis, at_work.scope)
            others = self._others(queue)
            by_id = {task.id: task for task in tasks}
            shared = SharedBuild.of(at_work.redis, at_work.scope, [*by_id])
            ask = partial(queue.enqueue_task, shared.id, at_work, at_work.hash)
            log.info("build shared", build=shared.id, tasks=len(tasks), workers=others)
            sharing = TaskSharing(shared, by_id, here, ask, min(others, len(tasks)))
            sharing.begin()
            try:
                for task in tasks:
                    yield sharing.see_through(task.id)
            finally:
                _close(shared)

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
                "no worker of this project is there to share the work: start some with 'mlforge worker' or 'mlforge up'"
            )
        return len(workers) - inside

    @contextmanager
    def _project(self) -> Iterator[Project]:
        """The project in use, or that of the server which the environment or a running `mlforge up` names, until the block ends."""
        definitions = self._definitions
        if (known := project.known()) is not None and known.definitions is definitions:
            yield known
            return
        url = workers_url_of(definitions)
        if url is None:
            raise RunnerUnavailable(
                'runner="rq" needs the workers\' Redis: set REDIS_URL, or start them with `mlforge up`'
            )
        try:
            redis: Redis = connect(url)
        except MlforgeError as error:
            raise RunnerUnavailable(str(error)) from error
        settings = Settings(url, None, Path.cwd())
        with closing(redis):
            hash_, scope = fingerprint(definitions), scope_of(definitions)
            yield Project(settings, definitions, redis, hash_, scope)


def _close(shared: SharedBuild) -> None:
    """Tell who took no part, and have the server forget the build; it does so by itself after a day where it does not answer."""
    try:
        for worker, why in shared.refusals().items():
            log.warning("a worker took no part in the build", worker=worker, why=why)
        shared.close()
    except RedisError as error:
        log.warning("the server of the workers does not answer", build=shared.id, error=str(error))
