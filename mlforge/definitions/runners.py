"""Runners by name: those of installed packages, found by their entry points."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from mlforge.build.distribution import Distribution
from mlforge.build.processes import ProcessRunner, command
from mlforge.build.runner import Origin, Runner
from mlforge.build.tasks import tasks_at_once
from mlforge.core import machine
from mlforge.core.arguments import choice
from mlforge.definitions.settings import LOCAL
from mlforge.errors import MissingExtra
from mlforge.features.feature import SPARK

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


def distribution_of(definitions: Definitions, engine: str) -> Distribution | None:
    """How full builds and training sets that are large are shared; None where the process that they fall to makes them alone.

    engine: what names it; "spark" means Spark's executors, whatever other runner there is. Raises MissingExtra where what the runner needs is not installed.
    """
    if _runner_of(definitions, engine) == LOCAL:
        return _on_this_machine(definitions)
    return push_distribution_of(definitions, engine)


def push_distribution_of(definitions: Definitions, engine: str) -> Distribution | None:
    """How large pushes are shared, as `distribution_of`: not by processes of this machine, which need not know the online store.

    Raises MissingExtra where what the runner needs is not installed.
    """
    settings, runner = definitions.settings, _runner_of(definitions, engine)
    if runner == LOCAL:
        return None
    if not isinstance(runner, Runner):
        runner = _runner_named(runner, definitions)
    alone = settings.fallback == LOCAL
    runner = runner.for_definitions(_origin(definitions))
    return Distribution(runner, settings.distribute_above, definitions.hash, alone)


def _runner_of(definitions: Definitions, engine: str) -> str | Runner:
    """The runner of the definitions, but Spark's where the engine says so."""
    is_sparks = engine == SPARK and definitions.settings.runner != SPARK
    return SPARK if is_sparks else definitions.runner


def _on_this_machine(definitions: Definitions) -> Distribution | None:
    """Processes of this machine, if `memory_limit` has room for several tasks, and a file holds the definitions."""
    settings, origin = definitions.settings, _origin(definitions)
    most = tasks_at_once(min(settings.memory_limit, machine.memory()))
    if most < 2 or origin is None:
        return None
    runner = ProcessRunner(command(origin, settings.memory_limit // most), most)
    return Distribution(runner, settings.distribute_above, definitions.hash, alone=True)


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
