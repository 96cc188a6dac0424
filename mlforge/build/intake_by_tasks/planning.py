"""From groups of a source's new files to the tasks that ingest them for one feature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlforge.build.intake_by_tasks.tasks import IntakeTask
from mlforge.core.manifest import Manifest
from mlforge.engines import Engine
from mlforge.engines.tasks import Sharing, releases
from mlforge.features.feature import Feature
from mlforge.ingest.elsewhere import Adopted
from mlforge.sources.listing import Listing
from mlforge.sources.row_source import RowSource
from mlforge.sources.source_file import SourceFile
from mlforge.store import Store

Groups = Sequence[Sequence[SourceFile]]


@dataclass(frozen=True)
class IntakePlan:
    """All that tasks of one feature's intake follow from, beside the files: the same for the same state of sources and store."""

    sharing: Sharing
    feature: Feature
    source: RowSource
    store: Store
    engine: Engine
    listing: Listing
    latest: Manifest | None
    max_bytes: int

    def tasks_of(
        self, groups: Groups, tables: Mapping[str, str], adopted: Adopted | None = None
    ) -> list[IntakeTask]:
        """The tasks of groups of files; what they share is written to the store, with the feature's lock held.

        tables, adopted: as in `Elsewhere`. Raises UnsupportedStore where the store has no place for tasks.
        """
        files = self.store.task_files(self.feature.name)
        files.prepare()
        documents = (self._document(group, tables, adopted) for group in groups)
        return [self._task(files.write_document(document)) for document in documents]

    def _document(
        self, group: Sequence[SourceFile], tables: Mapping[str, str], adopted: Adopted | None
    ) -> dict[str, Any]:
        return {
            "files": [[file.path, *file.stat] for file in group],
            "hive": sorted(self.listing.hive),
            "tables": dict(tables),
            "forgotten": self.store.forgotten().digest,
            "adopted": adopted,
        }

    def _task(self, group: str) -> IntakeTask:
        return IntakeTask(
            feature=self.feature.name,
            definitions=self.sharing.definitions,
            engine=self.engine.name,
            releases=releases(self.engine),
            store=repr(self.store),
            group=group,
            code=self.feature.code_hash,
            served=str(self.latest.version) if self.latest else "",
            max_bytes=self.max_bytes,
            run=self.sharing.run,
        )
