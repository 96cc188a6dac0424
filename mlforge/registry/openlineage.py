"""A graph as OpenLineage events: for each feature, service, model, training set and exported table a job, with the datasets that it reads and makes.

The events are values of OpenLineage's own client, whose classes are made from the published JSON schema and check what they are given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlforge.core import clock
from mlforge.core.release import RELEASE
from mlforge.core.values import to_iso
from mlforge.errors import MissingExtra
from mlforge.registry.entries import ColumnEntry, FeatureEntry, ServiceEntry
from mlforge.registry.graph import FEATURE, MODEL, SERVICE, SET, SOURCE, TABLE, Graph, Node
from mlforge.store.addresses import scheme_of
from mlforge.store.lakehouse.iceberg import NAMED
from mlforge.store.lakehouse.source import names_a_table

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, JobEvent, OutputDataset
    from openlineage.client.facet_v2 import DatasetFacet, JobFacet, OutputDatasetFacet

Entries = Mapping[Node, FeatureEntry | ServiceEntry]
_FILES = "file"
_TYPES = {
    FEATURE: "FEATURE",
    SERVICE: "SERVICE",
    MODEL: "MODEL",
    SET: "TRAINING_SET",
    TABLE: "EXPORT",
}


def events(graph: Graph, entries: Entries, project: str, root: Path) -> list[dict[str, Any]]:
    """The events as JSON has them, each job behind those that it reads from.

    entries: those of the graph's features and services. project: the name of the jobs' namespace. root: the folder that
    sources start from. Raises MissingExtra without the client.
    """
    try:
        from openlineage.client.event_v2 import set_producer
        from openlineage.client.serde import Serde
    except ModuleNotFoundError as error:
        raise MissingExtra.of("lineage --openlineage", "openlineage") from error
    set_producer(f"urn:mlforge:{RELEASE}")
    writer = _Events(graph, entries, f"mlforge://{project}", root, to_iso(clock.now()) or "")
    return [Serde.to_dict(writer.event(node)) for node in graph.nodes if node.kind != SOURCE]


@dataclass(frozen=True)
class _Events:
    """The events of a graph; now: the time of those whose jobs have no version yet, ISO 8601."""

    graph: Graph
    entries: Entries
    namespace: str
    root: Path
    now: str

    def event(self, node: Node) -> JobEvent:
        """The event of a node: the job that makes it, what it reads, and the dataset that it is."""
        from openlineage.client.event_v2 import Job, JobEvent

        entry = self.entries.get(node)
        made_at = entry.updated_at if isinstance(entry, FeatureEntry) else None
        return JobEvent(
            eventTime=made_at or self.now,
            job=Job(self.namespace, str(node), self._job_facets(node)),
            inputs=[self._input(origin) for origin in self.graph.made_from(node)],
            outputs=[self._output(node)],
        )

    def _job_facets(self, node: Node) -> dict[str, JobFacet]:
        from openlineage.client.facet_v2 import (
            documentation_job,
            job_type_job,
            ownership_job,
            tags_job,
        )

        kind = _TYPES[node.kind]
        facets: dict[str, JobFacet] = {
            "jobType": job_type_job.JobTypeJobFacet("BATCH", "MLFORGE", kind)
        }
        entry = self.entries.get(node)
        if entry is not None and entry.description:
            facets["documentation"] = documentation_job.DocumentationJobFacet(entry.description)
        if entry is not None and entry.owner:
            owner = ownership_job.Owner(entry.owner, "OWNER")
            facets["ownership"] = ownership_job.OwnershipJobFacet([owner])
        if isinstance(entry, FeatureEntry) and entry.tags:
            tags = [tags_job.TagsJobFacetFields(tag, "true", "USER") for tag in entry.tags]
            facets["tags"] = tags_job.TagsJobFacet(tags)
        return facets

    def _input(self, origin: Node) -> InputDataset:
        from openlineage.client.event_v2 import InputDataset

        return InputDataset(*self._names(origin), facets=self._dataset_facets(origin))

    def _output(self, node: Node) -> OutputDataset:
        from openlineage.client.event_v2 import OutputDataset
        from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

        entry = self.entries.get(node)
        cost = entry.cost if isinstance(entry, FeatureEntry) else None
        facets = self._dataset_facets(node)
        if isinstance(entry, ServiceEntry):
            facets |= self._column_lineage(entry)
        measured: dict[str, OutputDatasetFacet] = {}
        if cost is not None:
            measured["outputStatistics"] = statistics.OutputStatisticsOutputDatasetFacet(
                rowCount=cost.table_rows, size=cost.table_bytes
            )
        return OutputDataset(*self._names(node), outputFacets=measured, facets=facets)

    def _names(self, node: Node) -> tuple[str, str]:
        """The namespace and name of a node's dataset: those of its place for files and tables, the node's own name for all else."""
        if node.kind not in (SOURCE, SET, TABLE):
            return self.namespace, str(node)
        return named_place(node.name, self.root)

    def _dataset_facets(self, node: Node) -> dict[str, DatasetFacet]:
        from openlineage.client.facet_v2 import (
            dataset_version_dataset,
            documentation_dataset,
            ownership_dataset,
            schema_dataset,
        )

        entry = self.entries.get(node)
        if entry is None:
            return {}
        facets: dict[str, DatasetFacet] = {
            "schema": schema_dataset.SchemaDatasetFacet(_fields(entry.columns))
        }
        if entry.description:
            facets["documentation"] = documentation_dataset.DocumentationDatasetFacet(
                entry.description
            )
        if entry.owner:
            owner = ownership_dataset.Owner(entry.owner, "OWNER")
            facets["ownership"] = ownership_dataset.OwnershipDatasetFacet([owner])
        if isinstance(entry, FeatureEntry) and entry.version:
            facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(entry.version)
        return facets

    def _column_lineage(self, entry: ServiceEntry) -> dict[str, DatasetFacet]:
        """The features' columns that a service's columns are."""
        from openlineage.client.facet_v2 import column_lineage_dataset as lineage

        same = lineage.Transformation("DIRECT", "IDENTITY")
        fields = {
            column.name: lineage.Fields(
                [
                    lineage.InputField(
                        *self._names(Node(FEATURE, column.feature)), column.of or "", [same]
                    )
                ]
            )
            for column in entry.columns
            if column.feature
        }
        return {"columnLineage": lineage.ColumnLineageDatasetFacet(fields)} if fields else {}


def named_place(place: str, root: Path) -> tuple[str, str]:
    """The namespace and name of files or of a table: of a bucket, of an Iceberg catalog, or a path, which starts from `root`.

    place: as sources, training sets and exports are named. A table has one name, whether it is read or written.
    """
    format_, _, lies_at = place.partition(":")
    is_table = names_a_table(place)
    where = lies_at if is_table else place
    if scheme_of(where) is not None:
        scheme, _, rest = where.partition("://")
        bucket, _, path = rest.partition("/")
        return f"{scheme}://{bucket}", path.rstrip("/") or "/"
    if is_table and (named := NAMED.fullmatch(where)):
        return f"{format_}://{named[1]}", named[2]
    return _FILES, str(root / where)


def _fields(columns: Iterable[ColumnEntry]) -> list[Any]:
    from openlineage.client.facet_v2 import schema_dataset

    return [
        schema_dataset.SchemaDatasetFacetFields(
            column.name, column.dtype, column.description or None, position
        )
        for position, column in enumerate(columns, start=1)
    ]
