"""Tasks of a training set: the slices of its spine are joined, then the parts are written; each by any process that has the store.

All that tasks write lies beside the set's place, each file whole or not at all. The same task writes the same bytes, and one
that is late finds its place gone.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import polars as pl

from mlforge.core.failpoints import reach
from mlforge.core.schema import Column, Schema
from mlforge.engines import engine_named
from mlforge.engines.tasks import Result, Task
from mlforge.errors import IntegrityError
from mlforge.store import Store
from mlforge.training_sets.by_tasks.planned_rows import rows_of, slices_of
from mlforge.training_sets.by_tasks.set_plan import SetPlan
from mlforge.training_sets.document import SetPart
from mlforge.training_sets.joining import HEAP, ROW, Joining
from mlforge.training_sets.places import files_at
from mlforge.training_sets.set_files import SetFiles
from mlforge.training_sets.writing import Parts

_GROUP = 16_384
"""Rows of a row group of answers, of which a part reads those that it needs."""


@dataclass(frozen=True)
class SetTask(Task):
    """A task of a training set: from `first` until before `end`, of its slices or of its parts.

    files: the address of the files that those share who make the set, the plan among them. plan: its hash.
    """

    files: str
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

    Raises TaskRefused where this process does not reach the set's files, or has another store; RetrievalError and IntegrityError as a
    training set by one process does.
    """
    with files_at(task.files, store) as files:
        plan = SetPlan.of(files, task.plan)
        run = _joined if isinstance(task, JoinTask) else _parts
        result: Result = run(task, plan, store, files)
    reach("task.set")
    return result


def _joined(task: SetTask, plan: SetPlan, store: Store, files: SetFiles) -> JoinedSlices:
    """Join some slices, and put the values aside for each of the tasks that write parts."""
    document, engine = plan.document, engine_named(plan.document.engine)
    reading = plan.reading(store)
    joining = Joining.checked(reading, plan.head, document.timestamp, engine, warns=False)
    answers = [
        joining.values(rows.drop(ROW)).hstack([rows[ROW]])
        for rows in slices_of(plan, task.first, task.end)
    ]
    rows = sum([answer.height for answer in answers])
    if answers:
        of_task = plan.part_rows * plan.at_once
        numbered = pl.concat(answers).sort(ROW).with_columns((pl.col(ROW) // of_task).alias(HEAP))
        for (number,), values in numbered.partition_by(
            HEAP, as_dict=True, include_key=False
        ).items():
            folder = plan.answers(int(str(number)) * plan.at_once)
            with files.written(f"{folder}/{task.first:07d}.parquet") as path:
                values.write_parquet(
                    path, compression="lz4", row_group_size=_GROUP, statistics=True
                )
    return JoinedSlices(rows, dict(joining.unknown))


def _parts(task: SetTask, plan: SetPlan, store: Store, files: SetFiles) -> WrittenParts:
    """Write some parts."""
    answers = pl.scan_parquet([*files.read(plan.answers(task.first))], glob=False)
    own = files.scratch / uuid.uuid4().hex
    own.mkdir()
    parts = Parts(own, files.place, task.first, rows=task.first * plan.part_rows)
    for number in range(task.first, task.end):
        begin = number * plan.part_rows
        spine = rows_of(plan, begin, plan.part_rows)
        is_own = pl.col(ROW).is_between(begin, begin + spine.height - 1)
        values = answers.filter(is_own).collect().sort(ROW)
        if values.height != spine.height:
            raise IntegrityError(f"{task.feature}: values of some rows of part {number} are gone")
        parts.write(spine, values.drop(ROW))
    return WrittenParts(tuple(parts.written), parts.digest, parts.spine, parts.columns)
