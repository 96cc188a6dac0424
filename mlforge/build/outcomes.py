"""The results of a refresh, by how it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlforge.build.categorizer import Decision
from mlforge.build.intake_by_tasks.tasks import GroupFigures, groups_of
from mlforge.build.result import BuildResult, Options
from mlforge.build.table import Table
from mlforge.core.manifest import Manifest
from mlforge.engines.versions_diff import VersionsDiff
from mlforge.errors import SourceError
from mlforge.ingest.intake import Intake
from mlforge.sources.source_file import SourceFile
from mlforge.store import Snapshot, Store
from mlforge.store.changes import EventDiff


@dataclass(frozen=True)
class Change:
    """A version that is to be made, and why.

    candidate: its spec. diff: how its events differ, None where they cannot be compared. mode: full or incremental, for the reason `why`.
    """

    candidate: Manifest
    decision: Decision
    diff: EventDiff | None
    intake: Intake
    mode: str
    why: str


@dataclass(frozen=True)
class Outcomes:
    """The results that a feature's refresh may have."""

    feature: str
    store: Store
    options: Options

    def published(
        self,
        latest: Manifest | None,
        change: Change,
        manifest: Manifest,
        table: Table,
        warnings: Sequence[str],
    ) -> BuildResult:
        """The result of a refresh that has made a version, or would, where nothing is to be published. latest: the one before."""
        decision, diff = change.decision, change.diff
        assert decision.version is not None
        location = (
            self.store.location(self.feature, decision.version) if self.options.publish else None
        )
        return replace(
            self._looked(change.intake),
            warnings=_each_once(*change.intake.warnings, *table.warnings, *warnings),
            version=str(decision.version),
            bump=decision.bump,
            reason=decision.reason,
            details=decision.details,
            rows=manifest.row_count,
            location=location,
            changed=True,
            mode=change.mode,
            mode_reason=change.why,
            rows_changed=diff.rows if diff else sum(p.rows for p in manifest.partials),
            entities=diff.entities.height if diff else 0,
            rows_recomputed=table.recomputed,
            tasks=table.tasks,
            rows_dropped=manifest.dropped,
            manifest=manifest,
            diff=VersionsDiff(latest, manifest, diff, table.gathered) if latest and diff else None,
        )

    def without_source(self, snapshot: Snapshot, why: str) -> BuildResult:
        """The result where there is no source to build from. Raises SourceError where a version was asked for by its number."""
        if self.options.version is not None:
            raise SourceError(
                f"{snapshot.name}: no version {self.options.version} can be made: {why}"
            )
        reason = "source_missing" if snapshot.latest else "waiting"
        return self.unchanged(snapshot, reason, warnings=(why,))

    def unchanged(
        self,
        snapshot: Snapshot,
        reason: str,
        intake: Intake | None = None,
        warnings: tuple[str, ...] = (),
        held: str | None = None,
    ) -> BuildResult:
        """The result where no version is made, and the served one goes on, if there is one."""
        latest, result = snapshot.latest, self._looked(intake)
        if intake is None:
            result = replace(result, quarantined=tuple(snapshot.books.quarantine.values()))
        if latest is not None and latest.version is not None:
            result = replace(
                result,
                version=str(latest.version),
                rows=latest.row_count,
                location=self.store.location(self.feature, latest.version),
                rows_dropped=latest.dropped,
                manifest=latest,
            )
        return replace(result, reason=reason, held=held, warnings=(*warnings, *result.warnings))

    def _looked(self, intake: Intake | None) -> BuildResult:
        """The fields of every result: files read, set aside and warned of."""
        return BuildResult(
            feature=self.feature,
            planned=not self.options.publish,
            files_read=intake.files_read if intake else 0,
            has_looked=intake is not None and intake.has_all,
            quarantined=tuple(intake.quarantine.values()) if intake else (),
            warnings=intake.warnings if intake else (),
            intake=_groups(intake.unread, self.options.group_bytes) if intake else (),
        )


def _each_once(*warnings: str) -> tuple[str, ...]:
    """Warnings without repeated ones, as where two kinds of tasks find nobody to run them."""
    return tuple(dict.fromkeys(warnings))


def _groups(files: Sequence[SourceFile], most_bytes: int) -> tuple[GroupFigures, ...]:
    return tuple(map(GroupFigures.of, groups_of(files, most_bytes)))
