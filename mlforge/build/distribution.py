"""A full build by many processes: planned into tasks, run wherever a runner has them run, published here once.

Parts and results lie in the store until then. A task that is lost is run again, and a build that is begun again, since its
process was lost, takes up what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import polars as pl

from mlforge.build.full import BuildRange, FullBuild, Told
from mlforge.build.rows import Layout, pieces_of
from mlforge.build.runner import Runner
from mlforge.build.tasks import BuildTask, TaskResult
from mlforge.core.failpoints import reach
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.logs import get_logger
from mlforge.core.manifest import Part
from mlforge.core.values import TimeRange
from mlforge.engines import Engine, Events
from mlforge.engines.carry import carried, described
from mlforge.engines.tasks import RunHere, Task, Warn, releases
from mlforge.errors import IntegrityError, MlforgeError, RunnerUnavailable, UnsupportedStore
from mlforge.frames.entity_times import EntityTimes
from mlforge.store import Store, StoredPiece
from mlforge.store.integrity import intact
from mlforge.store.partial_json import events_from_json, events_to_json
from mlforge.store.task_files import TaskFiles
from mlforge.store.transaction import Piece

log = get_logger("mlforge.build")
_FETCHED = 16
"""Tasks that have ended leave so many files when these are fetched, while the next are at work."""
_Ended = tuple[BuildTask, TaskResult]
_Fetched = tuple[BuildTask, TaskResult, list[StoredPiece]]
_ALONE = 'or let this process go on alone with Definitions(fallback="local")'


@dataclass(frozen=True)
class Distribution:
    """How full builds, pushes and training sets are shared.

    above: the number of events, or of a spine's rows, above which one is. definitions: their hash, which every process must have. alone: whether
    this process builds by itself where nobody else is there. run: the id of a run that evaluates everything anew, else empty: its tasks
    take up no result of another run's.
    """

    runner: Runner
    above: int
    definitions: str
    alone: bool = False
    run: str = ""

    def takes(self, events: Events) -> bool:
        """Whether a build of these events is shared."""
        return sum([partial.rows for partial in events.partials]) > self.above

    def pieces(self, build: FullBuild, told: Told, warn: Warn) -> Iterator[Piece]:
        """The pieces of the table, in the order of time.

        told: called with each task's figures. warn: called with the reason where nobody else takes part. Raises UnsupportedStore where the store has no place for tasks, and the errors of `Runner.run`.
        """
        store, name = build.events.store, build.events.spec.name
        assert store is not None, "a build reads a store's events"
        try:
            files = store.task_files(name)
        except UnsupportedStore as error:
            if not self.alone:
                raise
            self._warn_alone(name, error, warn)
            yield from build.pieces(told)
        else:
            yield from self._shared(build, store, files, told, warn)

    def results(self, tasks: Sequence[Task], here: RunHere, warn: Warn) -> Iterable[Any]:
        """The result of each task, in the order of the tasks, by this process alone where nobody else is there and it may."""
        try:
            yield from self.runner.run(tasks, here)
        except RunnerUnavailable as error:
            if not self.alone:
                raise RunnerUnavailable(f"{error}; {_ALONE}") from error
            self._warn_alone(tasks[0].feature, error, warn)
            yield from map(here, tasks)

    def _warn_alone(self, feature: str, error: MlforgeError, warn: Warn) -> None:
        log.warning("done by this process alone", feature=feature, why=str(error))
        warn(f"done by this process alone, without the runner {self.runner.name!r}: {error}")

    def _shared(
        self, build: FullBuild, store: Store, files: TaskFiles, told: Told, warn: Warn
    ) -> Iterator[Piece]:
        files.prepare()
        files.share(build.events.partials)
        tasks = tuple(self._tasks(build, store, files))
        here = partial(run_task, spec=build.events.spec, engine=build.engine, store=store)
        ended = zip(tasks, self.results(tasks, here, warn), strict=True)
        fetched = _fetched(files, ended, here)
        for (_, is_dealt), of_range in groupby(fetched, key=_range_of):
            pieces: list[StoredPiece] = []
            for task, result, own in of_range:
                told(result.figures(task))
                pieces += own
            yield from build.together([p.file for p in pieces]) if is_dealt else pieces

    def _tasks(self, build: FullBuild, store: Store, files: TaskFiles) -> Iterator[BuildTask]:
        """The tasks of a build; what they share is written to the store."""
        events = build.events
        inputs = files.write_document(events_to_json(events.schema, events.partials))
        for part in build.ranges():
            yield BuildTask(
                feature=events.spec.name,
                definitions=self.definitions,
                store=repr(store),
                engine=build.engine.name,
                inputs=inputs,
                carried=_write_carried(part.events, files),
                start=part.times.start,
                end=part.times.end,
                part_rows=build.layout.part_rows,
                releases=releases(build.engine),
                entities=files.write_frame(part.entities.frame) if part.entities else None,
                bucket=part.bucket,
                buckets=part.buckets,
                run=self.run,
            )


def run_task(task: BuildTask, *, spec: FeatureSpec, engine: Engine, store: Store) -> TaskResult:
    """Evaluate a task's range, write its parts to the store, and return the result, which is kept there, too.

    A task that was run before gives the result of then. Raises VersionConflict where its build has ended, IntegrityError where what
    is stored cannot be read, DataError as a build does.
    """
    files = store.task_files(task.feature)
    files.check_open()
    known = _known(files, task)
    if known is not None:
        return known
    with intact(task.feature):
        part = BuildRange(task.times, _events(task, spec, store, files), _entities(task, files))
        rows, figures = part.evaluated(engine)
        if part.entities is None:
            pieces = pieces_of(rows, Layout(task.part_rows), spec.timestamp)
            parts = tuple(files.write_part(piece) for piece in pieces)
        else:
            parts = (Part("", rows.height, None, files.write_frame(rows)),)
        reach("task.written")
    result = TaskResult(task.id, parts, figures.events, figures.bytes)
    files.write_document(result.to_json(), task.id)
    return result


def _known(files: TaskFiles, task: BuildTask) -> TaskResult | None:
    """The result of a task that was run before, if its parts are whole."""
    try:
        result = TaskResult.from_json(files.document(task.id) or {})
    except (KeyError, TypeError, ValueError):
        return None
    return result if _stored(files, [(task, result)]) != [None] else None


def _events(task: BuildTask, spec: FeatureSpec, store: Store, files: TaskFiles) -> Events:
    """The events that a task is evaluated by."""
    where = f"{task.feature}: {task.inputs[:12]}, which a task names,"
    schema, partials = events_from_json(files.document(task.inputs), where)
    plan_files = partial(store.plan_files, task.feature)
    events = Events(spec, schema, partials, plan_files, fetches=store.fetches_files).as_filed
    if task.carried is None:
        return events.with_totals(None)
    document = files.document(task.carried) or {}
    rows = _frame(task, document.get("rows", ""), files)
    return events.with_totals(carried(events, document, rows))


def _entities(task: BuildTask, files: TaskFiles) -> EntityTimes | None:
    """The entities of a task's bucket, None for all."""
    if task.entities is None:
        return None
    return EntityTimes(_frame(task, task.entities, files).collect())


def _frame(task: BuildTask, hash_: str, files: TaskFiles) -> pl.LazyFrame:
    file = files.frame(hash_)
    if file is None:
        raise IntegrityError(
            f"{task.feature}: {hash_[:12]}, which a task names, is gone or damaged; build again"
        )
    return pl.scan_parquet(file, glob=False)


def _write_carried(events: Events, files: TaskFiles) -> str | None:
    """Keep the totals that a range is evaluated by; returns the name of their document, None where there are none."""
    totals = events.totals
    if totals is None:
        return None
    rows = files.write_frame(totals.tiles.rows.collect())
    return files.write_document({**described(totals), "rows": rows})


def _fetched(
    files: TaskFiles, ended: Iterable[_Ended], here: Callable[[BuildTask], TaskResult]
) -> Iterator[_Fetched]:
    """Tasks that have ended, in their order, with their files, which are fetched side by side, of several ranges together."""
    due: list[_Ended] = []
    parts = 0
    for task, result in ended:
        due.append((task, result))
        parts += len(result.parts)
        if parts >= _FETCHED:
            yield from _whole(files, due, here)
            due, parts = [], 0
    yield from _whole(files, due, here)


def _range_of(fetched: _Fetched) -> tuple[TimeRange, bool]:
    """A task's range, and whether its entities are dealt into buckets."""
    task, *_ = fetched
    return task.times, task.is_dealt


def _whole(
    files: TaskFiles, ended: Sequence[_Ended], here: Callable[[BuildTask], TaskResult]
) -> Iterator[_Fetched]:
    """Tasks with the files of their parts; a task of which one is gone or damaged is run again."""
    for (task, result), stored in zip(ended, _stored(files, ended), strict=True):
        pieces = stored
        if pieces is None:
            [pieces] = _stored(files, [(task, here(task))])
        if pieces is None:
            raise IntegrityError(
                f"{task.feature}: the parts of a task that has just ended are gone or damaged; "
                f"all workers must reach {task.store}"
            )
        yield task, result, pieces


def _stored(files: TaskFiles, ended: Sequence[_Ended]) -> list[list[StoredPiece] | None]:
    """The parts of each result with their files, fetched side by side; None where one is gone or damaged."""
    hashes: dict[bool, list[str]] = {False: [], True: []}
    for task, result in ended:
        hashes[task.is_dealt] += [part.hash for part in result.parts]
    stored = {False: iter(files.parts(hashes[False])), True: iter(files.frames(hashes[True]))}
    return [
        _with_files(result, [*islice(stored[task.is_dealt], len(result.parts))])
        for task, result in ended
    ]


def _with_files(result: TaskResult, stored: Sequence[Path | None]) -> list[StoredPiece] | None:
    present = [file for file in stored if file is not None]
    if len(present) < len(stored):
        return None
    return [*map(StoredPiece, result.parts, present)]
