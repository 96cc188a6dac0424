"""Measures 1, 1b, 1c, 2, 4, 11, 12: what a drop costs, against full builds and against other drops."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import polars as pl

from benchmarks import checksums, data
from benchmarks.harness import (
    MILLISECONDS,
    PERCENT,
    SECONDS,
    Bench,
    Measure,
    Row,
    Target,
    check,
    check_same,
    median_of,
    ratios,
)
from benchmarks.memory import resident
from benchmarks.project import NAME, Project, Stores
from benchmarks.timing import seconds
from mlforge.maintenance import operations
from mlforge.online.prefetch import read_ahead

_DAYS_BACK = 3


@dataclass
class Feed:
    """A project that is built, and the drops that come after.

    is_told: whether a refresh is told which file came, as a watcher tells a worker, or looks at all that is there.
    keeps_up: whether the process has the events that windows hold in memory before each drop, as a worker's does.
    """

    project: Project
    stores: Stores
    late: bool = False
    rows: int | None = None
    is_told: bool = True
    keeps_up: bool = False
    modes: set[str] = field(default_factory=set)
    _next: int = 0

    @classmethod
    def over(
        cls,
        project: Project,
        *,
        late: bool = False,
        rows: int | None = None,
        keeps_up: bool = False,
    ) -> Feed:
        """Build the project, then take one drop that is not measured."""
        feed = cls(project, project.stores(), late, rows, keeps_up=keeps_up)
        feed.stores.build()
        feed.drop()
        feed.modes.clear()
        return feed

    def drop(self) -> float:
        """The seconds from the next drop's being there to its rows' being online."""
        size = self.project.bench.size
        frame = data.drop(size, self._next, late=self.late, rows=self.rows)
        name = f"drop-{self._next:06d}.parquet"
        data.put(frame, self.project.source / name)
        self._next += 1
        if self.keeps_up:
            self._keep_up()
        return seconds(partial(self.follow, name))

    def follow(self, *names: str) -> int:
        """Refresh and push, as a worker does; how many rows went online. names: those of the files that alone changed, where that is told."""
        definitions = self.stores.definitions
        paths = frozenset(names) if names and self.is_told else None
        result = definitions.refresh(
            NAME, options=replace(definitions.settings.options, paths=paths)
        )
        self.modes.add(result.mode)
        return definitions.push(NAME, diff=result.diff).written

    def _keep_up(self) -> None:
        """Do what a worker's process does while it waits for its next job."""
        store = self.stores.definitions.store
        latest = store.latest(NAME)
        assert latest is not None
        check(read_ahead(store, latest) > 0, "no events are kept in memory")


def check_same_stores(bench: Bench, ours: Stores, other: Stores, what: str) -> None:
    """Raise WrongResult unless tables and rows online agree."""
    check_same(checksums.of_table(ours.data), checksums.of_table(other.data), what)
    checksums.check_same_rows(
        checksums.online_rows(bench.client, ours.prefix),
        checksums.online_rows(bench.client, other.prefix),
        what,
    )


def _against_full(
    bench: Bench, *, number: str, limit: float, late: bool = False, keeps_up: bool = False
) -> list[Row]:
    feed = Feed.over(Project.over(bench, bench.history()), late=late, keeps_up=keeps_up)
    drops: list[float] = []
    fulls: list[float] = []
    for turn in range(bench.repeat):
        drops += [feed.drop() for _ in range(bench.size.drops_a_round)]
        whole = feed.project.stores()
        fulls += [seconds(whole.build)] * bench.size.drops_a_round
        if turn == bench.repeat - 1:
            check_same_stores(bench, feed.stores, whole, "drops and a full build")
        whole.remove()
    check(feed.modes == {"incremental"}, f"drops were refreshed {feed.modes}")
    noted = ", 10% of them late" if late else ", windows' events in memory" if keeps_up else ""
    what = f"drop of {bench.size.drop:,} events{noted}"
    return [
        Row(
            number,
            f"{what}: refresh + push",
            median_of(drops, MILLISECONDS),
            f"full build + push: {median_of(fulls, SECONDS)}",
            ratios(drops, fulls),
            Target(limit, PERCENT),
        )
    ]


def drops_by_turns(bench: Bench, feeds: Sequence[Feed]) -> list[list[float]]:
    """The seconds of the same drops onto each, a list a feed."""
    times: list[list[float]] = [[] for _ in feeds]
    for _ in range(bench.repeat * bench.size.drops_a_round):
        for feed, own in zip(feeds, times, strict=True):
            own.append(feed.drop())
    return times


def _two_feeds(
    bench: Bench,
    number: str,
    ours: Sequence[Path],
    other: Sequence[Path],
    against: str,
    limit: float,
) -> list[Row]:
    """The same drops on two histories; ours is the one that may cost a little more."""
    projects = [Project.over(bench, files) for files in (ours, other)]
    feeds = [Feed.over(project) for project in projects]
    times = drops_by_turns(bench, feeds)
    online = [checksums.online_rows(bench.client, feed.stores.prefix) for feed in feeds]
    common = online[0].keys() & online[1].keys()
    check(len(common) >= bench.size.drop, f"{len(common)} rows are online on both sides")
    checksums.check_same_rows(
        {key: online[0][key] for key in common},
        {key: online[1][key] for key in common},
        f"measure {number}",
    )
    return [
        Row(
            number,
            f"drop onto {bench.size.events:,} events in {len(ours):,} files",
            median_of(times[0], MILLISECONDS),
            f"{against} in {len(other):,} files: {median_of(times[1], MILLISECONDS)}",
            ratios(*times),
            Target(limit),
        )
    ]


def _flat(bench: Bench) -> list[Row]:
    size, files = bench.size, bench.history()
    # A drop's windows must lie within the shorter history, or it would have less to do there.
    days = max(size.days // 10, data.WINDOW_DAYS + 4)
    last = -(-len(files) * days // size.days)
    against = f"onto {size.events * last // len(files):,}"
    return _two_feeds(bench, "2", files, files[-last:], against, 1.2)


def _many_files(bench: Bench) -> list[Row]:
    files = bench.history(bench.size.many_files), bench.history()
    return _two_feeds(bench, "12", *files, "onto the same", 1.5)


def _amended(bench: Bench) -> list[Row]:
    """The last events lie in one large file; one row of it changes, and changes again."""
    size = bench.size
    first = size.events - size.big_file
    daily = [file for file in bench.history() if _ends_before(file, first, size)]
    # What the large file does not hold of the day in which it begins is left out.
    project = Project.over(bench, daily)
    large = data.events(size, first, size.events)
    data.put(large, project.source / "large.parquet")
    feed = Feed(project, project.stores())
    feed.stores.build()
    amend = partial(_amend, large, project.source / "large.parquet", size.watermark)
    amend(0)
    feed.follow()
    ours: list[float] = []
    fulls: list[float] = []
    pushed: list[int] = []
    feed.modes.clear()
    for turn in range(1, bench.repeat + 1):
        amend(turn)
        ours.append(seconds(lambda: pushed.append(feed.follow())))
        whole = project.stores()
        fulls.append(seconds(whole.build))
        if turn == bench.repeat:
            check_same_stores(bench, feed.stores, whole, "an amended row and a full build")
        whole.remove()
    check(set(pushed) == {1}, f"one amended row pushed {pushed} entities")
    check(feed.modes == {"incremental"}, f"amended rows were refreshed {feed.modes}")
    return [
        Row(
            "4",
            f"one amended row in a file of {size.big_file:,}",
            median_of(ours, MILLISECONDS),
            f"full build + push: {median_of(fulls, SECONDS)}",
            ratios(ours, fulls),
            Target(0.10, PERCENT),
        )
    ]


def _ends_before(file: Path, event: int, size: data.Size) -> bool:
    return (int(file.stem) + 1) * size.events // size.files <= event


def _amend(large: pl.DataFrame, path: Path, watermark: int, turn: int) -> None:
    """Another amount in the row that lies so far back."""
    at = pl.lit(watermark - _DAYS_BACK * data.DAY).cast(data.SCHEMA["event_time"])
    row = large["event_time"].search_sorted(large.select(at).item())
    amended = large["amount"].clone().scatter(row, 1_000_000.0 + turn)
    data.put(large.with_columns(amended), path)


def _in_a_row(bench: Bench) -> list[Row]:
    size = bench.size
    feed = Feed.over(Project.over(bench, bench.history()), rows=size.drop // 10)
    tenth = size.row_of_drops // 10
    times: list[float] = []
    sizes: list[str] = []
    for number in range(1, size.row_of_drops + 1):
        took = feed.drop()
        store = feed.stores.definitions.store
        times.append(took + seconds(partial(operations.tidy, store, NAME)))
        if number in (tenth, size.row_of_drops):
            sizes.append(_sizes(feed))
    whole = feed.project.stores()
    whole.build()
    check_same_stores(bench, feed.stores, whole, "many drops in a row and a full build")
    check(feed.modes == {"incremental"}, f"drops were refreshed {feed.modes}")
    first, last = times[:tenth], times[-tenth:]
    return [
        Row(
            "11",
            f"{size.row_of_drops:,} drops of {size.drop // 10} events: the last {tenth}",
            f"{median_of(last, MILLISECONDS)} ({sizes[1]})",
            f"the first {tenth}: {median_of(first, MILLISECONDS)} ({sizes[0]})",
            [statistics.median(last) / statistics.median(first)],
            Target(1.3),
        )
    ]


def _sizes(feed: Feed) -> str:
    """What must not grow with the number of drops."""
    folder = feed.stores.path / NAME
    data_path = feed.stores.data
    parts = 1 if data_path.is_file() else len(list(data_path.iterdir()))
    partials, packs = (len(list((folder / n).glob("*"))) for n in ("_partials", "_packs"))
    notes = [*folder.glob("_*.json"), data_path.parent / ".meta.json"]
    return (
        f"{parts} parts, {partials} loose partials, {packs} packs, "
        f"{sum(path.stat().st_size for path in notes) // 1000} kB of books, "
        f"{resident() // 1_000_000} MB"
    )


MEASURES = (
    Measure(
        "1",
        "refresh + push of a drop just after the watermark, against a full build + push",
        "<= 2%",
        partial(_against_full, number="1", limit=0.02),
    ),
    Measure(
        "1b",
        "the same with a tenth of the rows up to 30 days late",
        "<= 10%",
        partial(_against_full, number="1b", limit=0.10, late=True),
    ),
    Measure(
        "1c",
        "the same as 1 in a process that keeps the events of windows in memory, as a worker's does",
        "<= 0.5%",
        partial(_against_full, number="1c", limit=0.005, keeps_up=True),
    ),
    Measure("2", "a drop onto all events, against one onto a tenth of them", "<= 1.2x", _flat),
    Measure("4", "one amended row in a large file, against a full build", "<= 10%", _amended),
    Measure("11", "many drops in a row: the last tenth against the first", "<= 1.3x", _in_a_row),
    Measure("12", "a drop beside many files, against one beside a few", "<= 1.5x", _many_files),
)
