"""A runner as bad as a cluster can be: tasks travel as JSON, in any order, some lost midway, some run twice."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mlforge.build.runner import RunHere, Runner, Task
from mlforge.core import failpoints
from mlforge.metrics import Rolling, ToDate
from tests.support.projects import Project, rows

USERS = 12
SHAPES: dict[str, dict[str, Any]] = {
    "continuous": {
        "metrics": [Rolling(["12h", "9d"], {"amount": ["sum", "mean", "std", "p90", "last"]})]
    },
    "over all time": {"metrics": [Rolling("all", {"amount": ["sum", "count", "mean", "std"]})]},
    "aligned": {
        "metrics": [Rolling("9d", {"amount": "sum"}), ToDate("1w", {"amount": "mean"})],
        "interval": "6h",
    },
    "without metrics": {"metrics": []},
    "without keys": {"metrics": [Rolling("9d", {"amount": ["sum", "last"]})], "keys": []},
    "without a time": {"metrics": [], "timestamp": None, "source": "users"},
}
"""Features of every kind whose rows are made by tasks."""
SOME_SHAPES = [
    shape if shape in ("aligned", "over all time") else pytest.param(shape, marks=pytest.mark.slow)
    for shape in SHAPES
]
"""Their names; the default run takes two kinds, and all of them where tasks build versions."""


def uneven(root: Path) -> Project:
    """Amounts of twelve users over nine days whose sums round, and a table of users, not built yet."""
    project = Project(root)
    for number in range(3):
        events = [
            (n % USERS, number * 3 + n / 20, math.exp(math.sin(n * number + 1) * 9) / 7)
            for n in range(60)
        ]
        project.drop(f"days{number}", rows(*events))
    project.drop("../users/all", rows(*((n, n / 2, n**3 / 7) for n in range(20))))
    return project


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
        self.intakes: list[Any] = []
        self.most = 1 << 30

    def run(self, tasks: Sequence[Task], here: RunHere) -> Iterable[Any]:
        self.tasks = list(tasks)
        self.intakes += [task for task in tasks if task.kind == "intake"]
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
            for place in ("task.ingested", "task.written", "task.put", "task.set"):
                failpoints.arm(place, killed)
            try:
                run(task.to_json())
            except TaskKilledError:
                pass
            finally:
                failpoints.disarm()
                failpoints._armed.update(armed)
        return task.result(json.loads(run(task.to_json())))
