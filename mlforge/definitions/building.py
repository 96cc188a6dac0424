"""A build of several features of some definitions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from mlforge.build.intake_by_tasks.companions import Companion
from mlforge.build.result import BuildResult, Options
from mlforge.core.scratch import sweep_scratch
from mlforge.definitions.chains import in_order
from mlforge.definitions.keeping import keep_all, note_names
from mlforge.definitions.runners import distribution_of
from mlforge.definitions.together import Readings, compacted, each_in_turn
from mlforge.engines import Engine, engine_for
from mlforge.engines.views import Gathered
from mlforge.ingest.function_process import command
from mlforge.maintenance.begun_forgetting import end_begun
from mlforge.sources.source_reading import SourceReading
from mlforge.store import Store

if TYPE_CHECKING:
    from mlforge.definitions.registry import Definitions


def build_each(
    definitions: Definitions,
    names: Iterable[str],
    build: Callable[[str, SourceReading | None, Options], BuildResult],
    options: Options,
    engine: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, BuildResult]:
    """Build features, each behind those that it is made from; the results by name.

    build: builds the feature of a name, through the reading of its source where others of these features share it, by these options with
    its companions. engine: as in `engine_of`.
    progress: called with each name before. The names of the definitions are noted first; a version of each service that has
    changed is kept last, also where features failed. Raises BuildError with all failures, once all features were tried.
    """
    ordered = in_order(definitions.features, names)
    readings = Readings(definitions.features, ordered, options.max_file_memory)

    options = options.with_run_id  # of all features

    def built(name: str) -> BuildResult:
        others = readings.others(name)
        chosen = replace(options, companions=lambda: companions_of(definitions, others, engine))
        result = build(name, readings.of(name), chosen)
        return compacted(definitions.store, result) if result.changed else result

    sweep_scratch()
    note_names(definitions)
    try:
        return each_in_turn(ordered, built, progress)
    finally:
        keep_all(definitions)


def companions_of(
    definitions: Definitions, names: Iterable[str], engine: str | None = None
) -> list[Companion]:
    """Features of one source, for which an intake by tasks reads its files, too. engine: as in `engine_of`."""
    return [
        Companion(
            definitions.feature(name),
            definitions.source(name),
            engine_of(definitions, name, engine),
        )
        for name in names
    ]


def options_of(
    definitions: Definitions,
    name: str,
    store: Store,
    options: Options,
    override: str | None,
    on_gathered: Callable[[Gathered], object] | None,
) -> Options:
    """The options of a feature's refresh, with all that its definitions give it.

    override: as in `engine_of`. on_gathered: as in `Options`.
    """
    loaded_from, distribution = definitions.loaded_from, options.distribution
    if distribution is None and options.publish:
        distribution = distribution_of(definitions, engine_name_of(definitions, name, override))
    engine = engine_of(definitions, name, override)
    end_forgetting = options.end_forgetting or partial(end_begun, store, name, engine)
    return replace(
        options,
        distribution=distribution,
        keeper=definitions.keeper,
        others=tuple(other.spec for other in definitions.features.values()),
        on_gathered=on_gathered,
        function_command=(command(*loaded_from, name) if loaded_from else options.function_command),
        end_forgetting=end_forgetting if options.publish else None,
    )


def engine_of(definitions: Definitions, name: str, override: str | None = None) -> Engine:
    """The engine of a feature, or another for once; one that is only in the store has the default."""
    chosen = engine_name_of(definitions, name, override)
    return engine_for(chosen, definitions.settings.memory_limit)


def engine_name_of(definitions: Definitions, name: str, override: str | None) -> str:
    """The engine of a feature by name, which may be "spark"; as `engine_of`."""
    feature = definitions.features.get(name)
    return override or (feature and feature.engine) or definitions.settings.engine
