"""The parts of a training set by tasks: planned here, joined and written by whoever takes part, and checked here before they are a set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import polars as pl

from mlforge.core.logs import get_logger
from mlforge.engines import Engine
from mlforge.engines.tasks import Sharing, releases
from mlforge.errors import IntegrityError
from mlforge.store.bucket_client import each
from mlforge.training_sets.by_tasks.set_plan import PLAN, SetPlan, hash_of_text, planned_files
from mlforge.training_sets.by_tasks.set_tasks import (
    JoinTask,
    PartTask,
    SetTask,
    WrittenParts,
    run_set_task,
)
from mlforge.training_sets.document import SetDocument
from mlforge.training_sets.joining import Joining
from mlforge.training_sets.set_files import SetFiles
from mlforge.training_sets.spines import SPILLED, FileSpine, Spine
from mlforge.training_sets.writing import Written, hash_text, held_by_parquet

TASK_BYTES = 512 << 20
"""About how much the rows of a task take in memory, beside the events that they are joined with."""
_VALUE_BYTES = 16
_FIRST_ROWS = 100

log = get_logger("mlforge.training")


@dataclass(frozen=True)
class SharedWriting:
    """A set whose parts tasks write. document: the request, without rows. name: by which messages tell of the set."""

    joining: Joining
    document: SetDocument
    name: str
    files: SetFiles
    part_rows: int
    sharing: Sharing

    def written(self, spine: Spine) -> Written:
        """Write the parts; raises as one process does, and the errors of `Sharing.results`."""
        plan = self._plan(self._in_files(spine))
        self._look(spine)
        text = plan.to_text()
        with self.files.written(PLAN) as path:
            path.write_text(text, encoding="utf-8")
        planned = partial(self._tasks, hash_of_text(text), plan.at_once)
        joins = [*planned(JoinTask, plan.slice_count)]
        parts = [*planned(PartTask, plan.parts)]
        log.info("training set shared", folder=self.name, joins=len(joins), writes=len(parts))
        rows = 0
        for joined in self.sharing.results(joins, self._run, log.warning):
            rows += joined.rows
            self.joining.unknown.update(joined.unknown)
        if rows != plan.rows:
            raise IntegrityError(f"{self.name}: {rows} of {plan.rows} rows were joined")
        return self._whole([*self.sharing.results(parts, self._run, log.warning)])

    def _plan(self, spine: FileSpine) -> SetPlan:
        joining = self.joining
        files, slices = planned_files(spine, joining.time, self.part_rows, self.files)
        width = len(joining.needed) + len(joining.reading.columns)
        at_once = max(1, TASK_BYTES // (_VALUE_BYTES * max(1, width)) // self.part_rows)
        return SetPlan(
            self.document,
            self.part_rows,
            at_once,
            joining.needed,
            joining.time,
            files,
            slices,
        )

    def _in_files(self, spine: Spine) -> FileSpine:
        """The spine as files that every process reads."""
        if isinstance(spine, FileSpine):
            return spine
        path = self.files.scratch / SPILLED
        with held_by_parquet():
            pl.concat([*spine.batches(self.part_rows)]).write_parquet(path, compression="lz4")
        return FileSpine([path])

    def _look(self, spine: Spine) -> None:
        """Join the first rows here: what is said of a spine is said where the set is asked for."""
        first = next(iter(spine.batches(_FIRST_ROWS)))
        self.joining.values(first.select(self.joining.needed))
        self.joining.unknown.clear()

    def _tasks(self, plan: str, at_once: int, kind: type[SetTask], count: int) -> Iterator[SetTask]:
        engine: Engine = self.joining.engine
        for first in range(0, count, at_once):
            yield kind(
                feature=self.name,
                definitions=self.sharing.definitions,
                engine=engine.name,
                releases=releases(engine),
                files=self.files.address,
                plan=plan,
                first=first,
                end=min(first + at_once, count),
            )

    def _run(self, task: SetTask) -> object:
        return run_set_task(task, self.joining.reading.store)

    def _whole(self, results: list[WrittenParts]) -> Written:
        """The outcome, once each part is there as it was written."""
        parts = tuple(part for result in results for part in result.parts)
        for part, is_there in zip(parts, each(self.files.has, parts), strict=True):
            if not is_there:
                raise IntegrityError(
                    f"{part.file} of {self.name} is not here as a task wrote it; all who share a set must write to its folder"
                )
        digest = sum([result.digest for result in results])
        last = results[-1]
        return Written(parts, last.spine, last.columns, hash_text(digest))
