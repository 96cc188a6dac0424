"""Definitions that a store does not have yet: the part of a plan that follows from code, not from data."""

from __future__ import annotations

from collections.abc import Iterable

from mlforge.build.result import BuildResult
from mlforge.core.manifest import Manifest
from mlforge.store import Store


def changed_definitions(store: Store, planned: Iterable[BuildResult]) -> list[str]:
    """The features whose served version was made by another definition, or that have none, in the order of the plan."""
    return [
        result.feature
        for result in planned
        if result.changed
        and result.manifest is not None
        and not _is_of_definition(store.latest(result.feature), result.manifest)
    ]


def _is_of_definition(served: Manifest | None, candidate: Manifest) -> bool:
    return (
        served is not None
        and _definition(served) == _definition(candidate)
        and _same_places(served, candidate)
    )


def _same_places(served: Manifest, candidate: Manifest) -> bool:
    """Whether tables lie at the same places; so it is taken where a release before did not note them."""
    then, now = served.table_sources, candidate.table_sources
    return not then or dict(then) == dict(now)


def _definition(manifest: Manifest) -> tuple[str, str, str, frozenset[str]]:
    """The code, the settings, the source and the names of tables; of an upstream feature its name, not its version."""
    source = manifest.source.partition("@")[0] if manifest.upstream else manifest.source
    return manifest.code_hash, manifest.config_hash, source, frozenset(manifest.tables)
