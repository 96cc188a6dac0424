"""The contract of a runner: who does the tasks of full builds, of pushes and of training sets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from mlforge.engines.tasks import RunHere, Task

__all__ = ["Origin", "RunHere", "Runner", "Task"]


@dataclass(frozen=True, slots=True)
class Origin:
    """The place that definitions were loaded from, so that other processes can load them, too.

    target: as commands name it, None for definitions.py. here: the absolute folder that it starts from. profile: the one
    in use, None where there is none.
    """

    target: str | None
    here: str
    profile: str | None = None


class Runner(ABC):
    """Has tasks run by other processes; no result depends on which."""

    name: ClassVar[str]

    def for_definitions(self, origin: Origin | None) -> Self:
        """This runner for builds of the definitions that lie there; None for those that no file holds."""
        return self

    @abstractmethod
    def run(self, tasks: Sequence[Task], here: RunHere) -> Iterable[Any]:
        """The result of each task, in the order of the tasks, once it is known.

        here: runs a task in this process, which may take part; a task of a build that was run before gives its result at once.
        A task whose process is lost is run again. Raises RunnerUnavailable, before any result is given, where nobody is
        there; TaskFailed, or the task's own MlforgeError, where one cannot be done.
        """
