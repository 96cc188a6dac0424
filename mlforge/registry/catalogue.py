"""The registry of a project: its graph, and the entry of each feature and service."""

from __future__ import annotations

from dataclasses import dataclass

from mlforge.definitions.registry import Definitions
from mlforge.registry.features import feature_entry
from mlforge.registry.graph import FEATURE, SERVICE, Graph, Node
from mlforge.registry.project import graph_of
from mlforge.registry.search import Entry
from mlforge.registry.services import service_entry


@dataclass(frozen=True)
class Registry:
    """A project's registry as of one reading of its store."""

    definitions: Definitions
    graph: Graph

    @classmethod
    def of(cls, definitions: Definitions) -> Registry:
        """The registry of these definitions and of what their store holds; StoreError where it cannot be read."""
        return cls(definitions, graph_of(definitions))

    def entry(self, node: Node) -> Entry:
        """The entry of a feature or a service."""
        describe = feature_entry if node.kind == FEATURE else service_entry
        return describe(self.definitions, self.graph, node.name)

    def entries(self, graph: Graph | None = None) -> dict[Node, Entry]:
        """The entries of all features and services of a graph, by default of the project's."""
        nodes = (graph or self.graph).nodes
        return {node: self.entry(node) for node in nodes if node.kind in (FEATURE, SERVICE)}

    def owners(self) -> dict[str, list[Node]]:
        """The features and services of each owner, by name; those that have none last, under an empty text."""
        definitions, owned = self.definitions, dict[str, list[Node]]()
        for node in self.graph.nodes:
            if node.kind not in (FEATURE, SERVICE):
                continue
            among = definitions.features if node.kind == FEATURE else definitions.services
            thing = among.get(node.name)  # a feature that is only stored has no owner
            owned.setdefault(thing.owner if thing else "", []).append(node)
        return dict(sorted(owned.items(), key=lambda owner: (not owner[0], owner[0].casefold())))
