"""A graph as boxes in columns and curves between them, from what is made of nothing on the left to its users on the right. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from mlforge.registry.graph import FEATURE, KINDS, SERVICE, SET, SOURCE, TABLE, Graph, Node

BOX_WIDTH, BOX_HEIGHT = 184, 44
_ACROSS, _DOWN, _EDGE = 72, 16, 2
_LETTERS = 20
_MOST = 60


@dataclass(frozen=True, slots=True)
class Box:
    """A node as a box. label: as much of its name as fits. href: its page, None where it has none."""

    x: float
    y: float
    kind: str
    word: str
    name: str
    label: str
    note: str
    href: str | None
    is_here: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """Boxes, and the paths of curves between them; left_out: nodes for which there is no room."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    curves: tuple[str, ...]
    left_out: int


def picture(graph: Graph, here: Node, versions: Mapping[str, str | None]) -> Picture:
    """The picture of a graph around a node; versions: those of features, by name."""
    nodes = [here, *(node for node in graph.nodes if node != here)][:_MOST]
    kept = set(nodes)
    edges = [pair for pair in graph.edges if kept.issuperset(pair)]
    columns: dict[int, list[Node]] = {}
    depths = _depths(nodes, edges)
    for node in sorted(nodes, key=lambda node: (depths[node], graph.nodes.index(node))):
        columns.setdefault(depths[node], []).append(node)
    rows = max(map(len, columns.values()))
    height = rows * (BOX_HEIGHT + _DOWN) - _DOWN + 2 * _EDGE
    at: dict[Node, tuple[float, float]] = {}
    for column, (_, members) in enumerate(sorted(columns.items())):
        taken = len(members) * (BOX_HEIGHT + _DOWN) - _DOWN
        for row, node in enumerate(members):
            y = (height - taken) / 2 + row * (BOX_HEIGHT + _DOWN)
            at[node] = (_EDGE + column * (BOX_WIDTH + _ACROSS), y)
    return Picture(
        width=len(columns) * (BOX_WIDTH + _ACROSS) - _ACROSS + 2 * _EDGE,
        height=height,
        boxes=tuple(_box(node, at[node], versions, node == here) for node in nodes),
        curves=tuple(_curve(at[origin], at[product]) for origin, product in edges),
        left_out=len(graph.nodes) - len(nodes),
    )


def _depths(nodes: list[Node], edges: list[tuple[Node, Node]]) -> dict[Node, int]:
    """The column of each node: one behind the last that it is made from."""
    depths = dict.fromkeys(nodes, 0)
    for _ in nodes:
        moved = [(product, depths[o] + 1) for o, product in edges if depths[product] <= depths[o]]
        if not moved:
            break
        for product, depth in moved:
            depths[product] = max(depths[product], depth)
    return depths


def _box(
    node: Node, place: tuple[float, float], versions: Mapping[str, str | None], is_here: bool
) -> Box:
    href = None
    if node.kind in (FEATURE, SERVICE) and not is_here:
        href = f"/{node.kind}s/{quote(node.name, safe='')}"
    short = node.name if len(node.name) <= _LETTERS else f"{node.name[: _LETTERS - 1]}…"
    if node.kind in (SOURCE, SET, TABLE) and len(node.name) > _LETTERS:
        short = f"…{node.name[1 - _LETTERS :]}"
    note = versions.get(node.name) or "not built" if node.kind == FEATURE else ""
    return Box(*place, node.kind, KINDS[node.kind], node.name, short, note, href, is_here)


def _curve(origin: tuple[float, float], product: tuple[float, float]) -> str:
    """A curve from the right side of one box to the left side of another."""
    x, y = origin[0] + BOX_WIDTH, origin[1] + BOX_HEIGHT / 2
    to_x, to_y = product[0], product[1] + BOX_HEIGHT / 2
    bend = (to_x - x) / 2
    return f"M{x:g} {y:g}C{x + bend:g} {y:g} {to_x - bend:g} {to_y:g} {to_x:g} {to_y:g}"
