"""The watcher's view of a source: which files are whole, and which changed since."""

from __future__ import annotations

import stat as modes
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlforge.core.text import plural
from mlforge.core.values import SECOND_US
from mlforge.sources.file_bytes import is_being_written
from mlforge.sources.listing import Listing
from mlforge.sources.parquet_reader import completeness
from mlforge.sources.place import is_skipped
from mlforge.sources.row_source import RowSource
from mlforge.sources.source_file import FileStat, Stat
from mlforge.sources.walk import FolderState, folder_state
from worker.state.named_paths import together
from worker.supervision import Heartbeat

_COARSE_US = 50_000
"""How much a file system's clock may be behind the clock that is asked for now."""
_LONG_US = 60 * SECOND_US
"""A file that has not changed for so long when a source is first seen is not opened."""
SETTLE_S = 2.0
"""A file without a footer that has not changed for so long is taken as it is: it is damaged."""


@dataclass(frozen=True, slots=True)
class Change:
    """Files of a source that appeared, changed or vanished; `closed_at`: when the first was closed, in UTC microseconds.

    example: the path of a file; the news itself where there is one without a file. paths: those of all its files; None for too many, or
    where not each is known.
    """

    counts: Mapping[str, int]
    example: str
    closed_at: int | None = None
    paths: frozenset[str] | None = None

    def and_then(self, other: Change | None) -> Change:
        """The two changes merged into one."""
        if other is None:
            return self
        if not self.counts:
            return other
        times = [time for time in (self.closed_at, other.closed_at) if time is not None]
        return Change(
            Counter(self.counts) + Counter(other.counts),
            self.example,
            min(times) if times else None,
            together(self.paths, other.paths),
        )

    def __str__(self) -> str:
        if not self.counts:
            return self.example
        if sum(self.counts.values()) == 1:
            return f"{self.example} {next(iter(self.counts))}"
        return ", ".join(f"{plural(count, 'file')} {what}" for what, count in self.counts.items())


@dataclass(slots=True)
class _Unfinished:
    """An unfinished file: its last stat, since when it has it (monotonic seconds), and when it arrived (UTC microseconds)."""

    stat: FileStat
    since: float
    came_at: int


@dataclass(slots=True)
class FileTracker:
    """A source, the features that it feeds, and the files as they were last seen whole.

    of_rows: those of the features whose rows it holds, and not only a table beside them.
    """

    source: RowSource
    features: tuple[str, ...]
    of_rows: frozenset[str] = frozenset()
    known: dict[str, FileStat] = field(default_factory=dict)
    unfinished: dict[str, _Unfinished] = field(default_factory=dict)
    exists: bool = True
    folders: Mapping[str, FolderState | None] | None = None
    """The folders of the last scan; None where it failed."""
    sealed_until: int = 0
    """The instant from before which partitions are sealed, in us, as the last scan left it."""
    looked_at: int = 0
    """When all that is there was last looked at, in us: a file that is new since then came since then."""
    heartbeat: Heartbeat = field(init=False)
    """Whether the source can be listed."""

    def __post_init__(self) -> None:
        self.heartbeat = Heartbeat(f"look into {self.source.text}")

    def scan(self) -> Listing:
        """List the source as the disk has it now."""
        self.folders = None
        self.source = self.source.anew()
        listing = self.source.sealed(self.sealed_until, self.known).scan(self.known)
        self.sealed_until = listing.sealed_until
        self.folders = listing.folders
        return listing

    def is_changed_though_sealed(self, place: str) -> bool:
        """Whether a file of a partition that is not listed any more is not as it is known. Raises StoreError if no answer comes."""
        if not self.source.is_sealed(place, self.sealed_until):
            return False
        try:
            return self.source.file(place).stat != self.known.get(place)
        except OSError:
            return place in self.known

    def has_same_folders(self) -> bool:
        """Whether no file came, went or was renamed since the last scan, as the folders themselves say.

        They do not tell of a file that was written over in place.
        """
        folders = self.folders
        if folders is None or not self.exists:
            return False
        return all(state == folder_state(path) for path, state in folders.items())

    def takes(self, place: str) -> bool:
        """Whether a file at this path of the source's listings would count; looks at the name alone."""
        return self.source.matches(self.source.absolute(place))

    def locate(self, path: Path) -> str | None:
        """The path as in the source's listings, None if it lies elsewhere."""
        return self.source.path_of(path)

    def concerns_folder(self, path: Path) -> bool:
        """Whether a folder that appeared or vanished may hold, or have held, files of this source."""
        place = self.locate(path)
        if is_skipped(path.name):
            return False
        if place is None:
            return any(root.is_relative_to(path) for root in self.source.roots)
        if place == "." or path.is_dir():
            return True
        return any(name.startswith(f"{place}/") for name in self.known)

    def glance(self, place: str, now_us: int, now_s: float) -> Change | None:
        """Look at one file again."""
        path = self.source.absolute(place)
        stat = _stat(path)
        if stat is None:
            self.unfinished.pop(place, None)
            was = self.known.pop(place, None)
            return Change({"went": 1}, place, now_us, frozenset((place,))) if was else None
        return self._judge(place, path, stat, _Instants(now_us, now_s, self.looked_at))

    def look(self, listing: Listing, now_us: int, now_s: float) -> Change | None:
        """Compare with all that is there."""
        looked_at, self.looked_at = self.looked_at, now_us
        if not listing.exists:
            was_there, self.exists = self.exists, False
            return Change({"missing": 1}, str(listing.root)) if was_there else None
        was_there, self.exists = self.exists, True
        change = None
        present = listing.stats
        for place in [place for place in self.known if place not in present]:
            del self.known[place]
            change = Change({"went": 1}, place, now_us).and_then(change)
        for place in [place for place in self.unfinished if place not in present]:
            del self.unfinished[place]
        differ = [place for place, stat in present.items() if self.known.get(place) != stat]
        if looked_at == 0:
            differ = self._learn(present, differ, now_us)
        for file in listing.among({*differ, *self.unfinished}):
            at = _Instants(now_us, now_s, looked_at)
            news = self._judge(file.path, file.absolute, file.stat, at)
            change = news.and_then(change) if news else change
        if change is None and not was_there:
            return Change({"is back": 1}, str(listing.root))
        return change

    def _learn(self, present: Mapping[str, Stat], places: Iterable[str], now_us: int) -> list[str]:
        """Take files as they are that nobody has touched for long; returns the others, which are to be looked into."""
        recent = (now_us - _LONG_US) * 1_000
        learned = {p: present[p] for p in places if max(present[p][1:3]) < recent}
        self.known.update((place, FileStat(*stat)) for place, stat in learned.items())
        return [place for place in places if place not in learned]

    def settle(self, now_us: int, now_s: float) -> Change | None:
        """Look again at the files that were not whole."""
        change = None
        for place in list(self.unfinished):
            news = self.glance(place, now_us, now_s)
            change = news.and_then(change) if news else change
        return change

    def _judge(self, place: str, path: Path, stat: FileStat, at: _Instants) -> Change | None:
        before = self.known.get(place)
        if stat == before:
            self.unfinished.pop(place, None)
            return None
        waiting = self.unfinished.get(place)
        came_at = at.came(stat, waiting)
        is_whole_at_once = self.source.is_polled
        writing = not is_whole_at_once and is_being_written(path)
        if writing or not (is_whole_at_once or completeness(path) is None):
            if waiting is None or waiting.stat != stat:
                self.unfinished[place] = _Unfinished(stat, at.now_s, came_at)
                return None
            if writing or at.now_s - waiting.since < SETTLE_S:
                return None
        self.unfinished.pop(place, None)
        self.known[place] = stat
        what = "came" if before is None else "changed"
        return Change({what: 1}, place, came_at, frozenset((place,)))


@dataclass(frozen=True, slots=True)
class _Instants:
    """Of a look at a file: now, by both clocks, and when all was looked at before (us)."""

    now_us: int
    now_s: float
    looked_at: int

    def came(self, stat: FileStat, waiting: _Unfinished | None) -> int:
        """The time when a file arrived in its present state, in UTC microseconds.

        That is when it was last written or renamed, unless all was looked at since: a folder of old
        files that is moved in tells nothing of when, so it came just now.
        """
        closed_at = min(max(stat.mtime_ns, stat.ctime_ns) // 1_000, self.now_us)
        if waiting is not None:
            return max(closed_at, waiting.came_at)
        return self.now_us if closed_at < self.looked_at - _COARSE_US else closed_at


def _stat(path: Path) -> FileStat | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return FileStat.of(stat) if modes.S_ISREG(stat.st_mode) else None
