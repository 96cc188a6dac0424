"""The versions of a feature as JSON has them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from mlforge.core import clock
from mlforge.core.manifest import VersionSummary
from mlforge.core.values import to_iso
from mlforge.store import Store


def versions_document(
    store: Store, feature: str, summaries: Sequence[VersionSummary]
) -> dict[str, Any]:
    """`{"feature", "latest", "hold", "versions"}`, the newest version last.

    summaries: the store's, of this feature. latest: the version that is served. hold: why the feature is held, None if it
    is not.
    """
    pointer, books, now = store.pointer(feature), store.books(feature), clock.now()
    latest = str(pointer.version) if pointer else None
    return {
        "feature": feature,
        "latest": latest,
        "hold": books.hold,
        "versions": [_version(summary, latest, books.kept_at(now)) for summary in summaries],
    }


def _version(
    summary: VersionSummary, served: str | None, pinned: Collection[str]
) -> dict[str, Any]:
    change, version = summary.change, str(summary.version)
    return {
        "version": version,
        "created_at": to_iso(summary.created_at),
        "bump": change.bump_type if change else None,
        "reason": change.reason if change else None,
        "details": list(change.details) if change else [],
        "rows": summary.row_count,
        "parent": str(summary.parent) if summary.parent else None,
        "served": version == served,
        "pinned": version in pinned,
    }
