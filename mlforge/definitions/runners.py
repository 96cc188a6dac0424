"""Runners by name: those of installed packages, found by their entry points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from mlforge.build.distribution import Distribution
from mlforge.build.processes import ProcessRunner, command
from mlforge.build.runner import Origin, RunHere, Runner, Task
from mlforge.build.tasks import tasks_at_once
from mlforge.core import machine
from mlforge.core.arguments import choice
from mlforge.definitions.settings import LOCAL
from mlforge.errors import DefinitionError, MissingExtra, RunnerUnavailable
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
        runner = _runner_or_none(runner, definitions)
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


class _WithoutAddress(Runner):
    """A runner that its surroundings do not tell where to go: what is small needs none, and what is big is told so."""

    def __init__(self, name: str, why: str) -> None:
        self.name, self._why = name, why  # type: ignore[misc]

    def run(self, tasks: Sequence[Task], here: RunHere) -> Iterable[Any]:
        """Nobody is there."""
        raise RunnerUnavailable(self._why)


def _runner_or_none(name: str, definitions: Definitions) -> Runner:
    """The runner of that name, or one that is unavailable, where it has no address to go to."""
    try:
        return _runner_named(name, definitions)
    except DefinitionError as error:
        return _WithoutAddress(name, str(error))


def without_address(
    definitions: Definitions, names: Iterable[str], override: str | None = None
) -> list[str]:
    """Sentences on runners of features that have no address here: to be said once, before big work needs them. override: an engine for once."""
    chosen = [definitions.features[name].engine for name in names]
    engines = {override or engine or definitions.settings.engine for engine in chosen}
    sentences = []
    for runner in {_runner_of(definitions, engine) for engine in engines}:
        if isinstance(runner, str) and runner != LOCAL:
            try:
                _runner_named(runner, definitions)
            except DefinitionError as error:
                above = definitions.settings.distribute_above
                what = (
                    "this process does it alone"
                    if definitions.settings.fallback == LOCAL
                    else "it fails"
                )
                sentences.append(
                    f"{error}; until then {what} where work is of more than {above:,} events"
                )
    return sorted(sentences)


def _runner_named(name: str, definitions: Definitions) -> Runner:
    """The runner of that name."""
    [entry] = entry_points(group=GROUP, name=name)
    try:
        opened: Callable[[Definitions], Runner] = entry.load()
    except ModuleNotFoundError as error:
        raise MissingExtra.of(f"runner {name!r}", "worker") from error
    return opened(definitions)
