"""A runner whose tasks go to the executors of a cluster, which load the definitions themselves."""

from __future__ import annotations

import copy
import os
import re
import socket
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from mlforge.build.orders import Answer, Order
from mlforge.build.runner import Origin, RunHere, Runner, Task
from mlforge.core.arguments import number, text
from mlforge.errors import (
    DefinitionError,
    MlforgeError,
    RunnerUnavailable,
    TaskFailed,
    TaskRefused,
)

START_S = 120
"""Seconds for an executor to take its first task, unless a runner is told others: a cluster may have to start a machine."""
_CONNECT_S, _LONGEST_S = 5.0, 31_536_000
_BARE = "No module named 'mlforge"


class ClusterRunner(Runner):
    """Sends each task as an order, and reads the answers.

    address: of the cluster. definitions: where the executors find the project, as commands name it with an absolute path,
    if not at the place that the process which builds has loaded it from. at_once: the most tasks at once in one process of an
    executor, by default what the cores and the memory of its machine allow. start_within: the most seconds until an executor
    takes a first task; a cluster without any would let a build wait for ever.
    Raises DefinitionError for an address or settings of another kind.
    """

    kind: ClassVar[str]
    """The name of such clusters in messages."""

    lost: ClassVar[tuple[str, ...]]
    """Texts in errors of the client by which it says that the cluster is gone."""

    def __init__(
        self,
        address: str,
        *,
        definitions: str | None = None,
        at_once: int | None = None,
        start_within: float = START_S,
    ) -> None:
        name = type(self).__name__
        self.address = text(address, f"{name}: address", "give the cluster's address")
        self.places()
        self.at_once = at_once
        if definitions is not None:
            works = "give an absolute path, or module:name"
            text(definitions, f"{name}: definitions", works)
        if at_once is not None:
            what, works = f"{name}: at_once", "give a number of tasks, 1 or more"
            if number(at_once, what, works, whole=True) < 1:
                raise DefinitionError(f"{what}={at_once!r} is below 1; {works}")
        what, works = f"{name}: start_within", "give a number of seconds"
        if not 0 < number(start_within, what, works) <= _LONGEST_S:
            raise DefinitionError(
                f"{what}={start_within!r} is not from above 0 to {_LONGEST_S:,}; {works}"
            )
        self.start_within = start_within
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

    def run(self, tasks: Sequence[Task], here: RunHere) -> Iterable[Any]:
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

    @property
    def shown(self) -> str:
        """The address as messages have it: without passwords, and without parameters such as the token of Spark Connect."""
        scheme, separator, _ = self.address.rpartition("://")
        return scheme + separator + self._hosts().rpartition("@")[2]

    def places(self) -> list[tuple[str, int]]:
        """The hosts and ports of the address of which one must listen; none where it names none. DefinitionError for no such address."""
        return []

    def parsed_places(self, port: int) -> list[tuple[str, int]]:
        """The hosts of the address, which commas part, each with its port or this one; as `places`."""
        try:
            urls = [urlsplit(f"//{host}") for host in self._hosts().rpartition("@")[2].split(",")]
            return [(url.hostname or "", url.port or port) for url in urls]
        except ValueError as error:
            raise DefinitionError(
                f"{type(self).__name__}: address={self.shown!r}: {error}; give a host and a port, such as host:{port}"
            ) from error

    def _without_secrets(self, text: str) -> str:
        return text.replace(self.address, self.shown)

    def _hosts(self) -> str:
        """The part of the address from the scheme to the path or the parameters."""
        return re.split("[/;?#]", self.address.rpartition("://")[2], maxsplit=1)[0]

    @contextmanager
    def client_errors(self) -> Iterator[None]:
        """Whatever the cluster's client raises in the block, while it connects too, is raised as an error of mlforge."""
        try:
            yield
        except MlforgeError:
            raise
        except Exception as error:
            raise self.failure(error) from error

    def check_listens(self) -> None:
        """Raise RunnerUnavailable where nobody listens at any place of the address: clients would try for minutes."""
        places = self.places()
        for place in places:
            try:
                socket.create_connection(place, _CONNECT_S).close()
            except OSError as error:
                why = error
            else:
                return
        if places:
            raise self.unavailable(f"nobody listens there ({why})")

    def idle(self) -> RunnerUnavailable:
        """The error of a cluster of which no executor takes a task."""
        return self.unavailable(f"no executor has taken a task within {self.start_within:g} s")

    def failure(self, error: BaseException) -> MlforgeError:
        """The error of tasks that did not end, from the client's."""
        text = self._without_secrets(f"{type(error).__name__}: {' '.join(str(error).split())}")
        if any(sign in text for sign in self.lost):
            return self.unavailable(
                f"it was lost amid the build, which takes up what is done when it is begun again ({text[:300]})"
            )
        if _BARE in text:
            return TaskRefused(
                f"executors of {self.shown} have no mlforge of this release ({text[-300:]}); install it in the environment "
                "whose Python runs their tasks"
            )
        return TaskFailed(f"the tasks on {self.shown} did not end: {text[:1_000]}")

    def unavailable(self, why: str) -> RunnerUnavailable:
        """The error of a cluster that is not there."""
        return RunnerUnavailable(
            f"no {self.kind} at {self.shown}: {self._without_secrets(why)}; start it, or name another"
        )


def _at(definitions: str) -> Origin:
    return Origin(definitions, str(Path("/")))


def address_in(variable: str, what: str, runner: type[ClusterRunner], example: str) -> str:
    """The address of a cluster in an environment variable; DefinitionError without one. what: the thing that is addressed."""
    address = os.environ.get(variable)
    if not address:
        raise DefinitionError(
            f'"{runner.name}" needs the address of a {what}: set {variable}={example}, '
            f"or write runner={runner.__name__}({example!r})"
        )
    return address
