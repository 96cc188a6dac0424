"""Which intervals have events in one file alone, whose tiles then are those of a full build."""

from __future__ import annotations

import polars as pl
import pytest

from mlforge.core.values import TimeRange
from mlforge.engines.tiles.as_filed import Intervals
from mlforge.engines.tiles.cache import CachedTiles
from mlforge.store.file_tasks import FileScanTask

TILES = CachedTiles("", None, {})


def shared(*files: tuple[int, int] | None, cached: bool = True) -> Intervals:
    """Of files with events from one time to another, None for a file without any; intervals of 10."""
    tasks = [FileScanTask("", (), times and TimeRange(*times)) for times in files]
    return Intervals.shared([(task, TILES if cached else None) for task in tasks], 10)


@pytest.mark.parametrize(
    ("files", "edges"),
    [
        ([], ()),
        ([None, (3, 58)], ()),
        ([(3, 19), (20, 58), (70, 75)], ()),
        ([(3, 21), (22, 58)], (20, 30)),
        ([(-35, -25), (-24, 8)], (-30, -20)),
        ([(3, 95), (21, 24), (41, 67)], (20, 30, 40, 70)),
        ([(3, 95), (21, 44), (41, 67)], (20, 70)),
        ([(3, 15), (3, 15), (3, 15)], (0, 20)),
    ],
)
def test_intervals_are_shared_where_a_second_file_has_events(
    files: list[tuple[int, int] | None], edges: tuple[int, ...]
) -> None:
    assert shared(*files).edges == edges
    assert bool(shared(*files)) is bool(edges)


def test_all_intervals_of_files_without_tiles_are_shared() -> None:
    assert shared((3, 15), (21, 24), (50, 59), cached=False).edges == (0, 30, 50, 60)


def test_they_hold_the_instants_between_their_edges() -> None:
    intervals = Intervals((20, 30, 40, 70))
    times = pl.DataFrame({"t": [70, 19, 20, 29, 30, 39, 40, 69]})
    assert times.filter(intervals.hold(pl.col("t")))["t"].to_list() == [20, 29, 40, 69]
    assert times.filter(Intervals(()).hold(pl.col("t"))).is_empty()
    assert intervals.hull == TimeRange(20, 69)


def test_a_part_of_them_is_cut_where_a_range_begins_and_ends() -> None:
    intervals = Intervals((20, 30, 40, 70))
    assert intervals.within(TimeRange(25, 49)).edges == (25, 30, 40, 50)
    assert intervals.within(TimeRange(30, 39)).edges == ()
    assert not intervals.overlap(TimeRange(70, 90))
    assert intervals.overlap(TimeRange(69, 90))
