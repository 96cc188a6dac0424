"""When a file came to be there is what freshness counts from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mlforge.sources.source import Source
from tests.support.workers import purchases
from worker.watch.file_tracker import SETTLE_S, Change, FileTracker
from worker.watch.polls import _LISTED, Polls
from worker.watch.roots import Roots
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


def test_a_file_that_has_a_writer_is_left_however_long_it_has_not_grown(
    tracker: FileTracker, tmp_path: Path
) -> None:
    with (tmp_path / "drops/a.parquet").open("wb") as file:
        file.write(CONTENT[:100])
        file.flush()
        assert tracker.look(tracker.scan(), 1, 0.0) is None
        assert tracker.settle(1, 2 * SETTLE_S) is None
    assert tracker.settle(1, 3 * SETTLE_S) is not None, "it is damaged, and nobody goes on with it"


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


def test_a_damaged_file_that_was_moved_in_came_when_it_was_moved(
    tracker: FileTracker, tmp_path: Path
) -> None:
    aside = tmp_path / "aside/day/a.parquet"
    aside.parent.mkdir(parents=True)
    aside.write_bytes(CONTENT[:100])
    moved = aside.stat().st_ctime_ns // 1_000 + HOUR_US
    look(tracker, moved - 5_000_000)
    shutil.move(aside.parent, tmp_path / "drops/day")
    assert look(tracker, moved) is None, "it may be whole soon"
    assert look(tracker, moved + int(SETTLE_S * 1e6)) == moved


def test_a_file_that_went_before_it_was_whole_is_waited_for_no_more(
    tracker: FileTracker, tmp_path: Path
) -> None:
    path = tmp_path / "drops/a.parquet"
    path.write_bytes(CONTENT[:100])
    look(tracker, 1)
    path.unlink()
    assert look(tracker, 2) is None
    assert tracker.unfinished == {}


def test_a_root_that_went_and_came_back_as_it_was_is_news(
    tracker: FileTracker, tmp_path: Path
) -> None:
    put(tmp_path / "drops/a.parquet")
    told = []
    for folder in ("drops", "aside", "aside", "drops", "drops"):
        for present in tmp_path.iterdir():
            present.rename(tmp_path / folder)
        told.append(tracker.look(tracker.scan(), 1, 0.0))
    root = tmp_path / "drops"
    assert list(map(str, told[1:])) == [f"{root} missing", "None", f"{root} is back", "None"]


def test_roots_below_others_are_watched_with_them(tmp_path: Path) -> None:
    for name in ("a", "a/b", "a/b/c", "a-b", "d"):
        (tmp_path / name).mkdir()
    sources = {
        name: Source.of(f"{name}/", tmp_path) for name in ("a/b/c", "a-b", "d", "a/b", "a", "gone")
    }
    roots = Roots([FileTracker(source, (name,)) for name, source in sources.items()])
    assert [Path(root).name for root in roots.existing()] == ["a", "a-b", "d"]


def test_a_root_below_one_that_is_not_there_is_watched_itself(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    sources = {name: Source.of(f"{name}/", tmp_path) for name in ("a/b", "c", "c/d")}
    (tmp_path / "c/d").mkdir(parents=True)
    roots = Roots([FileTracker(source, (name,)) for name, source in sources.items()])
    assert len(roots.existing()) == 2


def test_an_event_concerns_sources_above_and_below_its_path(tmp_path: Path) -> None:
    sources = {name: Source.of(f"{name}/", tmp_path) for name in ("a", "a/b", "a-b", "c", "a/b/d")}
    roots = Roots([FileTracker(source, (name,)) for name, source in sources.items()])

    def concerned(path: str) -> list[str]:
        return sorted(f for each in roots.concerned(str(tmp_path / path)) for f in each.features)

    assert concerned("a/b/x.parquet") == ["a", "a/b"]
    assert concerned("a") == ["a", "a/b", "a/b/d"]
    assert concerned("a-b/x.parquet") == ["a-b"]
    assert concerned("other/x.parquet") == []
    assert len(concerned("")) == len(sources)


def test_an_event_told_by_the_real_path_of_a_root_concerns_its_source(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    roots = Roots([FileTracker(Source.of("link/", tmp_path), ("spend",))])
    assert len(roots.concerned(str(tmp_path / "real/a.parquet"))) == 1


def test_a_folder_concerns_a_source_that_it_held_files_of_or_held(
    tracker: FileTracker, tmp_path: Path
) -> None:
    drops = tmp_path / "drops"
    put(drops / "day/a.parquet")
    look(tracker, 1)
    (tmp_path / "aside").mkdir()
    concerned = [drops, drops / "day", tmp_path]
    assert all(map(tracker.concerns_folder, concerned))
    shutil.rmtree(drops)
    assert all(map(tracker.concerns_folder, concerned))
    others = [tmp_path / "aside", drops / "other", drops / "_day"]
    assert not any(map(tracker.concerns_folder, others))


def settled(folder: Path) -> None:
    """Let a folder have changed last a minute ago."""
    then = folder.stat().st_mtime - 60
    os.utime(folder, (then, then))


@pytest.mark.parametrize("change", ["came", "went", "renamed", "folder", "root"])
def test_folders_tell_of_files_that_come_and_go(
    tracker: FileTracker, tmp_path: Path, change: str
) -> None:
    drops = tmp_path / "drops"
    for name in ("a.parquet", "day/b.parquet"):
        put(drops / name)
    for folder in (drops, drops / "day"):
        settled(folder)
    tracker.look(tracker.scan(), 1, 0.0)
    assert tracker.has_same_folders()
    if change == "came":
        put(drops / "day/c.parquet")
    elif change == "went":
        (drops / "a.parquet").unlink()
    elif change == "renamed":
        (drops / "day/b.parquet").rename(drops / "day/c.parquet")
    elif change == "folder":
        shutil.move(drops / "day", tmp_path / "aside")
    else:
        shutil.move(drops, tmp_path / "aside")
        drops.mkdir()
        settled(drops)
    assert not tracker.has_same_folders()


def test_a_folder_that_changed_just_now_is_not_trusted(
    tracker: FileTracker, tmp_path: Path
) -> None:
    put(tmp_path / "drops/a.parquet")
    tracker.look(tracker.scan(), 1, 0.0)
    assert not tracker.has_same_folders()


def test_old_files_are_not_opened_when_a_source_is_first_seen(
    tracker: FileTracker, tmp_path: Path
) -> None:
    half = tmp_path / "drops/half.parquet"
    half.write_bytes(CONTENT[:100])
    later = half.stat().st_ctime_ns // 1_000 + HOUR_US
    tracker.look(tracker.scan(), later, 0.0)
    assert not tracker.unfinished
    half.write_bytes(CONTENT)
    assert tracker.glance("half.parquet", later, 0.0), "a change of it is told all the same"


def test_a_first_look_into_a_source_is_news_in_words_and_no_file_among_others() -> None:
    came = Change({"came": 1}, "a.parquet", 7)
    assert str(_LISTED) == "first look into the source"
    assert str(_LISTED.and_then(came)) == str(came.and_then(_LISTED)) == "a.parquet came"
    assert _LISTED.and_then(came).closed_at == 7
    later = Change({"came": 1}, "b.parquet", 9)
    assert came.and_then(later).closed_at == later.and_then(came).closed_at == 7


def test_the_first_listing_of_a_poll_is_news_though_it_finds_none(tracker: FileTracker) -> None:
    polls = Polls([tracker])
    for _ in range(2):
        polls._round(polls._polls[0])
    assert [change for _, change in polls.taken()] == [_LISTED]


@pytest.mark.parametrize("way", ["poll", "scan"])
def test_a_source_that_cannot_be_listed_is_told_until_it_can(
    tracker: FileTracker, tmp_path: Path, way: str
) -> None:
    """Else all looks well while none of its drops is taken in."""
    watcher = Watcher({"spend": tracker.source}, lambda _: None)
    polls = Polls([tracker])

    def look() -> str | None:
        if way == "poll":
            polls._round(polls._polls[0])
            return tracker.heartbeat.error
        watcher._whole_at = 0.0
        watcher._scan()
        return watcher.unlisted[0].error if watcher.unlisted else None

    drops = tmp_path / "drops"
    assert look() is None
    drops.rename(tmp_path / "aside")
    drops.write_text("a file in the place of the folder")
    told = look()
    assert told
    assert told.startswith("SourceError: source 'drops/'")
    drops.unlink()
    (tmp_path / "aside").rename(drops)
    assert look() is None
