"""A folder is listed again where it may have changed, and only there."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mlforge.store.local import looked_up
from mlforge.store.local.folder_memo import FolderMemo
from mlforge.store.local.loose_files import LooseFiles
from mlforge.store.local.version_folders import VersionFolders

NOW_NS = 1_800_000_000_123_456_789
SECOND_NS = 1_000_000_000


@pytest.fixture
def listings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[FolderMemo[int], list[int]]:
    """A memo whose listings are their own number, at a time that stands still."""
    monkeypatch.setattr(time, "time_ns", lambda: NOW_NS)
    made: list[int] = []

    def listed() -> int:
        made.append(len(made))
        return made[-1]

    return FolderMemo(tmp_path, listed), made


@pytest.mark.parametrize(
    ("changed_ns", "count"),
    [
        (NOW_NS - SECOND_NS, 1),
        # A change of just now may have been followed by one that shows in no time.
        (NOW_NS - 49_000_000, 2),
        (NOW_NS + SECOND_NS, 2),
        (NOW_NS // SECOND_NS * SECOND_NS - SECOND_NS, 2),  # a clock of whole seconds
        (NOW_NS // SECOND_NS * SECOND_NS - 2 * SECOND_NS, 1),
    ],
)
def test_a_folder_that_has_rested_is_listed_once(
    listings: tuple[FolderMemo[int], list[int]], tmp_path: Path, changed_ns: int, count: int
) -> None:
    memo, made = listings
    os.utime(tmp_path, ns=(changed_ns, changed_ns))
    assert [memo.look(), memo.look()] == [0, count - 1]
    assert len(made) == count


def test_a_folder_that_changes_is_replaced_or_goes_is_listed_again(
    listings: tuple[FolderMemo[int], list[int]], tmp_path: Path
) -> None:
    memo, _ = listings
    old = NOW_NS - 10 * SECOND_NS
    os.utime(tmp_path, ns=(old, old))
    assert memo.look() == memo.look() == 0
    os.utime(tmp_path, ns=(old, old + 1))
    assert memo.look() == memo.look() == 1
    memo.forget()
    assert memo.look() == memo.look() == 2
    tmp_path.rename(tmp_path.with_name("elsewhere"))
    assert [memo.look(), memo.look()] == [3, 4]


def test_a_folder_that_its_reader_has_changed_is_not_listed_until_somebody_changes_it_again(
    tmp_path: Path,
) -> None:
    listings: list[list[str]] = []

    def listed() -> list[str]:
        listings.append(sorted(path.name for path in tmp_path.iterdir()))
        return listings[-1]

    memo, names = FolderMemo(tmp_path, listed), list[str]()
    for number in range(30):  # many a change within one tick of the clock
        names.append(f"{number:02d}")
        (tmp_path / names[-1]).touch()
        memo.keep([*names])
        assert memo.look() == memo.look() == names
        assert len(listings) == number
        (tmp_path / "other").touch()
        (tmp_path / "other").unlink()
        assert memo.look() == names
        assert len(listings) == number + 1


@pytest.mark.parametrize("tick_ns", [0, 100, 1_000_000, SECOND_NS], ids="a tick of {} ns".format)
def test_a_folder_that_cannot_have_a_time_of_its_own_is_listed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tick_ns: int
) -> None:
    def utime(path: Path, ns: tuple[int, int]) -> None:
        if not tick_ns:
            raise PermissionError
        real(path, ns=(ns[0] // tick_ns * tick_ns, ns[1] // tick_ns * tick_ns))

    real = os.utime
    monkeypatch.setattr(os, "utime", utime)
    monkeypatch.setattr(time, "time_ns", lambda: NOW_NS)
    memo = FolderMemo(tmp_path, lambda: "listed")
    memo.keep("known")
    assert memo.look() == "listed"


def test_versions_are_in_order_whichever_come_and_go(tmp_path: Path) -> None:
    def make(text: str) -> None:
        (tmp_path / text).mkdir()
        (tmp_path / text / ".meta.json").write_text("{}")

    folders, there = VersionFolders(tmp_path), set[str]()
    for step in (
        "1.0.9",
        "1.0.10",
        "2.0.0",
        "1.1.0",
        "-1.0.10",
        "2.0.1",
        "1.0.10",
        "-2.0.1",
        "0.1.0",
    ):
        if step[0] == "-":
            (tmp_path / step[1:]).rename(tmp_path / f".gone-{step[1:]}")
            there.remove(step[1:])
        else:
            make(step)
            there.add(step)
        versions = [str(version) for version in folders.look().versions]
        assert versions == sorted(there, key=lambda text: [*map(int, text.split("."))])


@pytest.mark.parametrize("few", [0, 1, 128])
def test_loose_partials_are_told_from_links_and_from_what_a_killed_writer_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    def told() -> dict[str, bool | None]:
        """What one look says of names, each asked for alone."""
        look = files.look()
        return {name: look.link(name) for name in ("a", "b", "c", ".b", "no hash", "../a")}

    monkeypatch.setattr(looked_up, "_FEW", few)
    files, others = LooseFiles(tmp_path), dict.fromkeys(("c", ".b", "no hash", "../a"))
    for name in ("a.parquet", "b.parquet", ".b.tmp", "no hash.parquet", "a.json"):
        (tmp_path / name).touch()
    for _ in range(2):
        assert dict(files.look().all) == {"a": False, "b": False}
        assert told() == {"a": False, "b": False, **others}
        assert files.listed().hidden == (tmp_path / ".b.tmp",)
    (tmp_path / "a.parquet").unlink()
    (tmp_path / "a.parquet").symlink_to("b.parquet")
    assert dict(files.look().all) == {"a": True, "b": False}
    assert told() == {"a": True, "b": False, **others}
