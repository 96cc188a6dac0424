"""A refresh that is told which files changed looks at these alone, and means the same as one that looks at all."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge.build import looking
from mlforge.build.result import BuildResult, Options
from mlforge.errors import SourceError
from mlforge.metrics import Rolling
from mlforge.sources import source as module_of_sources
from mlforge.sources import source_reading
from mlforge.store import LocalStore, Store
from tests.support.contents import as_parquet
from tests.support.projects import Project, rows

JUNK = b"PAR1 this is no parquet"


@pytest.fixture(autouse=True)
def usual_many(monkeypatch: pytest.MonkeyPatch) -> int:
    """How many files are many; in these tests few are."""
    usual = looking.MANY_FILES
    monkeypatch.setattr(looking, "MANY_FILES", 0)
    return usual


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A feature of three files, built as if they had lain there for long."""
    project = Project(tmp_path / "p")
    for day in range(3):
        project.drop(f"d{day}", rows((day, day, 1.0)))
    build_settled(project, monkeypatch)
    return project


def build_settled(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(source_reading, "SETTLED_NS", -(10**18))
        project.build()


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The places that were walked over."""
    walked: list[str] = []

    class Noting(module_of_sources.Walk):
        def run(self) -> module_of_sources.Walk:
            walked.append(self.place.text)
            return super().run()

    monkeypatch.setattr(module_of_sources, "Walk", Noting)
    return walked


def test_a_source_of_a_hundred_files_is_not_walked_over_for_one_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usual_many: int, scans: list[str]
) -> None:
    monkeypatch.setattr(looking, "MANY_FILES", usual_many)
    project = Project(tmp_path / "many")
    for number in range(100):
        project.drop(f"d{number:03d}", rows((number, 0, 1.0)))
    build_settled(project, monkeypatch)
    scans.clear()
    project.drop("new", rows((1, 1, 2.0)))
    assert told(project, "new.parquet").changed
    assert scans == []


def told(project: Project, *paths: str, **options: object) -> BuildResult:
    """A refresh that is told that these files alone can have changed."""
    chosen = replace(Options(), paths=frozenset(paths), **options)
    return project.definitions().refresh("spend", options=chosen)


def stored(store: Store) -> tuple[object, ...]:
    """What a store holds of the feature: rows, files set aside, states of files."""
    latest = store.latest("spend")
    assert latest is not None
    states = store.file_states("spend").items()
    quarantine = sorted(store.books("spend").quarantine)
    return latest.rows_hash, quarantine, {path: (s.hash, s.good) for path, s in states}


def test_named_files_are_all_that_is_looked_at(project: Project, scans: list[str]) -> None:
    project.drop("a", rows((7, 3, 2.0)))
    project.drop("untold", rows((8, 3, 2.0)))
    assert told(project, "a.parquet").rows_changed == 1
    assert scans == []
    assert project.definitions().refresh("spend").rows_changed == 1, "whoever looks at all finds it"


@pytest.mark.parametrize("seed", range(6))
def test_any_changes_that_are_named_give_what_a_look_at_all_gives(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    project = Project(tmp_path / "p")
    for day in range(4):
        project.drop(f"deep/d{day}", rows((day, day, 1.0)))
    project.build()
    for turn in range(6):
        named = {
            name for _ in range(chance.randint(1, 3)) for name in changed(project, chance, turn)
        }
        assert told(project, *named).has_looked
        assert stored(project.store) == stored(project.rebuilt(tmp_path / f"whole{turn}")), named


def changed(project: Project, chance: random.Random, turn: int) -> list[str]:
    """Change some file; its paths."""
    files = sorted(project.events.rglob("*.parquet"))
    path = chance.choice(files)
    more = rows((chance.randint(0, 5), turn + 5, float(turn)))
    new = project.events / f"deep/n{turn}-{chance.randint(0, 99)}.parquet"
    what = chance.choice(["came", "changed", "written over", "went", "renamed", "damaged"])
    if what == "came":
        new.write_bytes(as_parquet(more))
    elif what in ("changed", "written over"):
        with path.open("r+b" if what == "written over" else "wb") as file:
            file.write(as_parquet(more))
            file.truncate()
    elif what == "went" and len(files) > 2:
        path.unlink()
    elif what == "renamed":
        path.rename(new)
    elif what == "damaged":
        new.write_bytes(JUNK)
    return [str(each.relative_to(project.events)) for each in (path, new)]


def test_a_file_that_was_written_a_moment_before_it_was_read_is_looked_at_again(
    project: Project, scans: list[str]
) -> None:
    path = project.drop("a", rows((7, 3, 2.0)))
    told(project, "a.parquet")
    before, content = path.stat(), as_parquet(rows((7, 3, 4.0)))
    assert before.st_size == len(content)
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert told(project, "other.parquet").rows_changed == 2
    assert scans == []


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "of which no state is known"])
def test_files_that_are_set_aside_are_looked_at_again(
    project: Project, scans: list[str], is_known: bool
) -> None:
    path = project.drop("a", rows((7, 3, 2.0)))
    good = path.read_bytes()
    path.write_bytes(JUNK)
    assert [bad.path for bad in told(project, "a.parquet").quarantined] == ["a.parquet"]
    if not is_known:  # as of one that could not even be opened
        lose_a_state(project, "a.parquet")
    path.write_bytes(good)
    result = told(project, "other.parquet")
    assert (result.rows_changed, result.quarantined) == (1, ())
    assert scans == []


Break = Callable[[Project], object]


def lose_states(project: Project) -> None:
    (project.store.path / "spend" / "_sources.json").unlink()


def lose_a_state(project: Project, of: str = "d1.parquet") -> None:
    path = project.store.path / "spend" / "_sources.json"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if of not in line))


def link_a_file(project: Project) -> None:
    aside = project.events.parent / "aside.parquet"
    aside.write_bytes(as_parquet(rows((9, 9, 9.0))))
    (project.events / "a.parquet").symlink_to(aside)


def link_a_folder(project: Project) -> None:
    (project.events / "a.parquet").mkdir()


@pytest.mark.parametrize("broken", [lose_states, lose_a_state, link_a_file, link_a_folder])
def test_what_only_a_look_at_all_can_tell_is_told_by_one(
    project: Project, scans: list[str], broken: Break
) -> None:
    broken(project)
    project.drop("untold", rows((8, 3, 2.0)))
    assert told(project, "a.parquet").rows_changed == 1
    assert scans


@pytest.mark.parametrize(
    "other",
    [{"metrics": [Rolling(["3d"], {"amount": ["sum"]})]}, {"source": "other"}],
    ids=["metrics", "source"],
)
def test_another_definition_looks_at_all(
    project: Project, scans: list[str], other: dict[str, Any]
) -> None:
    project.drop("untold", rows((8, 3, 2.0)))
    project.drop("../other/untold", rows((8, 3, 2.0)))
    definitions = project.definitions(project.define(**other))
    definitions.refresh("spend", options=replace(Options(), paths=frozenset({"a.parquet"})))
    assert scans
    assert 8 in project.store.read("spend")["user_id"]


def test_a_full_build_looks_at_all_whatever_it_is_told(project: Project, scans: list[str]) -> None:
    project.drop("untold", rows((8, 3, 2.0)))
    told(project, "d0.parquet", full=True)
    assert scans
    assert 8 in project.store.read("spend")["user_id"]


def test_a_file_that_came_while_the_feature_was_held_is_looked_at_again(
    project: Project, scans: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pl.read_parquet(project.drop("d0", rows((0, 0, 1.0), (0, 1, 1.0))))
    build_settled(project, monkeypatch)
    project.drop("d0", before.clear())
    project.drop("a", rows((7, 3, 2.0)))
    held = replace(Options(), attended=False, hold_above=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(source_reading, "SETTLED_NS", -(10**18))
        assert project.definitions().refresh("spend", options=held).reason == "held"
    scans.clear()
    project.drop("d0", before)
    assert told(project, "d0.parquet").rows_changed == 1
    assert scans == []
    assert 7 in project.store.read("spend")["user_id"]


def test_a_root_that_is_gone_changes_nothing(project: Project) -> None:
    project.events.rename(project.events.with_name("aside"))
    result = told(project, "d1.parquet")
    assert (result.reason, result.has_looked) == ("source_missing", False)


def test_a_log_beside_a_named_file_is_refused(project: Project) -> None:
    project.drop("a", rows((7, 3, 2.0)))
    (project.events / "_delta_log").mkdir()
    with pytest.raises(SourceError, match="Delta format"):
        told(project, "a.parquet")


def test_a_file_of_a_store_that_was_moved_into_the_source_is_refused(project: Project) -> None:
    project.drop("a", rows((7, 3, 2.0)))
    LocalStore(project.events / "moved").establish()
    project.drop("moved/spend/1.0.0/data", rows((8, 3, 2.0)))
    with pytest.raises(SourceError, match="moved is a store of mlforge"):
        told(project, "moved/spend/1.0.0/data.parquet")


def test_a_file_that_is_being_written_leaves_the_look_unsure(project: Project) -> None:
    path = project.drop("a", rows((7, 3, 2.0)))
    with path.open("ab"):
        assert not told(project, "a.parquet").has_looked
    assert told(project, "a.parquet").has_looked


@pytest.mark.parametrize("gone", ["*.parquet", "deep/*.parquet"])
def test_files_that_have_not_gone_alone_are_looked_for_all_at_once_and_held(
    project: Project, scans: list[str], monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    if "/" in gone:
        for day in range(5):
            project.drop(f"deep/d{day}", rows((day, day, 1.0)))
        build_settled(project, monkeypatch)
        scans.clear()
    for path in project.events.glob(gone):
        path.unlink()
    if "/" in gone:
        (project.events / "deep").rmdir()
    result = told(project, gone.replace("*", "d1"), attended=False)
    assert scans
    assert "files are gone" in str(result.held)
