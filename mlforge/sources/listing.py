"""A listing: the files that a scan of a source saw."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import compress
from operator import is_not
from pathlib import Path

from mlforge.core.list_diff import lacking
from mlforge.sources.source_file import FileStat, Remote, SourceFile, Stat
from mlforge.sources.walk import FolderState, Ignored


@dataclass(frozen=True, slots=True)
class Listing:
    """Files that a scan saw. `hive` names the columns that paths hold: `date` of `date=2024-01-01/`.

    root: the folder that paths start from; where `exists` is False, the missing folder.
    stats: each file's stat as a plain tuple, by its path; in no particular order. tables: the listings of
    the source's tables, by their names. folders: the state of each folder that was listed (see `Walk`).
    version: of files that are one table, the version that they are (`user_spend@1.0.3`): all of them count or
    none. located: where files lie that are not at their paths below the root. remote: by which files are read that
    are no files of this machine. notes: what to warn of. sealed_until: the instant from before which
    partitions are sealed by now, in UTC microseconds; 0 of a source that seals none. known: the stats that were taken for
    granted but for those of the paths in `looked_at`; None where each file was looked at.
    """

    root: Path
    exists: bool
    stats: Mapping[str, Stat] = field(default_factory=dict)
    ignored: tuple[Ignored, ...] = ()
    hive: frozenset[str] = frozenset()
    tables: Mapping[str, Listing] = field(default_factory=dict)
    folders: Mapping[str, FolderState | None] = field(default_factory=dict)
    version: str = ""
    remote: Remote | None = None
    located: Mapping[str, Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sealed_until: int = 0
    known: Mapping[str, Stat] | None = None
    looked_at: frozenset[str] = frozenset()

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """All files, sorted by their paths."""
        return self.among(self.stats)

    def among(self, paths: Iterable[str]) -> tuple[SourceFile, ...]:
        """The source files of these paths, sorted."""
        return tuple(
            SourceFile(path, self.absolute(path), FileStat(*self.stats[path]), self.remote)
            for path in sorted(paths)
        )

    def lacking(self, paths: Collection[str], stats: Mapping[str, Stat]) -> list[str]:
        """Paths that are not among some stats. paths: of listed files, and of others that were known before."""
        if stats is not self.known:
            return lacking(paths, stats)
        return [path for path in self.looked_at if path in paths and path not in stats]

    def unlike(self, stats: Mapping[str, Stat]) -> list[str]:
        """The paths among some stats of files that are not listed with the same one."""
        listed = self.stats
        if stats is self.known:
            return [p for p in self.looked_at if p in stats and listed.get(p) != stats[p]]
        # A scan gives the very same stats of most, which cost no step of Python's.
        others = compress(stats, map(is_not, map(listed.get, stats), stats.values()))
        return [path for path in others if listed.get(path) != stats[path]]

    def absolute(self, path: str) -> Path:
        """Where the file of a path is."""
        return self.located.get(path) or self.root / path
