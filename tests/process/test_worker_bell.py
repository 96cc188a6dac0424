"""The bell tells of files in the folders that it knows, at once; what it does not know is left to the watch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.workers import eventually
from worker.watch import bell as bells
from worker.watch.bell import Bell


class Heard(list[str]):
    """The names of files that the bell told of, in order; and how many of them had been told each time that no more came."""

    def __init__(self) -> None:
        super().__init__()
        self.gathered: list[int] = []

    def __call__(self, files: list[str]) -> None:
        self.extend(Path(file).name for file in files)

    def gather(self) -> None:
        self.gathered.append(len(self))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "drops"
    folder.mkdir()
    return folder


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def bell(heard: Heard, folder: Path) -> Iterator[Bell]:
    """A running bell that knows the folder."""
    bell = Bell(heard, heard.gather)
    with bell.running():
        if not bell.is_there:
            pytest.skip("this system has no inotify")
        bell.follow([str(folder)])
        yield bell


def test_files_that_are_closed_renamed_and_removed_are_told(bell, folder, heard):
    (folder / "a.parquet").write_bytes(b"1")
    eventually(lambda: heard == ["a.parquet"])
    (folder / "a.parquet").rename(folder / "b.parquet")
    eventually(lambda: heard[1:] == ["a.parquet", "b.parquet"])
    (folder / "b.parquet").unlink()
    eventually(lambda: heard[3:] == ["b.parquet"])


def test_a_file_that_is_being_written_and_a_folder_are_not_told(bell, folder, heard):
    (folder / "deep").mkdir()
    with (folder / "open.parquet").open("wb") as file:
        file.write(b"1")
        file.flush()
        (folder / "other.parquet").write_bytes(b"1")
        eventually(lambda: heard == ["other.parquet"])
    eventually(lambda: heard == ["other.parquet", "open.parquet"])


def test_a_folder_that_is_made_in_a_known_one_is_known_and_so_are_those_in_it(bell, folder, heard):
    (folder / "day").mkdir()
    eventually(lambda: f"{folder}/day" in bell._known)
    (folder / "day/a.parquet").write_bytes(b"1")
    eventually(lambda: heard == ["a.parquet"])
    full = folder.parent / "full"
    (full / "deep").mkdir(parents=True)
    (full / "deep/b.parquet").write_bytes(b"1")
    full.rename(folder / "full")
    eventually(lambda: heard == ["a.parquet", "b.parquet"])
    (folder / "full/deep/b.parquet").unlink()
    eventually(lambda: heard == ["a.parquet", "b.parquet", "b.parquet"])


def test_a_folder_that_is_made_anew_is_known_again_once_it_is_followed(bell, folder, heard):
    folder.rmdir()
    folder.mkdir()

    def followed() -> bool:
        bell.follow([str(folder)])
        (folder / "a.parquet").write_bytes(b"1")
        return "a.parquet" in heard

    eventually(followed)


def test_a_renamed_folder_is_told_by_its_new_name_once_that_is_followed(bell, folder, heard):
    moved = folder.rename(folder.parent / "moved")
    paths: list[str] = []
    bell._heard = paths.extend

    def followed() -> bool:
        bell.follow([str(moved)])
        (moved / "a.parquet").write_bytes(b"1")
        return str(moved / "a.parquet") in paths

    eventually(followed)


def test_more_files_at_once_than_it_tells_are_left_to_the_watch(bell, folder, heard, monkeypatch):
    monkeypatch.setattr(bells, "MOST_FILES", 2)
    with bell._lock:  # so that all of them wait together
        for name in "abc":
            (folder / f"{name}.parquet").write_bytes(b"1")

    def told_again() -> bool:
        (folder / "z.parquet").write_bytes(b"1")
        return bool(heard)

    eventually(told_again)
    assert {*heard} == {"z.parquet"}


def test_files_that_come_while_one_is_looked_at_are_gathered_with_it(bell, folder, heard):
    def look(files: list[str]) -> None:
        heard(files)
        if heard == ["a.parquet"]:
            (folder / "b.parquet").write_bytes(b"1")

    bell._heard = look
    (folder / "a.parquet").write_bytes(b"1")
    eventually(lambda: heard.gathered)
    assert (heard, heard.gathered) == (["a.parquet", "b.parquet"], [2])


def test_no_more_folders_are_known_than_it_may(bell, folder, heard, monkeypatch):
    monkeypatch.setattr(bells, "MOST_FOLDERS", 1)
    other = folder.parent / "other"
    other.mkdir()
    bell.follow([str(other)])
    (other / "a.parquet").write_bytes(b"1")
    (folder / "b.parquet").write_bytes(b"1")
    eventually(lambda: heard == ["b.parquet"])


def test_without_inotify_it_never_rings(heard, folder, monkeypatch):
    monkeypatch.setattr(bells, "_libc", lambda: None)
    bell = Bell(heard, heard.gather)
    with bell.running():
        assert not bell.is_there
        bell.follow([str(folder)])
    assert heard == []
