"""An amended file: the events that it had are read once, and tell the digest and the difference that all of its rows would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge.core.manifest import Partial
from mlforge.frames.digest import digest
from mlforge.ingest import amended, small_files
from mlforge.ingest.amended import AmendedFiles
from mlforge.maintenance.operations import verify
from mlforge.store import file_tasks
from tests.support.projects import Project, at, rows

DAYS = 40
HISTORY = rows(*((day % 7, day + 0.25, day % 5 - 2.0) for day in range(DAYS)))
AMENDMENTS: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "a value": lambda df: df.with_columns(amount=df["amount"].scatter(30, 9.0)),
    "values at both ends": lambda df: df.with_columns(amount=df["amount"].scatter([0, 39], None)),
    "the sign of a zero": lambda df: df.with_columns(amount=df["amount"].scatter(2, -0.0)),
    "a row gone": lambda df: pl.concat([df[:20], df[21:]]),
    "a row between others": lambda df: pl.concat([df[:20], rows((3, 20.0, 1.0)), df[20:]]),
    "a row twice": lambda df: pl.concat([df[:20], df[19:]]),
    "a row moved a little": lambda df: df.with_columns(at=df["at"].scatter(20, at(22.5))),
    "a row of another entity": lambda df: df.with_columns(user_id=df["user_id"].scatter(20, 77)),
    "all rows": lambda df: df.with_columns(pl.col("amount") + 1),
    "a column null": lambda df: df.with_columns(amount=pl.lit(None, pl.Float64)),
    "a key of fewer bits": lambda df: df.with_columns(pl.col("user_id").cast(pl.Int32)),
    "no row": lambda df: df.reverse(),
}
HASHED = ("all rows", "a column null", "a key of fewer bits")
"""Amendments after which all rows are hashed."""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A feature with a version of two files."""
    project = Project(tmp_path / "p")
    project.drop("large", HISTORY)
    project.drop("other", rows((1, 50, 1.0)))
    project.build()
    return project


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows were hashed at a time, of files that count as large from now on."""
    heights: list[int] = []

    def noting(frame: pl.DataFrame) -> int:
        heights.append(frame.height)
        return digest(frame)

    monkeypatch.setattr(amended, "LEAST_ROWS", 10)
    monkeypatch.setattr(small_files, "_SMALL_ROWS", 10)
    monkeypatch.setattr(amended, "digest", noting)
    return heights


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of files of events that were scanned."""
    names: set[str] = set()
    scan = pl.scan_parquet

    def noting(files: Any, **options: Any) -> Any:
        names.update(Path(file).stem for file in ([files] if isinstance(files, str) else files))
        return scan(files, **options)

    monkeypatch.setattr(file_tasks.pl, "scan_parquet", noting)
    return names


@pytest.mark.parametrize("kind", AMENDMENTS)
def test_an_amended_file_becomes_the_version_that_it_becomes_anyway(
    project: Project, hashed: list[int], read: set[str], kind: str, tmp_path: Path
) -> None:
    others = project.copied(tmp_path / "others")
    [before] = [p.hash for p in project.store.resolve("spend").partials if p.rows > 1]
    for each, least in ((project, 10), (others, 1_000)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(amended, "LEAST_ROWS", least)
            each.drop("large", AMENDMENTS[kind](HISTORY))
            read.clear()
            result = each.build()
        if each is project:
            assert before not in read
            assert (max(hashed) > 10) is (kind in HASHED)
            ours = result
    assert (ours.changed, ours.rows_changed, ours.entities) == (
        (result.changed, result.rows_changed, result.entities)
    )
    first, second = (each.store.resolve("spend") for each in (project, others))
    assert (first.content_hash, first.rows_hash) == (second.content_hash, second.rows_hash)
    assert verify(project.store, ["spend"]) == []


def test_several_files_amended_at_once_are_told_apart(
    project: Project, hashed: list[int], tmp_path: Path
) -> None:
    later = rows(*((day % 7, DAYS + day / 2, 1.0) for day in range(30)))
    for name, file in (("later", later), ("same", HISTORY)):
        project.drop(name, file)
    project.build()
    hashed.clear()
    project.drop("large", AMENDMENTS["a value"](HISTORY))
    project.drop("later", later[:29])
    project.drop("newest", rows((5, 70, 1.0)))
    (project.events / "other.parquet").unlink()
    project.build()
    assert sorted(hashed) == [0, 1, 1, 1, 1]
    fresh = project.rebuilt(tmp_path / "fresh")
    assert project.store.resolve("spend").rows_hash == fresh.resolve("spend").rows_hash
    assert project.store.read("spend").equals(fresh.read("spend"))


@pytest.mark.parametrize("fault", ["damaged", "gone"])
def test_stored_events_that_are_not_as_they_were_written_tell_nothing(
    project: Project, hashed: list[int], fault: str, tmp_path: Path
) -> None:
    [partial] = [p for p in project.store.resolve("spend").partials if p.rows > 1]
    [place] = project.store.locate("spend", [partial.hash])
    if fault == "gone":
        Path(place.file).unlink()
    else:
        content = bytearray(Path(place.file).read_bytes())
        content[200] ^= 1
        Path(place.file).write_bytes(content)
    project.drop("large", AMENDMENTS["a value"](HISTORY))
    project.build()
    assert DAYS in hashed
    fresh = project.rebuilt(tmp_path / "fresh")
    assert project.store.resolve("spend").rows_hash == fresh.resolve("spend").rows_hash


def test_events_of_many_values_are_not_held_beside_those_that_take_their_place(
    project: Project, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amended, "MOST_VALUES", 3 * DAYS - 1)
    project.drop("large", AMENDMENTS["a value"](HISTORY))
    project.build()
    assert hashed == [DAYS]


def test_events_of_many_files_are_not_all_held(
    project: Project, hashed: list[int], read: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project.drop("second", HISTORY.with_columns(pl.col("amount") + 1))
    project.build()
    stored = {p.hash for p in project.store.resolve("spend").partials if p.rows > 1}
    monkeypatch.setattr(amended, "MOST_VALUES", 5 * DAYS)
    hashed.clear()
    read.clear()
    for name, file in (("large", HISTORY), ("second", HISTORY.with_columns(pl.col("amount") + 1))):
        project.drop(name, AMENDMENTS["a value"](file))
    project.build()
    assert max(hashed) == 1
    assert len(stored & read) == 1


def test_no_events_stay_in_memory_behind_a_refresh(project: Project, hashed: list[int]) -> None:
    project.drop("large", AMENDMENTS["a value"](HISTORY))
    project.build()
    assert max(hashed) == 1
    manifest = project.store.resolve("spend")
    assert [task.kept for task in project.store.plan_files("spend", manifest.partials)] == [
        None
    ] * 2


def test_a_file_that_was_touched_alone_makes_no_version_though_its_events_were_read(
    project: Project, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    read = AmendedFiles._read

    def noting(files: AmendedFiles, partial: Partial) -> pl.DataFrame | None:
        begun.append(partial.hash)
        return read(files, partial)

    monkeypatch.setattr(AmendedFiles, "_read", noting)
    project.drop("large", HISTORY)
    assert not project.build().changed
    project.drop("large", AMENDMENTS["a value"](HISTORY))
    assert project.build().rows_changed == 2
    assert len(begun) == 2, "once for each look at a file that may have other events"
    assert max(hashed) == 1
