"""A runner as bad as a cluster can be: tasks travel as JSON, in any order, some lost midway, some run twice."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mlforge.build.runner import RunHere, Runner, Task
from mlforge.core import failpoints


class TaskKilledError(BaseException):
    """The process of a task is gone."""


def killed() -> None:
    raise TaskKilledError


class Scattered(Runner):
    """Runs tasks by `executors`, each as another process would have it: from a task's JSON to its result's."""

    name = "scattered"

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.executors: list[Callable[[str], str]] = []
        self.tasks: list[Any] = []
        self.most = 1 << 30

    def run(self, tasks: Sequence[Task], here: RunHere) -> Iterable[Any]:
        self.tasks = list(tasks)
        results: dict[str, Any] = {}
        for task in self.random.sample(self.tasks, len(tasks))[: self.most]:
            for _ in range(self.random.choice([1, 1, 2])):
                results[task.id] = self.one(task)
        if len(results) < len(tasks):
            raise TaskKilledError
        return [results[task.id] for task in tasks]

    def one(self, task: Any) -> Any:
        """A task's result, perhaps after its process was killed before it could tell."""
        run = self.random.choice(self.executors)
        if self.random.random() < 0.3:
            armed = dict(failpoints._armed)  # a test's own stay as they are
            for place in ("task.written", "task.put", "task.set"):
                failpoints.arm(place, killed)
            try:
                run(task.to_json())
            except TaskKilledError:
                pass
            finally:
                failpoints.disarm()
                failpoints._armed.update(armed)
        return task.result(json.loads(run(task.to_json())))
