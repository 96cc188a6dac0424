"""Tasks of a training set: the slices of its spine are joined, then the parts are written; each by any process that has the store.

All that tasks write lies in hidden folders beside the set's place, each file whole or not at all: it takes its name once it is
written. The same task writes the same bytes, and one that is late finds its folder gone.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import polars as pl

from mlforge.core.failpoints import reach
from mlforge.core.schema import Column, Schema
from mlforge.engines import engine_named
from mlforge.engines.tasks import Result, Task
from mlforge.errors import IntegrityError, TaskRefused
from mlforge.store import Store
from mlforge.training_sets.document import SetPart
from mlforge.training_sets.joining import Joining
from mlforge.training_sets.planned_rows import rows_of, slices_of
from mlforge.training_sets.set_plan import ANSWERS, SetPlan
from mlforge.training_sets.writing import ROW, Parts

_GROUP = 16_384
"""Rows of a row group of answers, of which a part reads those that it needs."""


@dataclass(frozen=True)
class SetTask(Task):
    """A task of a training set: from `first` until before `end`, of its slices or of its parts.

    folder: the set's scratch folder, in which its plan lies. plan: the hash of that.
    """

    folder: str
    plan: str
    first: int
    end: int

    def check(self, definitions: str) -> None:
        """Accept any definitions: the plan says what is read, and of which store."""


@dataclass(frozen=True)
class JoinTask(SetTask):
    """Slices of the spine, to be joined with the features' values."""

    kind = "join"

    def result(self, document: Mapping[str, Any]) -> JoinedSlices:
        """The number of rows, and the labels that are unknown."""
        return JoinedSlices(document["rows"], document["unknown"])


@dataclass(frozen=True)
class PartTask(SetTask):
    """Parts of the set, to be written from the spine's rows and the joined values."""

    kind = "parts"

    def result(self, document: Mapping[str, Any]) -> WrittenParts:
        """The parts."""
        return WrittenParts.from_json(document)


@dataclass(frozen=True)
class JoinedSlices:
    """The result of a join: how many rows it has, and for each label those that are null as their horizon is not over."""

    rows: int
    unknown: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """The result as a document."""
        return {"rows": self.rows, "unknown": dict(self.unknown)}


@dataclass(frozen=True)
class WrittenParts:
    """The result of a task that wrote parts: the parts, the sum of the digests of the spine's rows, and both schemas."""

    parts: tuple[SetPart, ...]
    digest: int
    spine: Schema
    columns: Schema

    def to_json(self) -> dict[str, Any]:
        """The result as a document."""
        return {
            "parts": [[part.file, part.rows, part.hash] for part in self.parts],
            "digest": str(self.digest),
            "spine": [[column.name, column.dtype] for column in self.spine],
            "columns": [[column.name, column.dtype] for column in self.columns],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; raises KeyError, TypeError or ValueError for anything else."""
        return cls(
            tuple(SetPart(*part) for part in document["parts"]),
            int(document["digest"]),
            tuple(Column(*column) for column in document["spine"]),
            tuple(Column(*column) for column in document["columns"]),
        )


def run_set_task(task: SetTask, store: Store) -> Result:
    """Run a task.

    Raises TaskRefused where this process does not reach the set's folder, or has another store; RetrievalError and IntegrityError as a
    training set by one process does.
    """
    plan = SetPlan.of(Path(task.folder), task.plan)
    result: Result = (_joined if isinstance(task, JoinTask) else _parts)(task, plan, store)
    reach("task.set")
    return result


def _joined(task: SetTask, plan: SetPlan, store: Store) -> JoinedSlices:
    """Join some slices, and put the values aside in the order of the spine."""
    document, engine = plan.document, engine_named(plan.document.engine)
    reading = plan.reading(store)
    joining = Joining.checked(reading, plan.head, document.timestamp, engine, warns=False)
    answers = [
        joining.values(rows.drop(ROW)).hstack([rows[ROW]])
        for rows in slices_of(plan, task.first, task.end)
    ]
    rows = sum([answer.height for answer in answers])
    if answers:
        folder = Path(task.folder) / ANSWERS
        with _placed(folder / f"{task.first:07d}.parquet", Path(task.folder)) as path:
            pl.concat(answers).sort(ROW).write_parquet(
                path, compression="lz4", row_group_size=_GROUP, statistics=True
            )
    return JoinedSlices(rows, dict(joining.unknown))


def _parts(task: SetTask, plan: SetPlan, store: Store) -> WrittenParts:
    """Write some parts."""
    scratch = Path(task.folder)
    answers = pl.scan_parquet(scratch / ANSWERS / "*.parquet")
    own = scratch / uuid.uuid4().hex
    own.mkdir()
    parts = Parts(own, task.first, rows=task.first * plan.part_rows)
    for number in range(task.first, task.end):
        begin = number * plan.part_rows
        spine = rows_of(plan, begin, plan.part_rows)
        is_own = pl.col(ROW).is_between(begin, begin + spine.height - 1)
        values = answers.filter(is_own).collect().sort(ROW)
        if values.height != spine.height:
            raise IntegrityError(f"{task.feature}: values of some rows of part {number} are gone")
        parts.write(spine, values.drop(ROW))
    staged = Path(plan.staged)
    for part in parts.written:
        _renamed(own / part.file, staged / part.file)
    return WrittenParts(tuple(parts.written), parts.digest, parts.spine, parts.columns)


@contextmanager
def _placed(path: Path, scratch: Path) -> Iterator[Path]:
    """A path to write to, of which the file takes its own place once the block ends."""
    written = scratch / uuid.uuid4().hex
    try:
        yield written
        _renamed(written, path)
    finally:
        written.unlink(missing_ok=True)


def _renamed(written: Path, path: Path) -> None:
    try:
        written.replace(path)
    except OSError as error:
        raise TaskRefused(
            f"{path} cannot be written ({error.strerror}): the set is finished or given up, or this machine does not reach its folder"
        ) from error
