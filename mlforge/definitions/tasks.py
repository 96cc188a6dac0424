"""Tasks by kind: what a process that has these definitions does with each."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from mlforge.build.distribution import run_task
from mlforge.build.intake_by_tasks.running import LoadedFeature, run_intake_task
from mlforge.build.intake_by_tasks.tasks import IntakeTask
from mlforge.build.tasks import BuildTask
from mlforge.engines import Engine, engine_named
from mlforge.engines.tasks import Result, Task, task_of
from mlforge.ingest.function_process import FunctionProcess, command
from mlforge.online.shared_push import PushTask, run_push_task
from mlforge.training_sets.by_tasks.set_tasks import JoinTask, PartTask, SetTask, run_set_task

if TYPE_CHECKING:
    from mlforge.definitions.registry import Definitions


def parsed_task(text: str) -> Task:
    """A task of any kind from its JSON; TaskRefused for a text that is none of this release."""
    return task_of(text, {kind: of for kind, (of, _) in KINDS.items()})


def task_run(definitions: Definitions, text: str, memory_limit: int | None = None) -> str:
    """Run a task with these definitions; as `Definitions.run_task`. memory_limit: by default that of the definitions."""
    task = parsed_task(text)
    task.check(definitions.hash)
    engine = engine_named(task.engine, memory_limit or definitions.settings.memory_limit)
    task.check_releases(engine)
    _, run = KINDS[task.kind]
    return json.dumps(run(definitions, task, engine).to_json())


def _built(definitions: Definitions, task: BuildTask, engine: Engine) -> Result:
    spec = definitions.feature(task.feature).spec
    return run_task(task, spec=spec, engine=engine, store=definitions.store)


def _ingested(definitions: Definitions, task: IntakeTask, engine: Engine) -> Result:
    with ExitStack() as stack:

        def loaded(name: str) -> LoadedFeature:
            child = command(*definitions.loaded_from, name) if definitions.loaded_from else ()
            process = stack.enter_context(FunctionProcess.opened(child, at_once=True))
            return LoadedFeature(definitions.feature(name), definitions.source(name), process)

        return run_intake_task(task, loaded, definitions.store)


def _pushed(definitions: Definitions, task: PushTask, engine: Engine) -> Result:
    return run_push_task(task, definitions.store, definitions.online_store, engine)


def _of_a_set(definitions: Definitions, task: SetTask, engine: Engine) -> Result:
    return run_set_task(task, definitions.store)


KINDS: dict[str, tuple[type[Task], Callable[[Definitions, Any, Engine], Result]]] = {
    BuildTask.kind: (BuildTask, _built),
    IntakeTask.kind: (IntakeTask, _ingested),
    PushTask.kind: (PushTask, _pushed),
    JoinTask.kind: (JoinTask, _of_a_set),
    PartTask.kind: (PartTask, _of_a_set),
}
