"""The contract of a runner: who evaluates the tasks of a full build."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from mlforge.build.tasks import BuildTask, TaskResult

RunHere = Callable[[BuildTask], TaskResult]


class Runner(ABC):
    """Has the tasks of a build run by other processes; no result depends on which."""

    name: ClassVar[str]

    @abstractmethod
    def run(self, tasks: Sequence[BuildTask], here: RunHere) -> Iterable[TaskResult]:
        """The result of each task, in the order of the tasks, once it is known.

        here: runs a task in this process, which may take part; a task that was run before gives its result at once. A task
        whose process is lost is run again. Raises RunnerUnavailable, before any task is run, where nobody is
        there; TaskFailed, or the task's own MlforgeError, where one cannot be done.
        """
