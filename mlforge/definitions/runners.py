"""Runners by name: those of installed packages, found by their entry points."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from mlforge.build.distribution import Distribution, run_task
from mlforge.build.runner import Origin, Runner
from mlforge.build.tasks import BuildTask
from mlforge.core.arguments import choice
from mlforge.definitions.settings import LOCAL
from mlforge.engines import engine_named
from mlforge.errors import MissingExtra

if TYPE_CHECKING:
    from mlforge.definitions.registry import Definitions

GROUP = "mlforge.runners"
"""The entry point group: each is called with the definitions and gives a Runner."""


def check_runner(runner: str | Runner) -> str:
    """The name of a runner; DefinitionError, with the names that there are, for any other."""
    if isinstance(runner, Runner):
        return runner.name
    if runner != LOCAL:
        choice(runner, [LOCAL, *entry_points(group=GROUP).names], "Definitions: runner")
    return runner


def distribution_of(definitions: Definitions, runner: str | Runner) -> Distribution | None:
    """How full builds are shared; None where the process that builds does them alone.

    Raises MissingExtra where what the runner needs is not installed.
    """
    settings = definitions.settings
    if settings.runner == LOCAL:
        return None
    if not isinstance(runner, Runner):
        runner = _runner_named(runner, definitions)
    alone = settings.fallback == LOCAL
    runner = runner.for_definitions(_origin(definitions))
    return Distribution(runner, settings.distribute_above, definitions.hash, alone)


def task_run(definitions: Definitions, task: str) -> str:
    """Run a task with these definitions; as `Definitions.run_task`."""
    work = BuildTask.from_json(task)
    work.check(definitions.hash)
    feature = definitions.feature(work.feature)
    engine = engine_named(work.engine, definitions.settings.memory_limit)
    work.check_releases(engine)
    result = run_task(work, spec=feature.spec, engine=engine, store=definitions.store)
    return json.dumps(result.to_json())


def _origin(definitions: Definitions) -> Origin | None:
    """Where definitions were loaded from; None for those of a script or a notebook."""
    if definitions.loaded_from is None:
        return None
    target, here = definitions.loaded_from
    return Origin(target, str(here), definitions.profile)


def _runner_named(name: str, definitions: Definitions) -> Runner:
    """The runner of that name."""
    [entry] = entry_points(group=GROUP, name=name)
    try:
        opened: Callable[[Definitions], Runner] = entry.load()
    except ModuleNotFoundError as error:
        raise MissingExtra.of(f"runner {name!r}", "worker") from error
    return opened(definitions)
