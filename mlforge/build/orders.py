"""Texts between the process that builds and those that run its tasks: an order goes out, an answer comes back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from mlforge.build.runner import Origin
from mlforge.engines.tasks import Task, kind_of
from mlforge.errors import TaskRefused

_TEXT = 2_000


@dataclass(frozen=True, slots=True)
class Order:
    """A task as JSON, where its definitions lie, and how many tasks one process runs at once; None for what its machine holds."""

    task: str
    origin: Origin
    at_once: int | None = None

    def to_json(self) -> str:
        """The order as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Order:
        """Read what `to_json` wrote."""
        document = json.loads(text)
        return cls(document["task"], Origin(**document["origin"]), document["at_once"])


@dataclass(frozen=True, slots=True)
class Answer:
    """The text that a process gives back that runs tasks: the result's document, or the kind and text of an error."""

    host: str
    result: dict[str, Any] | None = None
    error: str | None = None
    text: str = ""

    def to_json(self) -> str:
        """The answer as text."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, error: BaseException, host: str) -> Answer:
        """The answer that tells an error."""
        return cls(host, error=kind_of(error), text=str(error)[:_TEXT])

    @classmethod
    def from_json(cls, text: str) -> Answer:
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))

    @property
    def is_refusal(self) -> bool:
        """Whether the process cannot run such tasks, while another may."""
        return self.error == TaskRefused.__name__

    def result_of(self, task: Task) -> Any:
        """The task's result; raises the process's error, as `Task.failure` makes it."""
        if self.result is not None:
            return task.result(self.result)
        raise task.failure(self.error or "", self.text, self.host)
