"""`python -m checks.circles`: no module of mlforge or the worker imports itself by way of others.

An import within a function counts as one at the top of its module: who follows it comes back all the same. One for
annotations alone (`if TYPE_CHECKING`) does not: nothing runs along it. Exit code 1 for circles, which are printed.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from checks.packages import ROOT, Graph, imported, parsed

FOLDERS = ("mlforge", "worker")


def imports(root: Path = ROOT) -> Graph:
    """Modules by their dotted names, a package by its own, with the ones that each imports."""
    paths = {
        _name(path.relative_to(root)): path
        for folder in FOLDERS
        for path in sorted((root / folder).rglob("*.py"))
    }
    graph = {}
    for name, path in paths.items():
        names = imported(parsed(path))
        graph[name] = frozenset(_modules(names, paths.keys())) - {name}
    return graph


def _name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _modules(names: Iterable[str], known: Collection[str]) -> Iterator[str]:
    """The modules among names, and those that the other names are in."""
    for name in names:
        module = name if name in known else name.rpartition(".")[0]
        if module in known:
            yield module


def circles(graph: Graph) -> list[tuple[str, ...]]:
    """A shortest circle through each module that is on one; one alone of those over the same modules."""
    left = dict(graph)
    while ends := [name for name, below in left.items() if not below & left.keys()]:
        for name in ends:
            del left[name]
    circles: dict[frozenset[str], tuple[str, ...]] = {}
    for name in left:
        if circle := _way_back(left, name):
            circles.setdefault(frozenset(circle), circle)
    return list(circles.values())


def _way_back(graph: Graph, start: str) -> tuple[str, ...]:
    """The modules of the shortest way from one to itself, each once; none where no way leads back."""
    ways, waiting = {start: (start,)}, deque([start])
    while waiting:
        name = waiting.popleft()
        for below in sorted(graph[name] & graph.keys()):
            if below == start:
                return ways[name]
            if below not in ways:
                ways[below] = (*ways[name], below)
                waiting.append(below)
    return ()


def main() -> int:
    """Print the circles; 1 if there is one."""
    lines = [" -> ".join([*circle, circle[0]]) for circle in circles(imports())]
    if lines:
        print("\n".join(lines))
        print("modules import themselves by way of others: move what both need into one below them")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
