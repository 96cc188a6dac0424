"""A runner whose tasks go to the executors of a cluster, which load the definitions themselves."""

from __future__ import annotations

import copy
import socket
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

from mlforge.build.runner import Origin, RunHere, Runner
from mlforge.build.tasks import BuildTask, TaskResult
from mlforge.core.arguments import number, text
from mlforge.errors import DefinitionError, RunnerUnavailable
from mlforge.runners.orders import Answer, Order

_CONNECT_S = 5.0


class ClusterRunner(Runner):
    """Sends each task as an order, and reads the answers.

    address: of the cluster. definitions: where the executors find the project, as commands name it with an absolute path,
    if not at the place that the process which builds has loaded it from. at_once: the most tasks at once in one process of an
    executor, by default what the cores and the memory of its machine allow.
    Raises DefinitionError for an address or settings of another kind.
    """

    kind: ClassVar[str]
    """The name of such clusters in messages."""

    def __init__(
        self, address: str, *, definitions: str | None = None, at_once: int | None = None
    ) -> None:
        name = type(self).__name__
        self.address = text(address, f"{name}: address", "give the cluster's address")
        self.at_once = at_once
        if definitions is not None:
            works = "give an absolute path, or module:name"
            text(definitions, f"{name}: definitions", works)
        if at_once is not None:
            what, works = f"{name}: at_once", "give a number of tasks, 1 or more"
            if number(at_once, what, works, whole=True) < 1:
                raise DefinitionError(f"{what}={at_once!r} is below 1; {works}")
        self._elsewhere, self._origin = (
            definitions,
            None if definitions is None else _at(definitions),
        )

    def for_definitions(self, origin: Origin | None) -> Self:
        """This runner, with the place of the definitions where it has none of its own."""
        other = copy.copy(self)
        if self._elsewhere is None:
            other._origin = origin
        elif origin is not None:
            other._origin = replace(_at(self._elsewhere), profile=origin.profile)
        return other

    def run(self, tasks: Sequence[BuildTask], here: RunHere) -> Iterable[TaskResult]:
        """The results, once the executors have run all tasks; none is run here."""
        if self._origin is None:
            raise DefinitionError(
                f"{self.name}: no file holds these definitions, so that executors cannot load them: build with "
                f"'mlforge build', or say where they lie: {type(self).__name__}(..., definitions='/srv/shop/definitions.py')"
            )
        orders = [Order(task.to_json(), self._origin, self.at_once).to_json() for task in tasks]
        answers = self.answers(orders)
        return [
            Answer.from_json(answer).result_of(task)
            for task, answer in zip(tasks, answers, strict=True)
        ]

    @abstractmethod
    def answers(self, orders: Sequence[str]) -> Sequence[str]:
        """The answers of executors by `executor.answered`, in the order of the orders.

        Raises MissingExtra without the cluster's client, RunnerUnavailable where no cluster is there, or it is lost,
        TaskRefused where executors cannot run tasks, TaskFailed where one ends its executors.
        """

    def check_listens(self, *places: tuple[str, int]) -> None:
        """Raise RunnerUnavailable where nobody listens at any of these hosts and ports: clients would try for minutes."""
        for place in places:
            try:
                socket.create_connection(place, _CONNECT_S).close()
            except OSError as error:
                why = error
            else:
                return
        if places:
            raise self.unavailable(f"nobody listens there ({why})")

    def unavailable(self, why: str) -> RunnerUnavailable:
        """The error of a cluster that is not there."""
        return RunnerUnavailable(
            f"no {self.kind} at {self.address}: {why}; start it, name another, "
            'or let the build go on alone with Definitions(fallback="local")'
        )


def _at(definitions: str) -> Origin:
    return Origin(definitions, str(Path("/")))
