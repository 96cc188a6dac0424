"""A build of several features of some definitions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from mlforge.build.result import BuildResult
from mlforge.definitions.chains import in_order
from mlforge.definitions.keeping import keep_all, note_names
from mlforge.definitions.together import Readings, compacted, each_in_turn
from mlforge.sources.source_reading import SourceReading

if TYPE_CHECKING:
    from mlforge.definitions.registry import Definitions


def build_each(
    definitions: Definitions,
    names: Iterable[str],
    build: Callable[[str, SourceReading | None], BuildResult],
    progress: Callable[[str], None] | None = None,
) -> dict[str, BuildResult]:
    """Build features, each behind those that it is made from; the results by name.

    build: builds the feature of a name, through the reading of its source where others of these features share it.
    progress: called with each name before. The names of the definitions are noted first; a version of each service that has
    changed is kept last, also where features failed. Raises BuildError with all failures, once all features were tried.
    """
    ordered = in_order(definitions.features, names)
    readings = Readings(definitions.features, ordered)

    def built(name: str) -> BuildResult:
        result = build(name, readings.of(name))
        return compacted(definitions.store, result) if result.changed else result

    note_names(definitions)
    try:
        return each_in_turn(ordered, built, progress)
    finally:
        keep_all(definitions)
