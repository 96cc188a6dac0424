"""Tasks of an intake: groups of a source's files, each read, hashed, validated and kept as events by any process that reaches them.

What a task writes follows from the bytes of its files and from the feature: it takes no stored events for granted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

from mlforge.engines.tasks import Task, task_of
from mlforge.errors import DefinitionError, MlforgeError, TaskFailed, TaskRefused
from mlforge.ingest.elsewhere import Outcomes
from mlforge.sources.source_file import SourceFile
from mlforge.store.task_files import TaskFiles

GROUP_BYTES, GROUP_FILES = 32 << 20, 2_048
"""A group of files has so many bytes and so many files at most, or one file."""


class GroupFigures(NamedTuple):
    """A group of files: the paths of the first and the last, how many there are, and their bytes."""

    first: str
    last: str
    files: int
    bytes: int

    @classmethod
    def of(cls, group: Sequence[SourceFile]) -> Self:
        """The figures of a group."""
        return cls(group[0].path, group[-1].path, len(group), sum([f.stat.size for f in group]))


def groups_of(files: Sequence[SourceFile], most_bytes: int) -> Iterator[list[SourceFile]]:
    """The files in their order, cut into groups that follow from their sizes alone."""
    group: list[SourceFile] = []
    size = 0
    for file in files:
        if group and (size + file.stat.size > most_bytes or len(group) == GROUP_FILES):
            yield group
            group, size = [], 0
        group.append(file)
        size += file.stat.size
    if group:
        yield group


@dataclass(frozen=True)
class IntakeTask(Task):
    """A group of files to be ingested.

    store: the text by which people know the store. group: the hash of the document that names the files, and what they are
    to be told of the rest of the source. code: the hash of the function. served: the version that is served, empty before
    the first. max_bytes: the memory that a file may take. run: as in `Sharing`.
    beside: tasks of other features over the same files, as JSON, which are to be done with the same reading.
    """

    kind = "intake"

    store: str
    group: str
    code: str
    served: str
    max_bytes: int | None
    run: str = ""
    beside: tuple[str, ...] = ()

    @cached_property
    def id(self) -> str:
        """The id of the task, whatever is done beside it."""
        return replace(self, beside=()).id if self.beside else super().id

    @property
    def others(self) -> tuple[IntakeTask, ...]:
        """The tasks beside it."""
        tasks = (task_of(text, {self.kind: IntakeTask}) for text in self.beside)
        return tuple(task for task in tasks if isinstance(task, IntakeTask))

    def result(self, document: Mapping[str, Any]) -> IntakeResult:
        """The names of what was written."""
        return IntakeResult.from_json(document)

    def failure(self, kind: str, text: str, where: str) -> MlforgeError:
        """TaskFailed, but for what is wrong with the definitions or the process: at home the same files may do."""
        error = super().failure(kind, text, where)
        if isinstance(error, (DefinitionError, TaskFailed, TaskRefused)):
            return error
        return TaskFailed(f"{self.title} failed on {where}: {kind}: {text}")


@dataclass(frozen=True)
class IntakeResult:
    """The result of a task: the hash of the document of its files' outcomes, and the files of events that it wrote."""

    outcomes: str
    partials: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The result as a document."""
        return {"outcomes": self.outcomes, "partials": [*self.partials]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; raises KeyError or TypeError for anything else."""
        return cls(document["outcomes"], tuple(document["partials"]))

    def told(self, files: TaskFiles) -> Outcomes | None:
        """The outcomes; None where they are gone or damaged."""
        try:
            return Outcomes.from_json(files.document(self.outcomes) or {})
        except (AttributeError, KeyError, TypeError, ValueError):
            return None


def known_result(files: TaskFiles, task: IntakeTask) -> IntakeResult | None:
    """The result of a task that was run before, if all that it wrote is whole."""
    try:
        result = IntakeResult.from_json(files.document(task.id) or {})
    except (KeyError, TypeError):
        return None
    return None if result.told(files) is None or files.lacks_partials(result.partials) else result
