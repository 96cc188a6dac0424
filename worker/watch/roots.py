"""The folders that the sources of a project start from: which are watched, and whom an event in one concerns."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from worker.watch.file_tracker import FileTracker


class Roots:
    """The roots of some trackers. A look costs a stat for each root, an event its own depth, however many sources there are."""

    def __init__(self, trackers: Iterable[FileTracker]) -> None:
        self._by_root: Mapping[str, list[FileTracker]] = _by_root(trackers)
        self._ordered = sorted(self._by_root)
        roots = {root for tracker in trackers for root in tracker.source.roots}
        # In this order what lies below a root comes next after it.
        self._roots = [str(root) for root in sorted(roots, key=lambda root: root.parts)]

    def existing(self) -> dict[str, int]:
        """The topmost of the roots that exist, and their inodes: a folder that was replaced needs a new watch."""
        existing: dict[str, int] = {}
        above: str | None = None
        for root in self._roots:
            if above is not None and root.startswith(above):
                continue
            try:
                existing[root] = os.stat(root).st_ino  # noqa: PTH116 - asked for several times a second
            except OSError:
                continue
            above = _below(root)
        return existing

    def concerned(self, path: str) -> list[FileTracker]:
        """The trackers of sources that a path lies in, or that lie below it."""
        trackers = {
            id(each): each for root in _upwards(path) for each in self._by_root.get(root, ())
        }
        below = _below(path)
        for place in range(bisect_left(self._ordered, below), len(self._ordered)):
            root = self._ordered[place]
            if not root.startswith(below):
                break
            trackers.update((id(each), each) for each in self._by_root[root])
        return list(trackers.values())


def _by_root(trackers: Iterable[FileTracker]) -> dict[str, list[FileTracker]]:
    """The trackers of each root, also by its real path: some systems tell events by real paths."""
    by_root: dict[str, list[FileTracker]] = defaultdict(list)
    for tracker in trackers:
        names = {text for root in tracker.source.roots for text in (str(root), _real(root))}
        for name in names:
            by_root[name].append(tracker)
    return dict(by_root)


def _real(root: Path) -> str:
    return os.path.realpath(root)


def _below(path: str) -> str:
    """How the paths of everything below a path begin."""
    return path if path.endswith("/") else f"{path}/"


def _upwards(path: str) -> Iterable[str]:
    """A path and all that it lies in."""
    while path and path != "/":
        yield path
        path = path.rpartition("/")[0]
    yield "/"
