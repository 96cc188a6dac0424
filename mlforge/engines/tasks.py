"""Tasks: pieces of an engine's work as plain values that JSON holds, so that any process can run one and give its result back.

A task holds no code and names no machine: whoever runs it has the same releases, and reaches the same stores.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, ClassVar, Protocol, Self

from mlforge import errors
from mlforge.core.release import RELEASE
from mlforge.engines.base import Engine
from mlforge.errors import MlforgeError, StoreUnavailable, TaskFailed, TaskRefused

Warn = Callable[[str], None]


def releases(engine: Engine) -> dict[str, str]:
    """The releases on which the bytes depend that this engine evaluates, by library."""
    modules = {library: import_module(library) for library in engine.libraries}
    return {"mlforge": RELEASE} | {name: each.__version__ for name, each in modules.items()}


class Result(Protocol):
    """The result of a task: a value that JSON holds."""

    def to_json(self) -> dict[str, Any]:
        """The result as a document."""
        ...


@dataclass(frozen=True)
class Task(ABC):
    """A piece of work on one feature, or on what is made of several.

    feature: the name by which messages tell of it. definitions: the hash of those that ask for it. engine: its name.
    releases: as `releases` gives them.
    """

    kind: ClassVar[str]
    """How JSON tells this kind of task from others."""

    feature: str
    definitions: str
    engine: str
    releases: Mapping[str, str]

    @cached_property
    def id(self) -> str:
        """SHA-256 over all that the task's result depends on, in hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def title(self) -> str:
        """The words by which a message names the task."""
        return f"{self.feature}: the task {self.id[:12]}"

    @abstractmethod
    def result(self, document: Mapping[str, Any]) -> Any:
        """The task's result from its document; raises KeyError, TypeError or ValueError for anything else."""

    def failure(self, kind: str, text: str, where: str) -> MlforgeError:
        """The error of the task in this process, from the `kind_of` and the text of that which another had.

        Of the same class, where it is one of mlforge's; StoreUnavailable for an OSError, else TaskFailed. where: the process that
        had it, which the text names.
        """
        own = getattr(errors, kind, None)
        if isinstance(own, type) and issubclass(own, MlforgeError):
            error: MlforgeError = own(f"{text} (on {where})")
            return error
        told = f"{self.title} failed on {where}: {kind}: {text}"
        return StoreUnavailable(told) if kind == OSError.__name__ else TaskFailed(told)

    def to_json(self) -> str:
        """The task as text."""
        return json.dumps({"kind": self.kind, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The task of a document without its kind; raises TypeError for one that has other fields."""
        return cls(**document)

    def check(self, definitions: str) -> None:
        """Raise TaskRefused where this process has other definitions than the task."""
        if self.definitions != definitions:
            raise TaskRefused(
                f"{self.feature}: the task is of the definitions {self.definitions[:12]}, this process has {definitions[:12]}; "
                "deploy the same definitions to all machines, and restart their workers"
            )

    def check_releases(self, engine: Engine) -> None:
        """Raise TaskRefused where this process has other releases than the task, of which this is the engine."""
        for library, number in releases(engine).items():
            if (theirs := self.releases.get(library)) != number:
                raise TaskRefused(
                    f"{self.feature}: the task is of {library} {theirs}, this process has {library} {number}; "
                    "parts would differ in their bytes: install the same release on all machines"
                )


def kind_of(error: BaseException) -> str:
    """The name by which `Task.failure` knows an error: of the nearest of its classes that is of mlforge's tree, or OSError, else of its own."""
    for kind in type(error).__mro__:
        if kind is OSError or getattr(errors, kind.__name__, None) is kind:
            return kind.__name__
    return type(error).__name__


def task_of(text: str, kinds: Mapping[str, type[Task]]) -> Task:
    """The task that `to_json` wrote, of one of these kinds; TaskRefused for a text that is no task of this release."""
    try:
        document = json.loads(text)
        return kinds[document.pop("kind")].from_document(document)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TaskRefused(
            f"this is no task of mlforge {RELEASE} ({error}); run the same release on all machines"
        ) from error


RunHere = Callable[[Any], Any]
"""Runs a task in this process, and gives its result."""


class Sharing(Protocol):
    """Who takes part in work that is large.

    above: the number of events, or of a spine's rows, above which work is shared. definitions: their hash. run: the id of a run
    whose tasks take up no result of another run's, else empty.
    """

    @property
    def above(self) -> int: ...  # noqa: D102

    @property
    def definitions(self) -> str: ...  # noqa: D102

    @property
    def run(self) -> str: ...  # noqa: D102

    def results(self, tasks: Sequence[Task], here: RunHere, warn: Warn) -> Iterable[Any]:
        """The result of each task, in the order of the tasks.

        warn: called with the reason where nobody else takes part, if this process may go on alone. Raises RunnerUnavailable
        where it may not, and a task's own errors.
        """
        ...
