"""Tasks of a full build: plain values that JSON holds, so that any process can run one and give its result back.

A task follows from the version's files alone, never from the machine, and holds no code: whoever runs it has the same
definitions and the same releases. The same task gives the same bytes wherever it runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, NamedTuple, Self

from mlforge import errors
from mlforge.core.manifest import Part
from mlforge.core.release import RELEASE
from mlforge.core.values import TimeRange
from mlforge.engines import Engine
from mlforge.errors import MlforgeError, TaskFailed, TaskRefused


def releases(engine: Engine) -> dict[str, str]:
    """The releases on which the bytes of a part depend that this engine evaluated, by library."""
    modules = {library: import_module(library) for library in engine.libraries}
    return {"mlforge": RELEASE} | {name: each.__version__ for name, each in modules.items()}


class TaskFigures(NamedTuple):
    """A task that was run: its range, the events that it read at most, the rows that it gave and their bytes in memory.

    bucket, buckets: which of the buckets of entities it was, from 1 on, and into how many the range is dealt.
    """

    times: TimeRange
    events: int
    rows: int
    bytes: int
    bucket: int = 1
    buckets: int = 1


@dataclass(frozen=True)
class BuildTask:
    """A range of time of a full build, or a bucket of its entities.

    definitions: the hash of the definitions. store: the text by which people know the store. inputs: the hash of the document that
    names the version's files, by hash. carried: the hash of what earlier events come to, where windows over all time need it.
    start, end: the range of the rows, in UTC microseconds. part_rows: the most rows in a part. releases: as `releases` gives them.
    entities: the hash of the frame of the bucket's entities, None for all. bucket, buckets: as in `TaskFigures`.
    """

    feature: str
    definitions: str
    store: str
    engine: str
    inputs: str
    carried: str | None
    start: int
    end: int
    part_rows: int
    releases: Mapping[str, str]
    entities: str | None = None
    bucket: int = 1
    buckets: int = 1

    @property
    def times(self) -> TimeRange:
        """The range of the rows."""
        return TimeRange(self.start, self.end)

    @cached_property
    def id(self) -> str:
        """SHA-256 over all that the task's result depends on, in hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def title(self) -> str:
        """The words by which a message names the task."""
        return f"{self.feature}: the task {self.id[:12]}"

    def failure(self, kind: str, text: str, where: str) -> MlforgeError:
        """The error of the task in this process, from the class's name and the text of that which another had.

        Of the same class, where it is one of mlforge's, else TaskFailed. where: the process that had it, which the text names.
        """
        own = getattr(errors, kind, None)
        if isinstance(own, type) and issubclass(own, MlforgeError):
            error: MlforgeError = own(f"{text} (on {where})")
            return error
        return TaskFailed(f"{self.title} failed on {where}: {kind}: {text}")

    def to_json(self) -> str:
        """The task as text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote; TaskRefused for a text that is no task of this release."""
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise TaskRefused(
                f"this is no task of mlforge {RELEASE} ({error}); run the same release on all machines"
            ) from error

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


def _ends(times: TimeRange | None) -> list[int] | None:
    return None if times is None else [times.start, times.end]


@dataclass(frozen=True)
class TaskResult:
    """The result of a task: the parts that it wrote, in the order of time, without names, and its figures.

    That of a bucket has at most one, which no version names: a frame that is put together with those of the other buckets.
    """

    task: str
    parts: tuple[Part, ...]
    events: int
    bytes: int

    def figures(self, task: BuildTask) -> TaskFigures:
        """The figures of the task."""
        rows = sum(part.rows for part in self.parts)
        return TaskFigures(task.times, self.events, rows, self.bytes, task.bucket, task.buckets)

    def to_json(self) -> dict[str, Any]:
        """The result as a document."""
        parts = [
            {"hash": part.hash, "rows": part.rows, "times": _ends(part.times)}
            for part in self.parts
        ]
        return {"task": self.task, "parts": parts, "events": self.events, "bytes": self.bytes}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; raises KeyError, TypeError or ValueError for anything else."""
        parts = tuple(
            Part("", part["rows"], part["times"] and TimeRange(*part["times"]), part["hash"])
            for part in document["parts"]
        )
        return cls(document["task"], parts, document["events"], document["bytes"])
