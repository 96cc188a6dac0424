"""A refresh goes on while the events of its files are written and synced; nothing names them before that is done."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge.core import failpoints
from mlforge.errors import StoreError
from mlforge.maintenance.operations import verify
from mlforge.store.local import sealed_file
from tests.support.projects import Project, rows

PATIENCE_S = 20


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A feature with a version."""
    project = Project(tmp_path / "p")
    for day in range(5):
        project.drop(f"d{day}", rows((1, day, 1.0), (2, day + 0.5, 2.0)))
    project.build()
    return project


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], Any]], None]:
    """Has something done whenever a place is reached."""
    return lambda place, action: monkeypatch.setitem(failpoints._armed, place, action)


def test_events_are_compared_and_rows_written_before_their_file_is_there(
    project: Project, arm: Callable[[str, Callable[[], Any]], None]
) -> None:
    partials = project.store.path / "spend" / "_partials"
    are_rows_written, steps = threading.Event(), list[tuple[str, int]]()
    in_time: list[bool] = []

    def wait() -> None:
        if threading.current_thread() is not threading.main_thread():
            in_time.append(are_rows_written.wait(PATIENCE_S))

    def note(step: str) -> None:
        steps.append((step, len([*partials.glob("[!.]*")])))

    before = len([*partials.glob("[!.]*")])
    arm("file.synced", wait)
    arm("parts.placed", lambda: (note("rows"), are_rows_written.set()))
    arm("publish.staged", lambda: note("staged"))
    project.drop("late", rows((1, 2.25, 5.0), (3, 4.75, 7.0)))
    result = project.build()
    assert in_time == [True]
    assert steps == [("rows", before), ("staged", before + 1)]
    assert result.mode == "incremental"
    assert verify(project.store, ["spend"]) == []
    other = Project(project.root.parent / "other")
    for file in project.events.iterdir():
        (other.events / file.name).write_bytes(file.read_bytes())
    other.build()
    assert project.store.read("spend").equals(other.store.read("spend"))


@pytest.mark.parametrize("is_published", [True, False], ids=["new rows", "no new rows"])
def test_a_file_that_cannot_be_written_fails_the_refresh_and_is_written_by_the_next(
    project: Project, monkeypatch: pytest.MonkeyPatch, is_published: bool
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if is_published:
        project.drop("d9", rows((1, 9.0, 1.0)))
    else:  # the same rows in one file as were in two
        frames = [pl.read_parquet(project.events / f"d{day}.parquet") for day in (0, 1)]
        for day in (0, 1):
            (project.events / f"d{day}.parquet").unlink()
        project.drop("d01", pl.concat(frames))
    monkeypatch.setattr(sealed_file, "_checksum_of", refuse)
    with pytest.raises(StoreError, match="the disk is full"):
        project.definitions().refresh("spend")
    assert str(project.store.pointer("spend").version) == "1.0.0"
    monkeypatch.undo()
    assert project.build().changed is is_published
    assert verify(project.store, ["spend"]) == []


def test_a_file_that_cannot_be_written_does_not_hide_why_a_refresh_failed(
    project: Project, monkeypatch: pytest.MonkeyPatch, arm: Callable[[str, Callable[[], Any]], None]
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def fail() -> None:
        raise StoreError("something else")

    monkeypatch.setattr(sealed_file, "_checksum_of", refuse)
    arm("parts.placed", fail)
    project.drop("d9", rows((1, 9.0, 1.0)))
    with pytest.raises(StoreError, match="something else"):
        project.definitions().refresh("spend")
    monkeypatch.undo()
    assert str(project.build().version) == "1.0.1"


@pytest.mark.parametrize("by_a_thread", [False, True], ids=["the refresh", "a thread that reads"])
def test_whoever_does_without_a_file_that_cannot_be_written_has_no_version_name_it(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    arm: Callable[[str, Callable[[], Any]], None],
    by_a_thread: bool,
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def look() -> None:
        with suppress(StoreError):
            project.store.partials("spend")

    def look_and_go_on() -> None:
        if by_a_thread:
            reader = threading.Thread(target=look)
            reader.start()
            reader.join()
        else:
            look()

    monkeypatch.setattr(sealed_file, "_checksum_of", refuse)
    arm("parts.placed", look_and_go_on)
    project.drop("d9", rows((1, 9.0, 1.0)))
    with pytest.raises(StoreError, match="the disk is full"):
        project.definitions().refresh("spend")
    assert str(project.store.pointer("spend").version) == "1.0.0"
    monkeypatch.undo()
    assert str(project.build().version) == "1.0.1"
    assert verify(project.store, ["spend"]) == []
