"""Texts between the process that builds and the executors of a cluster: an order goes out, an answer comes back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from mlforge.build.runner import Origin
from mlforge.engines.tasks import Task

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
    """The text that an executor gives back: the result's document, or the class and text of an error."""

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
        return cls(host, error=type(error).__name__, text=str(error)[:_TEXT])

    @classmethod
    def from_json(cls, text: str) -> Answer:
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))

    def result_of(self, task: Task) -> Any:
        """The task's result; raises the executor's error, of the same class where it is one of mlforge's, else TaskFailed."""
        if self.result is not None:
            return task.result(self.result)
        raise task.failure(self.error or "", self.text, self.host)
