"""File events become requests: promptly, once, and only for files that are whole."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl
import pytest

from mlforge.core import clock
from mlforge.sources.source import Source
from tests.support.contents import as_parquet
from tests.support.workers import eventually, write
from worker.state.pending import PendingRequest
from worker.watch import file_tracker
from worker.watch.watcher import Timing, Watcher


def parquet(rows: int = 3) -> bytes:
    return as_parquet(pl.DataFrame({"n": range(rows)}))


class Requested(list[tuple[str, str, int | None]]):
    """What was requested: (feature, reason, closed_at)."""

    def __init__(self) -> None:
        self.named: dict[str, frozenset[str] | None] = {}
        self.together: list[set[str]] = []

    def __call__(self, pending: Mapping[str, PendingRequest]) -> None:
        self.extend((name, each.reason, each.closed_at) for name, each in pending.items())
        self.named |= {each.reason: each.paths for each in pending.values()}
        self.together.append(set(pending))

    def reasons(self, feature: str = "spend") -> list[str]:
        return [reason for name, reason, _ in self if name == feature and reason != "start"]


@pytest.fixture
def drops(tmp_path: Path) -> Path:
    return tmp_path / "drops"


@pytest.fixture
def watched(drops: Path, request: pytest.FixtureRequest) -> Iterator[Requested]:
    """A running watcher of `drops/`."""
    timing = getattr(request, "param", Timing(scan_every_s=60))
    requested, stop = Requested(), threading.Event()
    sources = {
        "spend": Source.of("drops/", drops.parent),
        "sales": Source.of("drops/*.parquet", drops.parent),
    }
    watcher = Watcher(sources, requested, timing)
    thread = threading.Thread(target=watcher.run, args=(stop,))
    drops.mkdir()
    thread.start()
    eventually(lambda: len(requested) >= 2)
    yield requested
    stop.set()
    thread.join()


def test_every_feature_is_requested_at_the_start(watched):
    assert sorted(watched) == [("sales", "start", None), ("spend", "start", None)]


def test_a_file_renamed_into_place_is_requested_for_each_feature_at_once(watched, drops):
    before = clock.now()
    write(drops / "jan.parquet", parquet())
    eventually(lambda: len(watched) == 4)
    assert {(feature, reason) for feature, reason, _ in watched[2:]} == {
        ("spend", "jan.parquet came"),
        ("sales", "jan.parquet came"),
    }
    assert watched.together == [{"spend", "sales"}] * 2  # two sources, one turn
    assert all(before - 10_000 <= closed_at <= clock.now() for _, _, closed_at in watched[2:])


def test_a_file_is_left_until_its_footer_is_whole(watched, drops):
    content = parquet(10_000)
    with (drops / "slow.parquet").open("wb") as file:
        for place in range(0, len(content) - 8, 4_000):
            file.write(content[place : min(place + 4_000, len(content) - 8)])
            file.flush()
        write(drops / "other.parquet", parquet())
        eventually(lambda: "other.parquet came" in watched.reasons())
        assert not any("slow" in reason for reason in watched.reasons())
        file.write(content[-8:])
    eventually(lambda: watched.reasons().count("slow.parquet came") == 1)


def test_a_file_that_stays_damaged_is_requested_after_a_while(watched, drops, monkeypatch):
    monkeypatch.setattr(file_tracker, "SETTLE_S", 0.3)
    write(drops / "damaged.parquet", b"PAR1 this is not parquet")
    eventually(lambda: watched.reasons() == ["damaged.parquet came"])


def test_changed_and_removed_files_are_told_apart(watched, drops):
    file = write(drops / "jan.parquet", parquet())
    eventually(lambda: watched.reasons() == ["jan.parquet came"])
    write(file, parquet(5))
    eventually(lambda: watched.reasons()[1:] == ["jan.parquet changed"])
    file.unlink()
    eventually(lambda: watched.reasons()[2:] == ["jan.parquet went"])


def test_files_of_a_folder_that_appears_are_all_seen(watched, drops):
    for month in range(12):
        folder = drops / "deep" / "er" / f"{month:02}"
        folder.mkdir(parents=True)
        for day in range(5):
            (folder / f"{day}.parquet").write_bytes(parquet())
    seen = 0

    def all_seen() -> bool:
        nonlocal seen
        seen = sum(
            int(reason.split()[0]) if reason.split()[0].isdigit() else 1
            for reason in watched.reasons()
        )
        return seen >= 60

    eventually(all_seen)
    assert seen == 60


def test_a_folder_renamed_in_and_out_is_seen(watched, drops, tmp_path):
    ready = tmp_path / "ready"
    write(ready / "a.parquet", parquet())
    write(ready / "b.parquet", parquet())
    ready.rename(drops / "2024")
    eventually(lambda: watched.reasons() == ["2 files came"])
    shutil.move(drops / "2024", tmp_path / "out")
    eventually(lambda: watched.reasons()[1:] == ["2 files went"])


def test_a_root_that_is_made_anew_is_watched_anew(watched, drops):
    write(drops / "a.parquet", parquet())
    eventually(lambda: watched.reasons() == ["a.parquet came"])
    shutil.rmtree(drops)
    eventually(lambda: any(reason.endswith("missing") for reason in watched.reasons()))
    drops.mkdir()
    write(drops / "b.parquet", parquet())
    eventually(lambda: any("came" in reason for reason in watched.reasons()[1:]))
    write(drops / "c.parquet", parquet())
    eventually(lambda: "c.parquet came" in watched.reasons())


@pytest.mark.parametrize("watched", [Timing(scan_every_s=60, polling=True)], indirect=True)
def test_polling_sees_the_same(watched, drops):
    write(drops / "jan.parquet", parquet())
    eventually(lambda: watched.reasons() == ["jan.parquet came"])
    assert watched.named["jan.parquet came"] is None


@pytest.mark.parametrize("watched", [Timing(scan_every_s=0.2)], indirect=True)
def test_what_no_event_tells_is_found_by_a_scan(watched, drops):
    file = write(drops / "jan.parquet", parquet())
    eventually(lambda: watched.reasons() == ["jan.parquet came"])
    with file.open("r+b") as opened:  # same size, same mtime: only its ctime tells
        times = file.stat()
        opened.write(b"PAR1")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    eventually(lambda: watched.reasons()[1:] and watched.reasons()[-1] == "jan.parquet changed")


def test_unfinished_and_hidden_names_are_not_requested(watched, drops):
    for name in ("a.parquet.tmp", "b.part", "_c.parquet", ".d.parquet", "e.csv"):
        (drops / name).write_bytes(parquet())
    write(drops / "good.parquet", parquet())
    eventually(lambda: watched.reasons() == ["good.parquet came"])


def test_a_name_that_is_not_utf8_does_not_end_the_watch(watched, drops):
    (Path(os.fsdecode(os.fsencode(drops) + b"/bad\xff.parquet"))).write_bytes(parquet())
    write(drops / "good.parquet", parquet())
    eventually(lambda: "good.parquet came" in watched.reasons())


def test_files_that_events_tell_of_are_named_and_what_a_scan_must_find_is_about_all(watched, drops):
    file = write(drops / "deep/jan.parquet", parquet())
    eventually(lambda: "deep/jan.parquet came" in watched.reasons())
    write(file, parquet(5))
    eventually(lambda: "deep/jan.parquet changed" in watched.reasons())
    assert watched.named["deep/jan.parquet changed"] == {"deep/jan.parquet"}
    assert watched.named["start"] is None
    shutil.rmtree(drops)
    eventually(lambda: any(reason.endswith("missing") for reason in watched.reasons()))
    [missing] = {reason for reason in watched.reasons() if reason.endswith("missing")}
    assert watched.named[missing] is None


def test_a_feature_that_reads_a_source_as_a_table_is_told_of_no_file_by_name(drops):
    sources = {
        "spend": Source.of("drops/", drops.parent, tables={"users": ["users/"]}),
        "users": Source.of("users/", drops.parent),
    }
    requests: list[Mapping[str, PendingRequest]] = []
    watcher = Watcher(sources, requests.append)
    for folder in ("drops", "users"):
        (drops.parent / folder).mkdir()
    watcher._tick(scan=True)
    watcher._heard([str(write(drops.parent / "users/a.parquet", parquet()))])
    watcher._hand_on_heard()
    told = {feature: pending.paths for feature, pending in requests[-1].items()}
    assert told == {"spend": None, "users": {"a.parquet"}}
