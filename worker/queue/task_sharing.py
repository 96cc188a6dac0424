"""A shared build from the offer of its tasks to the end of the last one, as the process that builds sees it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from redis.exceptions import RedisError

from mlforge.build.runner import RunHere, Task
from mlforge.core.logs import get_logger
from mlforge.errors import RunnerUnavailable, TaskFailed
from worker.state.shared_build import Claimed, Ended, SharedBuild

LOSSES = 3
"""So many processes may be lost at a task."""
_LOOK_S = 1.0
ASK_AGAIN_S, SELDOM_S = 1.0, 60.0
"""How long to wait until others are asked in place of workers that take no part: first, and at the most."""

log = get_logger(__name__)


class TaskSharing:
    """The tasks of one build, some run here and some by workers, until each has its result.

    here: runs a task in this process. ask: asks another worker to take part. others: how many of them are asked.
    """

    def __init__(
        self,
        shared: SharedBuild,
        tasks: Mapping[str, Task],
        here: RunHere,
        ask: Callable[[], None],
        others: int,
    ) -> None:
        self._shared, self._tasks, self._here = shared, tasks, here
        self._ask, self._others = ask, others
        self._me = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self._results: dict[str, Any] = {}
        self._is_alone = False
        self._pause_s, self._ask_at = ASK_AGAIN_S, 0.0

    def begin(self) -> None:
        """Offer the tasks. Raises RunnerUnavailable where the server does not answer."""
        try:
            self._offer()
        except RedisError as error:
            raise RunnerUnavailable(
                f"the server of the workers does not answer ({error})"
            ) from error

    def see_through(self, task: str) -> Any:
        """Run what waits, and let what is lost wait again, until a task has ended; returns its result.

        While the server does not answer this process goes on alone, and the workers come in again once it does. Raises
        TaskFailed or a task's own error where one, whichever, cannot be done.
        """
        while task not in self._results:
            try:
                if self._is_alone:
                    self._offer()
                    self._is_alone = False
                    log.info("workers share the build again", build=self._shared.id)
                self._look()
            except RedisError as error:
                if not self._is_alone:
                    log.warning(
                        "goes on with a build alone, as the server of the workers does not answer",
                        build=self._shared.id,
                        error=str(error),
                    )
                self._is_alone = True
                self._run_alone()
        return self._results[task]

    def _offer(self) -> None:
        """Let all tasks wait that have not ended, and ask workers to take part."""
        left = {id: task.to_json() for id, task in self._tasks.items() if id not in self._results}
        self._shared.offer(left)
        for _ in range(min(self._others, len(left))):
            self._ask()

    def _look(self) -> None:
        """Run a task that waits; if there is none, see what has become of those that others took."""
        self._ask_again()
        claimed = self._shared.take_left(self._me) or self._shared.take(self._me)
        if claimed is not None:
            self._run(claimed)
            return
        self._note_ended()
        if len(self._results) == len(self._tasks):
            return
        if not self._shared.is_known():
            # The server came back without it, or another process at the same build has ended it.
            log.warning(
                "a build is offered again, of which the server knows nothing", build=self._shared.id
            )
            self._offer()
            return
        self._note_lost()
        self._shared.wait(_LOOK_S)

    def _run(self, claimed: Claimed) -> None:
        with self._shared.renewed(claimed.id, self._me, self._ask_again):
            self._results[claimed.id] = self._here(self._tasks[claimed.id])
        self._shared.end(claimed.id, Ended(self._me))

    def _ask_again(self) -> None:
        """Ask others in place of workers that take no part, after a pause that doubles each time: they may be all there are."""
        now = time.monotonic()
        if now < self._ask_at:
            return
        declined = self._shared.take_declined()
        if not declined:
            return
        self._pause_s, self._ask_at = min(2 * self._pause_s, SELDOM_S), now + self._pause_s
        for _ in range(min(declined, len(self._tasks) - len(self._results))):
            self._ask()

    def _run_alone(self) -> None:
        """Run the last task that has not ended: workers are more likely to be at the first ones."""
        left = [id for id in self._tasks if id not in self._results]
        if left:
            self._results[left[-1]] = self._here(self._tasks[left[-1]])

    def _note_ended(self) -> None:
        """Note the tasks that have ended; raises the error of one that failed."""
        for id, ended in self._shared.ended().items():
            if ended.error is not None:
                raise self._tasks[id].failure(ended.error, ended.text, ended.worker)
            if id not in self._results:
                self._results[id] = self._told(self._tasks[id], ended.text)

    def _told(self, task: Task, text: str) -> Any:
        """The result that a worker told; a task whose result cannot be read is run here."""
        try:
            return task.result(json.loads(text))
        except (KeyError, TypeError, ValueError):
            return self._here(task)

    def _note_lost(self) -> None:
        """Ask for others at tasks whose processes were lost; raises TaskFailed where that helps no more."""
        for id, losses in self._shared.lost().items():
            log.warning("a task was lost and is run again", task=id[:12], losses=losses)
            if losses >= LOSSES:
                raise TaskFailed(
                    f"{self._tasks[id].title} ended {losses} processes that ran it; "
                    "look at what the workers log, and at the memory of their machines"
                )
            self._ask()
