"""A run over several features, and one reading of the files that several of them share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Self

from mlforge.build.result import BuildResult
from mlforge.definitions.chains import upstreams
from mlforge.errors import BuildError, MlforgeError, StoreError
from mlforge.features.feature import Feature
from mlforge.maintenance.operations import compact
from mlforge.sources.source_reading import KEPT_BYTES, SourceReading
from mlforge.store import Store


def of_one_source(features: Mapping[str, Feature], name: str) -> list[str]:
    """Names of the other features with the source of this one, in the order of the definitions."""
    sources = features[name].sources
    return [other for other in features if other != name and features[other].sources == sources]


class Readings:
    """The readings of a run over several features: one for each source that more than one of them reads.

    A source's reading ends with the last of its features. All together they keep no more in memory than one would alone.
    max_bytes: the memory that one file may take.
    """

    def __init__(
        self, features: Mapping[str, Feature], names: Iterable[str], max_bytes: int | None
    ) -> None:
        names = tuple(names)
        self._max_bytes = max_bytes
        self._features, self._names = features, names
        self._waiting = Counter(features[name].sources for name in names)
        shared = sum(count > 1 for count in self._waiting.values())
        self._keep_bytes = KEPT_BYTES // max(1, shared)
        self._open: dict[tuple[str, ...], SourceReading] = {}

    def others(self, name: str) -> tuple[str, ...]:
        """The features that read the same source later in the run, for the first of them, before its turn; none for the others."""
        sources = self._features[name].sources
        same = [other for other in self._names if self._features[other].sources == sources]
        return tuple(same[1:]) if same[0] == name else ()

    def of(self, name: str) -> SourceReading | None:
        """The reading for a feature, whose turn it is now; None if no other feature shares its source."""
        sources = self._features[name].sources
        self._waiting[sources] -= 1
        if self._waiting[sources] > 0:
            reading = SourceReading(self._max_bytes, self._keep_bytes)
            return self._open.setdefault(sources, reading)
        return self._open.pop(sources, None)


class Drafts:
    """The drafts of a plan over several features: features that are made from a common one share theirs.

    A draft ends when the next begins, so features that share one must come one after the other.
    """

    def __init__(self, store: Store, features: Mapping[str, Feature]) -> None:
        self._store, self._features = store, features
        self._open = ExitStack()
        self._source: str | None = None
        self._draft: Store | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def of(self, name: str) -> Store:
        """The draft for a feature, whose turn it is now."""
        source = [name, *upstreams(self._features, name)][-1]
        if self._draft is None or source != self._source:
            self._open.close()
            self._source, self._draft = source, self._open.enter_context(self._store.draft())
        return self._draft


def each_in_turn(
    names: Iterable[str],
    work: Callable[[str], BuildResult],
    progress: Callable[[str], None] | None,
) -> dict[str, BuildResult]:
    """Do the work for each feature; BuildError with all failures, once all features were tried."""
    results: dict[str, BuildResult] = {}
    failures: dict[str, Exception] = {}
    for name in names:
        if progress is not None:
            progress(name)
        try:
            results[name] = work(name)
        except MlforgeError as error:
            failures[name] = error
    if failures:
        raise BuildError(failures, results)
    return results


def compacted(store: Store, result: BuildResult) -> BuildResult:
    """The result of a build that published a version, after which small files of events were merged: many builds leave few files to scan."""
    assert result.manifest is not None
    try:
        compact(store, result.manifest)
    except StoreError as error:
        warning = f"small files of events were not merged: {error}"
        return replace(result, warnings=(*result.warnings, warning))
    return result
