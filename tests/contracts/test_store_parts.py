"""Large tables are folders of parts: ranges of time, of which a version writes only what it changes."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pytest

from mlforge.build.refresh import BuildResult, Options
from mlforge.build.rows import Layout
from mlforge.build.table import TableWriter
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.manifest import Part, Partial
from mlforge.core.schema import Column
from mlforge.core.values import TimeRange
from mlforge.engines import Events, engine_named
from mlforge.frames.digest import digest
from mlforge.frames.entity_times import EntityTimes
from mlforge.maintenance.operations import verify
from mlforge.store import Books, LocalStore, Pointer, Snapshot
from mlforge.store.changes import EventDiff
from mlforge.store.file_tasks import PartialLocation, plan_files
from mlforge.store.local.recent_parts import RecentParts
from mlforge.store.local.transaction import LocalTransaction
from tests.support.projects import Project, rows

PART_ROWS = 64
TINY = Options(layout=Layout(part_rows=PART_ROWS, chunk_rows=100), cost_share=1.0)


def refresh(project: Project) -> BuildResult:
    return project.definitions().refresh("spend", options=TINY)


def history(project: Project, users: int = 10, days: int = 60) -> None:
    """A file whose table has several parts."""
    project.drop("base", rows(*((u, float(d), 1.0) for d in range(days) for u in range(users))))


def inodes(store: LocalStore, version: str) -> dict[str, int]:
    """The inode of each part, by the hash of its content."""
    manifest = store.read_metadata("spend", version)
    folder = store.path / "spend" / version
    return {part.hash: (folder / part.file).stat().st_ino for part in manifest.parts}


def rebuilt(project: Project, root: Path) -> pl.DataFrame:
    return project.rebuilt(root / "rebuilt").read("spend")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


def test_a_small_table_is_one_file_and_a_large_one_a_folder(project: Project) -> None:
    project.drop("a", rows((1, 0, 1.0)))
    assert refresh(project).path.is_file()
    history(project)
    path = refresh(project).path
    manifest = project.store.read_metadata("spend")
    assert path.is_dir()
    assert sorted(p.name for p in path.iterdir()) == [p.file.split("/")[1] for p in manifest.parts]
    assert all(0 < part.rows <= PART_ROWS for part in manifest.parts)
    (project.events / "base.parquet").unlink()
    assert refresh(project).path.is_file()


def test_the_parts_of_a_folder_read_as_one_sorted_table_everywhere(project: Project) -> None:
    history(project)
    folder = refresh(project).path
    ours = project.store.read("spend")
    assert ours.equals(ours.sort("at", "user_id"))
    assert pl.read_parquet(folder).equals(ours)
    assert pl.read_parquet(folder / "*.parquet").equals(ours)
    from_pandas = pd.read_parquet(folder)
    assert from_pandas["user_id"].tolist() == ours["user_id"].to_list()
    assert from_pandas["amount__sum__7d"].tolist() == ours["amount__sum__7d"].to_list()
    with duckdb.connect() as connection:
        query = f"SELECT user_id, amount__sum__7d FROM read_parquet('{folder}/*.parquet')"
        assert connection.sql(query).fetchall() == ours.select("user_id", "amount__sum__7d").rows()


def test_a_patch_writes_the_parts_it_touches_and_links_the_others(project: Project) -> None:
    history(project)
    assert refresh(project).version == "1.0.0"
    project.drop("late", rows((3, 30.5, 9.0)))
    result = refresh(project)
    assert (result.version, result.mode) == ("1.0.1", "incremental")
    before, after = inodes(project.store, "1.0.0"), inodes(project.store, "1.0.1")
    shared = before.keys() & after.keys()
    assert {before[h] for h in shared} == {after[h] for h in shared}
    manifest = project.store.read_metadata("spend", "1.0.0")
    # Rows from the event to a week later may have changed.
    touched = [p for p in manifest.parts if p.times and p.times.end >= day(30) <= day(38)]
    assert len(before) - len(shared) <= len(touched) < len(before)
    assert {p.hash for p in manifest.parts if p.times and p.times.end < day(30)} <= shared
    assert {p.hash for p in manifest.parts if p.times and p.times.start > day(38)} <= shared


def day(number: float) -> int:
    return int(rows((1, number, None))["at"].to_physical()[0])


def test_a_version_that_changes_no_row_shares_every_part(project: Project) -> None:
    history(project)
    refresh(project)
    definitions = project.definitions(project.define(metrics=[], name="spend"))
    definitions.refresh("spend", options=TINY)
    result = definitions.refresh("spend", options=replace(TINY, version="7.0.0"))
    assert (result.version, result.mode) == ("7.0.0", "incremental")
    before = project.store.list_versions("spend")[-2]
    assert inodes(project.store, "7.0.0") == inodes(project.store, before)


def test_parts_are_copied_where_they_cannot_be_linked(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    history(project)
    refresh(project)

    def refused(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    project.drop("late", rows((3, 30.5, 9.0)))
    assert refresh(project).mode == "incremental"
    before, after = inodes(project.store, "1.0.0"), inodes(project.store, "1.0.1")
    assert before.keys() & after.keys()
    assert not set(before.values()) & set(after.values())
    assert project.store.read("spend").equals(rebuilt(project, tmp_path))
    assert verify(project.store, ["spend"]) == []


def test_parts_that_later_versions_share_outlive_the_version_that_wrote_them(
    project: Project,
) -> None:
    history(project)
    refresh(project)
    project.drop("late", rows((3, 30.5, 9.0)))
    refresh(project)
    expected = project.store.read("spend")
    with project.store.lock("spend"):
        [first, _] = project.store.versions("spend")
        project.store.remove("spend", first)
    assert project.store.read("spend").equals(expected)
    assert verify(project.store, ["spend"]) == []


@pytest.mark.parametrize("seed", range(3))
def test_any_sequence_of_drops_leaves_the_rows_of_a_full_rebuild(
    project: Project, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    history(project, users=4, days=30)
    refresh(project)
    for step in range(12):
        name = f"f{chance.randrange(4)}"
        path = project.events / f"{name}.parquet"
        if path.exists() and chance.random() < 0.3:
            path.unlink()
        else:
            # Whole days, so that many rows share an instant and parts end within one.
            when = [float(chance.randrange(40)) for _ in range(chance.choice([1, 3, 70]))]
            project.drop(name, rows(*((chance.randrange(9), day_, float(step)) for day_ in when)))
        refresh(project)
    found = project.store.read("spend")
    assert found.equals(rebuilt(project, tmp_path))
    assert pl.read_parquet(refresh(project).path).equals(found)
    parts = project.store.read_metadata("spend").parts
    assert sum(part.rows for part in parts) == found.height
    ends = [part.times.end for part in parts if part.times]
    starts = [part.times.start for part in parts if part.times]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
    assert verify(project.store, ["spend"]) == []


# Many small drops. Each is an entity of its own, so a drop's own events are all that is read for it.

SPEC = FeatureSpec("visits", ("user",), "at", None, ())
EVENTS = (Column("user", "Int64"), Column("at", "Datetime(us, UTC)"))
PATTERNS: dict[str, Callable[[int, random.Random], Sequence[int]]] = {
    "one after the other": lambda i, _: [i * 10, i * 10 + 5],
    "overlapping the last one": lambda i, _: [i * 10 - 12, i * 10],
    "before all others": lambda i, _: [-i * 10, -i * 10 + 5],
    "all at one instant": lambda i, _: [0, 0],
    "always early": lambda i, _: [i % 97, i % 97 + 1] if i > 20 else [i * 100, i * 100 + 5],
    "anywhere": lambda i, chance: [chance.randrange(10_000)] * 2,
    "sometimes many": lambda i, _: [i * 10] * (200 if i % 50 == 0 else 1),
}
# Those that come at the end of time cost the logarithm of what is there, not a part each.
APPENDING = ("one after the other", "overlapping the last one", "before all others")


NOTHING = Snapshot("spend", None, None, (), Books(), {})


def _no_publish(*_: object) -> Pointer:
    raise AssertionError("nothing is published here")


def _no_books(*_: object) -> None:
    raise AssertionError("no books are written here")


def drop_by_drop(
    folder: Path, pattern: str, drops: int
) -> tuple[tuple[Part, ...], Path, int, list[pl.DataFrame]]:
    """Write a version a drop; returns the last parts, where they lie, and how many rows were written."""
    chance, engine = random.Random(pattern), engine_named("polars")
    parts: tuple[Part, ...] = ()
    recent = RecentParts()
    lies, written, frames = folder, 0, []
    path = folder / "partial.parquet"
    for i in range(drops):
        times = PATTERNS[pattern](i, chance)
        frame = pl.DataFrame({"user": [i] * len(times), "at": sorted(times)}).cast(
            {"user": pl.Int64, "at": pl.Datetime("us", "UTC")}
        )
        frames.append(frame)
        frame.write_parquet(path)
        span = TimeRange(min(times), max(times))
        partial = Partial("p", frame.height, span, EVENTS, {}, digest(frame))
        into = folder / str(i)
        into.mkdir()
        of_feature = (lambda _: None), recent
        tx = LocalTransaction(NOTHING, into, lies, _no_publish, _no_books, *of_feature)
        writer = TableWriter(
            engine,
            Events(
                SPEC,
                EVENTS,
                (partial,),
                lambda made: plan_files(made, [PartialLocation(str(path))]),
            ),
            tx,
            Layout(part_rows=PART_ROWS),
        )
        changes = EventDiff(frame.height, 0, EntityTimes.of(frame, SPEC))
        table = writer.changed(changes, parts)
        known = {(lies / part.file).stat().st_ino for part in parts}
        fresh = [p for p in table.parts if (into / p.file).stat().st_ino not in known]
        written += sum(part.rows for part in fresh)
        parts, lies = table.parts, into
    return parts, lies, written, frames


def judge(folder: Path, pattern: str, drops: int) -> None:
    parts, lies, written, frames = drop_by_drop(folder, pattern, drops)
    expected = pl.concat(frames).sort("at", "user")
    found = pl.concat([pl.read_parquet(lies / part.file) for part in parts])
    assert found.equals(expected)
    assert max(part.rows for part in parts) <= PART_ROWS
    total = expected.height
    depth = math.log2(total)
    assert len(parts) <= 4 * total / PART_ROWS + 2 * depth
    if pattern in APPENDING:
        assert written <= total * 2 * depth
    elif pattern != "all at one instant":  # parts are ranges of time: an instant is not divided
        assert written <= drops * 3 * PART_ROWS + total * 2 * depth


def test_many_small_drops_leave_few_parts_and_are_not_written_again_and_again(
    tmp_path: Path,
) -> None:
    judge(tmp_path, "sometimes many", 100)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS)
def test_hundreds_of_small_drops_leave_few_parts_and_are_not_written_again_and_again(
    tmp_path: Path, pattern: str
) -> None:
    judge(tmp_path, pattern, 400)


def small_drops(project: Project, tmp_path: Path, drops: int) -> None:
    """Through the front door, an hour of a day's events a drop."""
    history(project, users=3, days=30)
    refresh(project)
    written = 0
    for i in range(drops):
        hour = 30 + i / 24
        project.drop(f"drop{i}", rows((i % 7, hour, 1.0), (i % 5, hour + 0.01, 2.0)))
        known = inodes(project.store, str(project.store.read_metadata("spend").version)).keys()
        assert refresh(project).mode == "incremental"
        parts = project.store.read_metadata("spend").parts
        written += sum(part.rows for part in parts if part.hash not in known)
    found = project.store.read("spend")
    assert len(parts) <= 4 * found.height / PART_ROWS + 2 * math.log2(found.height)
    assert written <= 2 * drops * 2 * math.log2(2 * drops)
    assert found.equals(rebuilt(project, tmp_path))


def test_small_drops_cost_what_they_are_through_the_front_door(
    project: Project, tmp_path: Path
) -> None:
    small_drops(project, tmp_path, 25)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_hundreds_of_small_drops_cost_what_they_are_through_the_front_door(
    project: Project, tmp_path: Path
) -> None:
    small_drops(project, tmp_path, 300)
