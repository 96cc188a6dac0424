"""When a file came to be there is what freshness counts from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mlforge.sources.source import Source
from tests.support.workers import purchases
from worker.watch.file_tracker import FileTracker
from worker.watch.watcher import Watcher

HOUR_US = 3_600_000_000
CONTENT = purchases((1, 0, 2.0))


@pytest.fixture
def tracker(tmp_path: Path) -> FileTracker:
    (tmp_path / "drops").mkdir()
    return FileTracker(Source.of("drops/", tmp_path), ("spend",))


def put(path: Path, age_us: int = 0) -> int:
    """Write a file; gives its time of change, in us. It cannot be set, so that the clock is moved instead."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(CONTENT)
    return path.stat().st_ctime_ns // 1_000


def look(tracker: FileTracker, now_us: int) -> int | None:
    change = tracker.look(tracker.source.scan(), now_us, now_us / 1e6)
    return change.closed_at if change else None


def test_a_folder_of_old_files_that_is_moved_in_came_when_it_was_moved(
    tracker: FileTracker, tmp_path: Path
) -> None:
    written = put(tmp_path / "aside/day/a.parquet")
    moved = written + HOUR_US
    look(tracker, moved - 5_000_000)
    shutil.move(tmp_path / "aside/day", tmp_path / "drops/day")
    assert look(tracker, moved) == moved


def test_an_old_file_whose_times_are_kept_by_a_copy_came_when_it_was_copied(
    tracker: FileTracker, tmp_path: Path
) -> None:
    old = tmp_path / "old.parquet"
    put(old)
    os.utime(old, (1, 1))
    look(tracker, old.stat().st_ctime_ns // 1_000)
    shutil.copy2(old, tmp_path / "drops/a.parquet")
    changed = (tmp_path / "drops/a.parquet").stat().st_ctime_ns // 1_000
    assert look(tracker, changed + HOUR_US) == changed


def test_a_file_that_no_event_told_came_when_it_was_closed(
    tracker: FileTracker, tmp_path: Path
) -> None:
    before = put(tmp_path / "other")
    look(tracker, before)
    closed = put(tmp_path / "drops/a.parquet")
    assert look(tracker, closed + 5_000_000) == closed


def test_a_clock_that_is_behind_never_makes_a_file_come_in_the_future(
    tracker: FileTracker, tmp_path: Path
) -> None:
    closed = put(tmp_path / "drops/a.parquet")
    assert look(tracker, closed - HOUR_US) == closed - HOUR_US


def test_a_file_that_was_not_whole_came_when_its_last_byte_did(
    tracker: FileTracker, tmp_path: Path
) -> None:
    path = tmp_path / "drops/a.parquet"
    path.write_bytes(CONTENT[:100])
    first = path.stat().st_ctime_ns // 1_000
    assert look(tracker, first) is None
    path.write_bytes(CONTENT)
    closed = path.stat().st_ctime_ns // 1_000
    assert look(tracker, closed + 1_000_000) == closed


def test_roots_below_others_are_watched_with_them(tmp_path: Path) -> None:
    for name in ("a", "a/b", "a/b/c", "a-b", "d"):
        (tmp_path / name).mkdir()
    sources = {
        name: Source.of(f"{name}/", tmp_path) for name in ("a/b/c", "a-b", "d", "a/b", "a", "gone")
    }
    watcher = Watcher(sources, lambda *_: None)
    assert [root.name for root in watcher._roots()] == ["a", "a-b", "d"]


def test_a_root_below_one_that_is_not_there_is_watched_itself(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    sources = {name: Source.of(f"{name}/", tmp_path) for name in ("a/b", "c", "c/d")}
    (tmp_path / "c/d").mkdir(parents=True)
    assert len(Watcher(sources, lambda *_: None)._roots()) == 2
