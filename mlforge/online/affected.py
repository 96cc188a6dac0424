"""The entities whose rows online may differ from what earlier pushes wrote, finished or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from mlforge.core.manifest import Manifest
from mlforge.core.schema import Schema
from mlforge.core.values import Version
from mlforge.engines import Events, evaluation
from mlforge.engines.versions_diff import VersionsDiff
from mlforge.engines.views import Gathered, distinct
from mlforge.errors import StoreError
from mlforge.online.books import Target
from mlforge.store import Store
from mlforge.store.changes import EventDiff, diff_versions, same_rows


@dataclass(frozen=True)
class Affected:
    """Keys of entities, and their events in memory where whoever made the version has gathered them."""

    entities: pl.DataFrame
    gathered: Gathered | None = None


@dataclass(frozen=True)
class Differences:
    """How a version as of a target differs from earlier pushes. diff: as the refresh before the push handed it on."""

    store: Store
    manifest: Manifest
    target: Target
    events: Events
    diff: VersionsDiff | None

    def since(self, pushed: Sequence[Target]) -> Affected | None:
        """The entities whose rows may differ from those of any of these pushes; None for all entities."""
        bases = [base for base in dict.fromkeys(pushed) if base != self.target]
        changed: list[pl.DataFrame] = []
        for base in bases:
            before = self.version_of(base)
            if before is None or not _comparable(before, self.manifest):
                return None
            gathered = self._gathered_since(base, before)
            if gathered is not None and gathered.among is not None:
                if len(bases) == 1:
                    return Affected(gathered.among, gathered)
                changed.append(gathered.among)
                continue
            changed.append(
                evaluation.entities_affected_by_time(self.events, base.as_of, self.target.as_of)
            )
            if not same_rows(before.partials, self.manifest.partials):
                changed.append(self._diff(before).entities)
        if not changed:
            return None
        return Affected(distinct(changed, self.manifest.spec.entity))

    def version_of(self, base: Target) -> Manifest | None:
        """The manifest of a push's version; None if the version was removed or replaced."""
        try:
            manifest = self.store.manifest(self.manifest.name, Version.parse(base.version))
        except StoreError:
            return None
        return manifest if manifest.rows_hash == base.content else None

    def _gathered_since(self, base: Target, before: Manifest) -> Gathered | None:
        """The events that the refresh gathered, if it did so for just these versions and instants."""
        if self.diff is None or self.diff.gathered is None:
            return None
        now, then = self.diff.gathered.views
        instants = (then.as_of, now.as_of) == (base.as_of, self.target.as_of)
        is_alike = now.events.spec == self.manifest.spec
        fits = instants and is_alike and self.diff.is_between(before, self.manifest)
        return self.diff.gathered if fits else None

    def _diff(self, before: Manifest) -> EventDiff:
        """The events that differ from an older version's: as handed on, else compared now."""
        if self.diff is not None and self.diff.is_between(before, self.manifest):
            return self.diff.events
        return diff_versions(self.store, before, self.manifest)


def _comparable(before: Manifest, after: Manifest) -> bool:
    """Whether rows of both have the same keys and columns, evaluated alike."""
    same_spec = replace(before.spec, online_clock=after.spec.online_clock) == after.spec
    same_columns = _named(before.columns) == _named(after.columns)
    return same_spec and same_columns and _named(before.events) == _named(after.events)


def _named(schema: Schema) -> list[tuple[str, str]]:
    return [(column.name, column.dtype) for column in schema]
