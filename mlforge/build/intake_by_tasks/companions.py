"""Features of one source whose turn comes later in a run: tasks over the same new files are done with one reading."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlforge.build.intake_by_tasks.planning import Groups, IntakePlan
from mlforge.build.intake_by_tasks.tasks import IntakeTask
from mlforge.core.logs import get_logger
from mlforge.engines import Engine
from mlforge.errors import MlforgeError
from mlforge.features.feature import Feature
from mlforge.ingest.session import Session
from mlforge.sources.row_source import RowSource
from mlforge.sources.source_file import SourceFile
from mlforge.sources.source_reading import SETTLED_NS, SourceReading

log = get_logger("mlforge.build")


@dataclass(frozen=True)
class Companion:
    """Another feature of a source, with the engine that evaluates it."""

    feature: Feature
    source: RowSource
    engine: Engine


def tasks_beside(
    plan: IntakePlan, companions: Sequence[Companion], files: Sequence[SourceFile], groups: Groups
) -> list[tuple[str, ...]]:
    """For each group of an intake's files the tasks of companions, as JSON: the very tasks that they ask for when their turn comes.

    Of companions that would read the same files, and each alone, and that nobody is at work on. None where a file has just changed: until their turn it may change
    once more within the same tick of its file system's clock.
    """
    now, of_each = time.time_ns(), list[Sequence[IntakeTask]]()
    if all(now - file.stat.ctime_ns > SETTLED_NS for file in files):
        for companion in companions:
            try:
                of_each.append(_tasks_of(companion, plan, files, groups))
            except MlforgeError as error:
                name = companion.feature.name
                log.info("reads files in its own turn", feature=name, why=str(error))
    return [tuple(tasks[n].to_json() for tasks in of_each if tasks) for n in range(len(groups))]


def _tasks_of(
    companion: Companion, plan: IntakePlan, files: Sequence[SourceFile], groups: Groups
) -> Sequence[IntakeTask]:
    """The tasks of a companion; none where it would read other files, or must see all at once, or another intake has them beside its own."""
    feature, source = companion.feature, companion.source
    listing = replace(plan.listing, tables={name: table.scan() for name, table in source.tables})
    with plan.store.open(feature.name, wait=False) as snapshot:
        latest = snapshot.latest
        if feature.incremental is False or (latest is not None and not latest.rowwise):
            return ()
        session = Session.open(
            feature,
            listing,
            plan.store,
            latest,
            SourceReading(plan.max_bytes, keep_bytes=0),
            afresh=bool(plan.sharing.run),
            careful=False,
        )
        if session.unread(listing.files) != tuple(files):
            return ()
        own = IntakePlan(
            plan.sharing,
            feature,
            source,
            plan.store,
            companion.engine,
            listing,
            latest,
            plan.max_bytes,
        )
        tasks = own.tasks_of(groups, session.transform.tables.hashes)
        files_of_tasks, note = plan.store.task_files(feature.name), f"{tasks[0].id}-beside"
        if files_of_tasks.document(note) is not None:
            return ()
        files_of_tasks.write_document({}, note)
        return tasks
