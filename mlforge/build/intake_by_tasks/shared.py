"""An intake by many processes: new files are cut into groups, ingested wherever a runner has it done, and taken up here alone.

Events and results lie in the store until then. A task that is lost is run again, and an intake that is begun again, since its
process was lost, takes up what is there. What other processes cannot do is done here, file by file, as without them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mlforge.build.intake_by_tasks.companions import Companion, tasks_beside
from mlforge.build.intake_by_tasks.planning import IntakePlan
from mlforge.build.intake_by_tasks.running import LoadedFeature, run_intake_task
from mlforge.build.intake_by_tasks.tasks import IntakeResult, IntakeTask, groups_of, known_result
from mlforge.core.logs import get_logger
from mlforge.errors import IntegrityError, TaskFailed, UnsupportedStore
from mlforge.ingest.elsewhere import Adopted, Outcomes
from mlforge.ingest.function_process import FunctionProcess
from mlforge.sources.source_file import SourceFile
from mlforge.sources.source_reading import SETTLED_NS
from mlforge.store.task_files import TaskFiles

EVENT_BYTES = 16
"""Bytes that an event takes in a file, roughly: so many files hold more events than `Sharing.above`."""

log = get_logger("mlforge.build")


@dataclass
class SharedIntake:
    """Has large numbers of new files of one listing ingested by tasks.

    group_bytes: the most bytes of a task's files. process: as in `ingest`, for tasks that are run here. companions: gives features for which
    the same reading is to do. warnings: those of the sharing. tasks: how many there were so far.
    """

    plan: IntakePlan
    group_bytes: int
    process: FunctionProcess | None
    companions: Callable[[], Sequence[Companion]]
    warnings: list[str] = field(default_factory=list)
    tasks: int = 0

    def outcomes(
        self,
        files: Sequence[SourceFile],
        tables: Mapping[str, str],
        adopted: Adopted | None = None,
    ) -> Outcomes:
        """The outcomes of files that tasks have ingested, whose events the store has from now on; of none where they are few.

        Parts of tables and of other features are left to this process: what names them may not be there elsewhere.
        """
        plan, groups = self.plan, [*groups_of(files, self.group_bytes)]
        if len(groups) < 2 or not self._is_large(files) or plan.listing.version:
            return Outcomes()
        begun = time.time_ns()
        try:
            tasks = plan.tasks_of(groups, tables, adopted)
        except UnsupportedStore:
            return Outcomes()
        if adopted is None:
            beside = tasks_beside(plan, self.companions(), files, groups)
            pairs = zip(tasks, beside, strict=True)
            tasks = [replace(task, beside=others) for task, others in pairs]
        self.tasks += len(tasks)
        name = plan.feature.name
        log.info("intake shared", feature=name, tasks=len(tasks), files=len(files))
        shared = plan.store.task_files(name)
        told = _Told(shared, self._here)
        for task, result in self._results(tasks, shared):
            if not told.add(task, result):
                break
        return told.taken({file.path: file for file in files}, begun)

    def _is_large(self, files: Sequence[SourceFile]) -> bool:
        return sum([file.stat.size for file in files]) > EVENT_BYTES * self.plan.sharing.above

    def _here(self, task: IntakeTask) -> IntakeResult:
        loaded_feature = LoadedFeature(self.plan.feature, self.plan.source, self.process)
        return run_intake_task(replace(task, beside=()), lambda _: loaded_feature, self.plan.store)

    def _results(
        self, tasks: Sequence[IntakeTask], files: TaskFiles
    ) -> Iterator[tuple[IntakeTask, IntakeResult]]:
        """The results of the tasks up to one that fails, and of those behind it that have ended; the others are left to this process."""
        sharing, name = self.plan.sharing, self.plan.feature.name
        results = iter(sharing.results(tasks, self._here, self.warnings.append))
        for number, task in enumerate(tasks):
            try:
                result = next(results)
            except TaskFailed as error:
                log.warning("files are read here, as a task failed", feature=name, why=str(error))
                ended = ((left, known_result(files, left)) for left in tasks[number:])
                yield from ((left, known) for left, known in ended if known is not None)
                return
            yield task, result


class _Told:
    """The results of tasks, gathered until all have ended."""

    def __init__(self, files: TaskFiles, here: Callable[[IntakeTask], IntakeResult]) -> None:
        self._files, self._here = files, here
        self._results: list[tuple[IntakeTask, IntakeResult]] = []
        self._outcomes: list[Outcomes] = []

    def add(self, task: IntakeTask, result: IntakeResult) -> bool:
        """Note the result of a task; False where no other needs to be asked for.

        Nobody needs to where the function must see the whole source, or where the first that was asked reaches none of its files.
        """
        told = result.told(self._files)
        if told is None:
            result = self._here(task)
            told = result.told(self._files)
        if told is None:
            raise _gone(task)
        self._results.append((task, result))
        self._outcomes.append(told)
        if not told.files and len(self._outcomes) == 1:
            log.warning("files are read here, as others do not reach them", feature=task.feature)
            return False
        return told.unproven is None

    def taken(self, files: Mapping[str, SourceFile], begun: int) -> Outcomes:
        """The outcomes of all tasks, once the store has taken their events.

        begun: when the tasks were made, by this machine's clock. A file that had changed just before is read again next
        time, whatever the clocks of others say.
        """
        unproven = next((each.unproven for each in self._outcomes if each.unproven), None)
        if unproven is not None:
            return Outcomes(unproven=unproven)
        self._make_whole()
        self._files.take_partials([*self._partials()])
        told = {path: outcome for each in self._outcomes for path, outcome in each.files.items()}
        for path, outcome in told.items():
            if begun - files[path].stat.ctime_ns <= SETTLED_NS:
                told[path] = replace(outcome, is_settled=False)
        return Outcomes(
            told,
            sum([each.files_read for each in self._outcomes]),
            tuple(warning for each in self._outcomes for warning in each.warnings),
        )

    def _partials(self) -> Iterator[str]:
        for _, result in self._results:
            yield from result.partials

    def _make_whole(self) -> None:
        """Run tasks again of whose events a file is gone or damaged. Raises IntegrityError where that does not help."""
        lacking = self._files.lacks_partials([*self._partials()])
        for number, (task, result) in enumerate(self._results):
            if not lacking.isdisjoint(result.partials):
                again = self._here(task)
                self._results[number] = task, again
                if self._files.lacks_partials(again.partials):
                    raise _gone(task)


def _gone(task: IntakeTask) -> IntegrityError:
    return IntegrityError(
        f"{task.feature}: what a task that has just ended has written is gone or damaged; all workers must reach {task.store}"
    )
