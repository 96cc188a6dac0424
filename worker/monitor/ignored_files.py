"""Files that lie in sources now and are ignored: a refresh notes them in the books, and they cause none."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mlforge.definitions.registry import Definitions
from mlforge.errors import SourceError
from worker.monitor.status import Status


def with_ignored_files(definitions: Definitions, status: Status) -> Status:
    """The status with the files that are ignored now, in place of those that the last refresh ignored."""
    by_sources: dict[tuple[str, ...], dict[str, str] | None] = {}
    features = []
    for feature in status.features:
        sources = definitions.feature(feature.feature).sources
        if sources not in by_sources:
            by_sources[sources] = ignored_files(definitions, feature.feature)
        ignored = by_sources[sources]
        features.append(feature if ignored is None else replace(feature, ignored=ignored))
    return replace(status, features=tuple(features))


def ignored_files(definitions: Definitions, name: str) -> dict[str, str] | None:
    """The reasons by path, as the source names it; None for what is made from a feature, is slow to list, or cannot be."""
    source = definitions.source(name)
    if definitions.feature(name).upstream is not None or source.is_polled:
        return None
    with suppress(SourceError):
        return {entry.path: entry.reason for entry in source.scan().ignored}
    return None


def why_ignored(definitions: Definitions, path: Path) -> str | None:
    """Which feature ignores the file, and why; None for a file that none does."""
    for name in definitions.features:
        source = definitions.source(name)
        if not any(path.is_relative_to(root) for root in source.roots):
            continue
        reason = (ignored_files(definitions, name) or {}).get(source.path_of(path) or "")
        if reason is not None:
            return f"{name}: ignored {source.path_of(path)}: {reason}"
    return None
