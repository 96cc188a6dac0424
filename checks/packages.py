"""`python -m checks.packages`: draw `docs/packages.svg`, the packages and who imports whom, from the code itself.

`--check` draws nothing; exit code 1 if the picture in the repository is not what the code gives.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

from mlforge.core.syntax import module_tree

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "packages.svg"
FACES = {"metrics", "validators", "__init__", "__main__", "templates"}
"""Names of mlforge that only point at others."""

Graph = Mapping[str, frozenset[str]]
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 104, 30, 22, 44, 16


@cache
def imports(root: Path = ROOT) -> Graph:
    """Packages of mlforge, and the worker as a whole, with the ones that each imports, late imports included."""
    graph: dict[str, set[str]] = {}
    for top in ("mlforge", "worker"):
        for path in (root / top).rglob("*.py"):
            package = _room(path.relative_to(root).with_suffix("").parts)
            if package is None:
                continue
            graph.setdefault(package, set())
            names = imported(parsed(path))
            rooms = {_room(name.split(".")) for name in names}
            graph[package] |= {room for room in rooms if room not in (None, package)}  # type: ignore[misc]
    return {name: frozenset(below & graph.keys()) for name, below in sorted(graph.items())}


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file, which every check looks at."""
    return module_tree(path.read_text(encoding="utf-8"))


def _room(parts: list[str] | tuple[str, ...]) -> str | None:
    """The package that a module belongs to; None outside and for names that only point at others."""
    if parts[0] == "worker":
        return "worker"
    if parts[0] != "mlforge" or len(parts) < 2 or parts[1] in FACES:
        return None
    return parts[1]


def imported(tree: ast.Module) -> Iterator[str]:
    """Modules that are imported when the code runs: not those for annotations alone."""
    for node in blocks(tree, lambda node: not _is_for_annotations(node)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from mlforge.online import push` may name a module or what is in one: the room is the same.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def blocks(
    tree: ast.Module, enters: Callable[[ast.AST], bool] = lambda _: True
) -> Iterator[ast.AST]:
    """The module and its statements, with those in the blocks of others; expressions, most of a tree, are not looked into."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if enters(node):
            yield node
            for part in ("body", "orelse", "finalbody", "handlers", "cases"):
                waiting += getattr(node, part, ())


def _is_for_annotations(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def ranks(graph: Graph) -> dict[str, int]:
    """The floor of each package: above all that it imports. Raises ValueError for a circle."""
    floors: dict[str, int] = {}

    def floor(name: str, above: tuple[str, ...]) -> int:
        if name in above:
            raise ValueError(f"a circle: {' -> '.join([*above[above.index(name) :], name])}")
        if name not in floors:
            floors[name] = 1 + max(
                (floor(below, (*above, name)) for below in graph[name]), default=-1
            )
        return floors[name]

    for name in graph:
        floor(name, ())
    return floors


def reduced(graph: Graph) -> Graph:
    """The same graph without arrows that others imply."""

    def reach(name: str) -> frozenset[str]:
        return graph[name] | frozenset().union(*map(reach, graph[name]))

    below = {name: reach(name) for name in graph}
    return {
        name: frozenset(
            one
            for one in direct
            if not any(one in below[other] for other in direct if other != one)
        )
        for name, direct in graph.items()
    }


def picture(graph: Graph) -> str:
    """The drawing: a floor a row, the lowest at the bottom; an arrow that others imply is left out."""
    floors = ranks(graph)
    rows = [[n for n in graph if floors[n] == floor] for floor in range(max(floors.values()) + 1)]
    widest = max(map(len, rows))
    width = widest * (WIDTH + GAP_X) - GAP_X + 2 * MARGIN
    height = len(rows) * (HEIGHT + GAP_Y) - GAP_Y + 2 * MARGIN
    place: dict[str, tuple[float, float]] = {}
    for floor, row in enumerate(rows):
        start = (width - len(row) * (WIDTH + GAP_X) + GAP_X) / 2
        for at, name in enumerate(row):
            y = height - MARGIN - HEIGHT - floor * (HEIGHT + GAP_Y)
            place[name] = (start + at * (WIDTH + GAP_X), y)
    lines = [
        f'<line x1="{place[a][0] + WIDTH / 2:g}" y1="{place[a][1] + HEIGHT:g}" '
        f'x2="{place[b][0] + WIDTH / 2:g}" y2="{place[b][1]:g}"/>'
        for a, direct in reduced(graph).items()
        for b in sorted(direct)
    ]
    boxes = [
        f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="5"/>'
        f'<text x="{x + WIDTH / 2:g}" y="{y + HEIGHT / 2 + 4:g}">{name}</text>'
        for name, (x, y) in place.items()
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
            'aria-label="packages and who imports whom">',
            "<style>rect{fill:#e0f2f1;stroke:#00796b}line{stroke:#78909c;stroke-width:1.2}"
            "text{font:13px sans-serif;text-anchor:middle;fill:#102027}</style>",
            *lines,
            *boxes,
            "</svg>",
            "",
        ]
    )


def main(arguments: list[str]) -> int:
    """Draw, or check."""
    drawing = picture(imports())
    if "--check" in arguments:
        if PICTURE.is_file() and PICTURE.read_text(encoding="utf-8") == drawing:
            return 0
        print(
            f"{PICTURE.relative_to(ROOT)} is not what the imports give; run python -m checks.packages"
        )
        return 1
    PICTURE.write_text(drawing, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
