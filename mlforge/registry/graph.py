"""Sources, features, services, models, training sets and exported tables of a project, and which is made from which: a graph of names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from mlforge.errors import DefinitionError, did_you_mean

SOURCE, FEATURE, SERVICE, MODEL = "source", "feature", "service", "model"
SET, TABLE = "set", "table"
KINDS: Mapping[str, str] = {
    SOURCE: "source",
    FEATURE: "feature",
    SERVICE: "service",
    MODEL: "model",
    SET: "training set",
    TABLE: "exported table",
}
"""The kinds of nodes as command lines write them, and in words."""


@dataclass(frozen=True, slots=True)
class Node:
    """A thing of a project: its kind, one of `KINDS`, and its name within the kind."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True)
class Graph:
    """Nodes, and pairs of a node and another that is made from it."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[Node, Node], ...]

    @classmethod
    def of(cls, nodes: Iterable[Node], edges: Iterable[tuple[Node, Node]]) -> Graph:
        """The graph of these nodes and of all that the edges name; each once, in the order in which they come."""
        pairs = tuple(dict.fromkeys(edges))
        named = (*nodes, *(node for pair in pairs for node in pair))
        return cls(tuple(dict.fromkeys(named)), pairs)

    @cached_property
    def _above(self) -> dict[Node, list[Node]]:
        return _neighbours((product, origin) for origin, product in self.edges)

    @cached_property
    def _below(self) -> dict[Node, list[Node]]:
        return _neighbours(self.edges)

    @property
    def roots(self) -> list[Node]:
        """The nodes that are made from no other."""
        return [node for node in self.nodes if node not in self._above]

    def made_from(self, node: Node) -> list[Node]:
        """The nodes that a node is directly made from."""
        return self._above.get(node, [])

    def users(self, node: Node) -> list[Node]:
        """The nodes that are directly made from a node."""
        return self._below.get(node, [])

    def upstream(self, node: Node) -> list[Node]:
        """All nodes that a node is made from, the nearest first."""
        return _reached(node, self._above)

    def downstream(self, node: Node) -> list[Node]:
        """All nodes that are made from a node, the nearest first."""
        return _reached(node, self._below)

    def around(self, node: Node) -> Graph:
        """The node with all that it is made from and all that is made from it."""
        above, below = {node, *self.upstream(node)}, {node, *self.downstream(node)}
        edges = (pair for pair in self.edges if above.issuperset(pair) or below.issuperset(pair))
        return Graph.of((n for n in self.nodes if n in above | below), edges)

    def named(self, text: str, kinds: Iterable[str] = KINDS) -> Node:
        """The node of one of these kinds with a name, `user_spend`, or with its kind before it, `feature:user_spend`.

        Raises DefinitionError for a name that no such node has, and for one that nodes of several kinds have.
        """
        among = [node for node in self.nodes if node.kind in set(kinds)]
        nodes = [node for node in among if text in (node.name, str(node))]
        if len(nodes) == 1:
            return nodes[0]
        if nodes:
            raise DefinitionError(
                f"{text!r} names {len(nodes)} things; write {' or '.join(map(str, nodes))}"
            )
        what = " or ".join(KINDS[kind] for kind in kinds)
        raise DefinitionError(f"no {what} {text!r}; {did_you_mean(text, [n.name for n in among])}")


def _neighbours(pairs: Iterable[tuple[Node, Node]]) -> dict[Node, list[Node]]:
    neighbours: dict[Node, list[Node]] = {}
    for node, other in pairs:
        neighbours.setdefault(node, []).append(other)
    return neighbours


def _reached(start: Node, neighbours: Mapping[Node, list[Node]]) -> list[Node]:
    """The nodes that are reached from a node, breadth first, without itself."""
    reached: dict[Node, None] = {start: None}
    for node in (ahead := [start]):
        fresh = [other for other in neighbours.get(node, []) if other not in reached]
        reached.update(dict.fromkeys(fresh))
        ahead += fresh
    return [node for node in reached if node != start]
