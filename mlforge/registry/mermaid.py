"""A graph as the text of a Mermaid flow chart, which GitHub, GitLab and notebooks draw."""

from __future__ import annotations

from collections.abc import Mapping

from mlforge.registry.graph import FEATURE, MODEL, SERVICE, SET, SOURCE, TABLE, Graph, Node

_SHAPES = {
    SOURCE: ("[(", ")]"),
    FEATURE: ("[", "]"),
    SERVICE: ("([", "])"),
    MODEL: ("[[", "]]"),
    SET: ("[/", "/]"),
    TABLE: ("[(", ")]"),
}
_ENTITIES = {"#": "#35;", "&": "#amp;", '"': "#quot;", "<": "#lt;", ">": "#gt;"}


def flow_chart(graph: Graph, versions: Mapping[str, str]) -> str:
    """The chart, from left to right; versions: those of features, by name."""
    ids = {node: f"n{number}" for number, node in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    for node, label in ids.items():
        before, after = _SHAPES[node.kind]
        lines.append(f'  {label}{before}"{_label(node, versions)}"{after}')
    lines += [f"  {ids[origin]} --> {ids[made]}" for origin, made in graph.edges]
    return "\n".join(lines)


def _label(node: Node, versions: Mapping[str, str]) -> str:
    name = "".join(_ENTITIES.get(letter, letter) for letter in " ".join(node.name.split()))
    version = versions.get(node.name) if node.kind == FEATURE else None
    return f"{name}<br>{version}" if version else name
