"""Tasks of an intake done: a group of files ingested for one feature and, with the same reading, for others of its source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from mlforge.build.intake_by_tasks.tasks import IntakeResult, IntakeTask, groups_of, known_result
from mlforge.core.failpoints import reach
from mlforge.core.logs import get_logger
from mlforge.core.values import Version
from mlforge.errors import IntegrityError, TaskRefused
from mlforge.features.feature import Feature
from mlforge.frames.shared_results import shared_results
from mlforge.ingest.elsewhere import Circumstances, Guest
from mlforge.ingest.function_process import FunctionProcess
from mlforge.sources.row_source import RowSource
from mlforge.sources.source_file import SourceFile
from mlforge.sources.source_reading import KEPT_BYTES, SourceReading
from mlforge.store import Store
from mlforge.store.file_tasks import PartialWrite
from mlforge.store.task_files import TaskFiles

TURN_BYTES = 8 << 20
"""Files of so many bytes are ingested for one feature before they are for the next: their rows wait in memory meanwhile."""

log = get_logger("mlforge.build")


class LoadedFeature(NamedTuple):
    """All that a process has for tasks of a feature: its definition, its source, and where its function is bounded."""

    feature: Feature
    source: RowSource
    process: FunctionProcess | None


def run_intake_task(
    task: IntakeTask, loaded: Callable[[str], LoadedFeature], store: Store
) -> IntakeResult:
    """Ingest a task's files, write their events to the store, and return the result, which is kept there, too.

    loaded: by the name of a feature. A task that was run before gives the result of then. A file that is not here as the task
    names it has no outcome. Tasks beside it are done with the same reading; one that cannot be is left to its own turn.
    Raises VersionConflict where the task's build has ended, TaskRefused where this process has other code of the function.
    """
    files = store.task_files(task.feature)
    files.check_open()
    known = known_result(files, task)
    if known is not None:
        return known
    reading = SourceReading(task.max_bytes, KEPT_BYTES if task.beside else 0)
    own = _Work(task, loaded(task.feature), store, reading)
    if not task.beside or _ended_a_process(task, files):
        own.read(own.files)
        reach("task.ingested")
        return own.kept()
    with shared_results():
        others = _begun(task, loaded, store, reading)
        for turn in groups_of(own.files, TURN_BYTES):
            own.read(turn)
            others = [other for other in others if _could(other.task, partial(other.read, turn))]
            reading.forget()
        reach("task.ingested")
        result = own.kept()
        for other in others:
            _could(other.task, other.kept)
    return result


def _ended_a_process(task: IntakeTask, files: TaskFiles) -> bool:
    """Whether a process has begun with the task and those beside it, and has not ended it; else note that one has begun."""
    note = f"{task.id}-together"
    if files.document(note) is not None:
        return True
    files.write_document({}, note)
    return False


def _begun(
    task: IntakeTask, loaded: Callable[[str], LoadedFeature], store: Store, reading: SourceReading
) -> list[_Work]:
    """The tasks beside a task, as far as they can be done here, and were not before."""
    works: list[_Work] = []

    def begin(other: IntakeTask) -> None:
        files = store.task_files(other.feature)
        files.check_open()
        if known_result(files, other) is None:
            works.append(_Work(other, loaded(other.feature), store, reading))

    for other in task.others:
        _could(other, partial(begin, other))
    return works


def _could(task: IntakeTask, work: Callable[[], object]) -> bool:
    """Do work of a task beside another one; whether that went well. Whatever its function does, the other goes on."""
    try:
        work()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - polars' PanicException is no Exception
        log.warning("files are read again for a feature, whose turn comes", feature=task.feature, why=f"{type(error).__name__}: {error}")  # fmt: skip
        return False
    return True


class _Work:
    """A task that is being done. files: those that are here as it names them."""

    def __init__(
        self, task: IntakeTask, loaded_feature: LoadedFeature, store: Store, reading: SourceReading
    ) -> None:
        self.task, self._written = task, list[str]()
        feature, source, process = loaded_feature
        if feature.code_hash != task.code:
            raise TaskRefused(
                f"{task.feature}: the task is of other code of its function than this process has; deploy the same definitions "
                "to all machines, and restart their workers"
            )
        self._shared = store.task_files(task.feature)
        group = self._shared.document(task.group)
        if group is None:
            raise IntegrityError(
                f"{task.feature}: {task.group[:12]}, which a task names, is gone or damaged; build again"
            )
        self.files = source.files_as_listed({path: tuple(stat) for path, *stat in group["files"]})
        circumstances = Circumstances(
            frozenset(group["hive"]),
            {name: table.scan() for name, table in source.tables},
            group["tables"],
            group["forgotten"],
            store.manifest(task.feature, Version.parse(task.served)) if task.served else None,
            group["adopted"],
        )

        def write(partials: Sequence[PartialWrite]) -> None:
            self._written += self._shared.write_partials(partials, feature.spec.timestamp)

        self._guest = Guest(feature, circumstances, store, write, reading, process)

    def read(self, files: Sequence[SourceFile]) -> None:
        """Ingest some of the files."""
        self._guest.read(files)

    def kept(self) -> IntakeResult:
        """Keep the outcomes of all that was read, and the result, which is returned."""
        told = self._guest.outcomes(self.files)
        result = IntakeResult(self._shared.write_document(told.to_json()), tuple(self._written))
        self._shared.write_document(result.to_json(), self.task.id)
        return result
