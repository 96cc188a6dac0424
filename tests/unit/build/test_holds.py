"""An unattended refresh never empties what is served: it holds the feature, and says why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mlforge.build.refresh import BuildResult, Options
from mlforge.errors import MlforgeError
from mlforge.maintenance.operations import rollback
from tests.support.projects import Project, rows


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Four files, ten rows each, built."""
    made = Project(tmp_path / "project")
    for number in range(4):
        made.drop(f"f{number}", rows(*((number, day, 1.0) for day in range(10))))
    assert unattended(made).version == "1.0.0"
    return made


def unattended(project: Project) -> BuildResult:
    return project.definitions().refresh("spend", attended=False)


def attended(project: Project) -> BuildResult:
    return project.definitions().refresh("spend")


def remove(project: Project, *numbers: int) -> None:
    for number in numbers:
        (project.events / f"f{number}.parquet").unlink()


def is_served_as_before(project: Project) -> None:
    assert project.store.list_versions("spend") == ["1.0.0"]
    assert project.store.read("spend").height == 40


def test_half_of_the_files_may_go(project: Project) -> None:
    remove(project, 0, 1)
    result = unattended(project)
    assert (result.version, result.rows) == ("1.0.1", 20)
    assert project.store.books("spend").hold is None


def test_more_than_half_of_the_files_gone_is_held(project: Project) -> None:
    remove(project, 0, 1, 2)
    result = unattended(project)
    assert (result.version, result.changed) == ("1.0.0", False)
    assert (result.reason, result.held) == ("held", project.store.books("spend").hold)
    assert "3 of 4 files are gone" in str(result.held)
    assert "mlforge approve spend" in str(result.held)
    is_served_as_before(project)


def test_more_than_half_of_the_rows_gone_is_held_though_every_file_is_there(
    project: Project,
) -> None:
    for number in range(3):
        project.drop(f"f{number}", rows((number, 0, 1.0)))
    assert "27 of 40 events are gone" in str(unattended(project).held)
    is_served_as_before(project)


def test_an_emptied_root_is_held(project: Project) -> None:
    remove(project, 0, 1, 2, 3)
    assert "4 of 4 files are gone" in str(unattended(project).held)
    is_served_as_before(project)


def test_files_without_rows_in_place_of_all_others_are_held(project: Project) -> None:
    for number in range(4):
        project.drop(f"f{number}", rows())
    assert "40 of 40 events are gone" in str(unattended(project).held)
    is_served_as_before(project)


@pytest.mark.parametrize("build", [unattended, attended])
def test_a_missing_root_changes_nothing_whoever_asks(
    project: Project, build: object, tmp_path: Path
) -> None:
    assert callable(build)
    books = project.store.books("spend")
    project.events.rename(tmp_path / "unmounted")
    result = build(project)
    assert (result.version, result.changed, result.reason) == ("1.0.0", False, "source_missing")
    assert str(project.events) in result.warnings[0]
    assert project.store.books("spend") == books
    is_served_as_before(project)
    (tmp_path / "unmounted").rename(project.events)
    assert build(project).reason == "unchanged"


def test_a_source_that_was_never_there_is_waited_for(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    project.events.rmdir()
    for build in (unattended, attended):
        result = build(project)
        assert (result.version, result.reason) == (None, "waiting")


def test_quarantined_files_that_keep_their_last_good_content_are_not_lost(
    project: Project,
) -> None:
    for number in range(3):
        (project.events / f"f{number}.parquet").write_bytes(b"PAR1 not whole PAR1")
    result = unattended(project)
    assert len(result.quarantined) == 3
    assert project.store.books("spend").hold is None
    is_served_as_before(project)


def test_a_held_feature_stays_held_when_the_source_changes_or_comes_back(
    project: Project,
) -> None:
    remove(project, 0, 1, 2)
    held = unattended(project).held
    project.drop("new", rows((9, 0, 1.0)))
    assert unattended(project).held == held
    for number in range(3):
        project.drop(f"f{number}", rows(*((number, day, 1.0) for day in range(10))))
    assert unattended(project).held == held
    is_served_as_before(project)


def test_an_attended_build_goes_on_and_lifts_the_hold(project: Project) -> None:
    remove(project, 0, 1, 2)
    unattended(project)
    result = attended(project)
    assert (result.version, result.rows) == ("1.0.1", 10)
    assert project.store.books("spend").hold is None
    project.drop("new", rows((9, 0, 1.0)))
    assert unattended(project).version == "1.0.2"


def test_an_attended_build_that_finds_all_as_it_was_lifts_the_hold_too(project: Project) -> None:
    remove(project, 0, 1, 2)
    unattended(project)
    for number in range(3):
        project.drop(f"f{number}", rows(*((number, day, 1.0) for day in range(10))))
    assert attended(project).reason == "unchanged"
    assert project.store.books("spend").hold is None
    is_served_as_before(project)


def test_an_attended_build_is_never_held(project: Project) -> None:
    remove(project, 0, 1, 2)
    assert attended(project).version == "1.0.1"
    assert project.store.books("spend").hold is None


def test_how_much_may_go_can_be_set(project: Project) -> None:
    strict = Options(attended=False, hold_above=0.1)
    remove(project, 0)
    result = project.definitions().refresh("spend", options=strict)
    assert "1 of 4 files are gone" in str(result.held)
    project.store.write_books("spend", replace(project.store.books("spend"), hold=None))
    lax = replace(strict, hold_above=0.9)
    remove(project, 1, 2)
    assert project.definitions().refresh("spend", options=lax).version == "1.0.1"


def test_an_approval_is_the_hold_taken_from_the_books(project: Project) -> None:
    """The next unattended refresh looks at the source again: what is still gone is held again."""
    remove(project, 0, 1, 2)
    unattended(project)
    project.store.write_books("spend", replace(project.store.books("spend"), hold=None))
    assert "3 of 4 files are gone" in str(unattended(project).held)


def test_the_books_keep_what_else_they_knew_of_a_held_feature(project: Project) -> None:
    (project.events / "notes.csv").write_text("x")
    remove(project, 0, 1, 2)
    unattended(project)
    books = project.store.books("spend")
    assert books.hold
    assert "notes.csv" in books.ignored


def test_a_rolled_back_feature_is_held_until_somebody_builds(project: Project) -> None:
    project.drop("more", rows((7, 0, 1.0)))
    assert unattended(project).version == "1.0.1"
    rollback(project.store, "spend")
    project.drop("again", rows((8, 0, 1.0)))
    result = unattended(project)
    assert (result.version, result.changed) == ("1.0.0", False)
    assert "rolled back from 1.0.1 to 1.0.0" in str(result.held)
    assert attended(project).version == "1.0.2"
    project.drop("later", rows((8, 1, 1.0)))
    assert unattended(project).version == "1.0.3"


def test_a_rollback_to_what_the_source_says_survives_an_attended_build(project: Project) -> None:
    """What was rolled back from is not served again because the hold is gone."""
    path = project.drop("wrong", rows((7, 0, 1.0)))
    unattended(project)
    path.unlink()
    rollback(project.store, "spend")
    assert attended(project).reason == "unchanged"
    assert unattended(project).version == "1.0.0"
    assert project.store.read("spend").height == 40


def test_an_attended_build_that_fails_leaves_the_last_version_served(project: Project) -> None:
    for number in range(4):
        rows((number, 0, 1.0)).drop("amount").write_parquet(project.events / f"f{number}.parquet")
        (project.events / f"f{number}.parquet").rename(project.events / f"bad{number}.parquet")
    with pytest.raises(MlforgeError, match="asks for a column that is not there"):
        attended(project)
    is_served_as_before(project)
