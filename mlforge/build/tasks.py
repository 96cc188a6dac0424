"""Tasks of a full build: they follow from the version's files alone, never from the machine.

The same task gives the same bytes wherever it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from mlforge.core import machine
from mlforge.core.manifest import Part
from mlforge.core.values import TimeRange
from mlforge.engines.tasks import Task

TASK_MEMORY = 4 << 30
"""Bytes of memory that a task is reckoned with: twice the 2 GiB of its events."""


def tasks_at_once(memory: int) -> int:
    """The number of tasks that this machine runs at once in so many bytes: as many as have a core, at least one."""
    return max(1, min(machine.cores(), memory // TASK_MEMORY))


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
class BuildTask(Task):
    """A range of time of a full build, or a bucket of its entities.

    store: the text by which people know the store. inputs: the hash of the document that
    names the version's files, by hash. carried: the hash of what earlier events come to, where windows over all time need it.
    start, end: the range of the rows, in UTC microseconds. part_rows: the most rows in a part.
    entities: the hash of the frame of the bucket's entities, None for all. bucket, buckets: as in `TaskFigures`. run: as in `Sharing`.
    """

    kind = "build"

    store: str
    inputs: str
    carried: str | None
    start: int
    end: int
    part_rows: int
    entities: str | None = None
    bucket: int = 1
    buckets: int = 1
    run: str = ""

    @property
    def times(self) -> TimeRange:
        """The range of the rows."""
        return TimeRange(self.start, self.end)

    @property
    def is_dealt(self) -> bool:
        """Whether it is a bucket of the range's entities, whose rows are a frame to be put together with the others."""
        return self.entities is not None

    def result(self, document: Mapping[str, Any]) -> TaskResult:
        """The parts and figures."""
        return TaskResult.from_json(document)


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
