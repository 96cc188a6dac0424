"""An unattended refresh never empties what is served: it holds the feature, and says why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from mlforge.build.refresh import BuildResult, Options
from mlforge.errors import MlforgeError
from mlforge.maintenance.operations import rollback
from mlforge.metrics import Rolling
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


def test_a_hold_is_judged_anew_at_every_refresh_and_says_what_is_true_by_now(
    project: Project,
) -> None:
    remove(project, 0, 1, 2)
    assert "30 of 40 events would stop counting" in str(unattended(project).held)
    project.drop("new", rows((9, 0, 1.0)))
    held = str(unattended(project).held)
    assert "29 of 40 events would stop counting" in held
    assert "goes on with 11 events of 2 files" in held
    assert project.store.books("spend").hold == held
    is_served_as_before(project)


def test_a_hold_goes_by_itself_when_its_reason_has_gone(project: Project) -> None:
    remove(project, 0, 1, 2)
    assert unattended(project).reason == "held"
    for number in range(3):
        project.drop(f"f{number}", rows(*((number, day, 1.0) for day in range(10))))
    result = unattended(project)
    assert (result.reason, result.held) == ("unchanged", None)
    assert project.store.books("spend").hold is None
    is_served_as_before(project)


def test_a_hold_goes_when_enough_has_come_back_and_the_rest_is_published(project: Project) -> None:
    remove(project, 0, 1, 2)
    unattended(project)
    project.drop("f1", rows(*((1, day, 1.0) for day in range(10))))
    result = unattended(project)
    assert (result.version, result.rows, result.held) == ("1.0.1", 20, None)
    assert project.store.books("spend").hold is None


def test_a_hold_says_what_is_gone_and_what_an_approval_would_do(project: Project) -> None:
    remove(project, 0, 1, 2)
    assert unattended(project).held == (
        "3 of 4 files are gone (30 events: f0.parquet, f1.parquet, f2.parquet), so 30 of 40 events would stop "
        "counting; 'mlforge approve spend' or a build goes on with 10 events of 1 file"
    )
    assert attended(project).rows == 10


@pytest.mark.parametrize("files", [1, 2, 4, 9])
def test_a_restatement_under_other_names_with_as_many_rows_loses_nothing(
    project: Project, files: int
) -> None:
    """As Spark's overwrite leaves a folder: every file under a new name, every row with other values."""
    remove(project, 0, 1, 2, 3)
    restated = [(user, day, 2.0) for user in range(4) for day in range(10)]
    for number in range(files):
        project.drop(f"part-{number:05d}-c000", rows(*restated[number::files]))
    result = unattended(project)
    assert (result.version, result.held, result.rows) == ("1.0.1", None, 40)
    assert project.store.books("spend").hold is None


def test_a_restatement_with_fewer_rows_is_judged_by_the_rows_that_lack(project: Project) -> None:
    remove(project, 0, 1, 2, 3)
    project.drop("part-00000", rows(*((user, 0, 2.0) for user in range(12))))
    held = str(unattended(project).held)
    assert "4 of 4 files are gone (40 events: f0.parquet, f1.parquet, f2.parquet, ...)" in held
    assert "28 of 40 events would stop counting" in held
    project.drop("part-00001", rows(*((user, 1, 2.0) for user in range(12))))
    assert unattended(project).rows == 24


def test_files_of_few_rows_may_go_however_many_they_are(project: Project) -> None:
    for number in range(20):
        project.drop(f"small{number}", rows((number, 20, 1.0)))
    unattended(project)
    for number in range(20):
        (project.events / f"small{number}.parquet").unlink()
    assert unattended(project).rows == 40


def test_a_moved_file_is_no_loss(project: Project) -> None:
    for number in range(4):
        (project.events / f"f{number}.parquet").rename(project.events / f"g{number}.parquet")
    assert (unattended(project).reason, project.store.books("spend").hold) == ("unchanged", None)


def test_rows_that_are_set_aside_by_a_flip_of_dtypes_are_held_whatever_may_go(
    project: Project,
) -> None:
    """More files bring text than numbers: what counts now would be set aside."""
    plain = project.define(metrics=[])
    lax = Options(attended=False, hold_above=1.0)
    refresh = project.definitions(plain).refresh
    assert refresh("spend").bump == "major"
    before = project.store.read("spend")
    for number in range(5):
        text = rows((number, 30, 2.0)).with_columns(pl.lit("two").alias("amount"))
        text.write_parquet(project.events / f"text{number}.parquet")
    result = refresh("spend", options=lax)
    assert result.reason == "held"
    assert "4 of 4 files are set aside (40 events: f0.parquet" in str(result.held)
    assert "most files have another dtype by now: " in str(result.held)
    assert "40 of 40 events would stop counting" in str(result.held)
    assert "goes on with 5 events of 5 files" in str(result.held)
    assert project.store.read("spend").equals(before)
    (project.events / "text0.parquet").unlink()
    (project.events / "text1.parquet").unlink()
    assert refresh("spend", options=lax).held is None
    assert project.store.books("spend").hold is None


def test_books_of_a_release_that_told_no_kinds_apart_still_hold_a_rollback(
    project: Project,
) -> None:
    project.drop("more", rows((7, 0, 1.0)))
    unattended(project)
    rollback(project.store, "spend")
    path = project.store.path / "spend" / "_books.json"
    document = json.loads(path.read_text())
    del document["by_person"]
    path.write_text(json.dumps(document))
    assert unattended(project).reason == "held"
    document["hold"] = (
        "3 of 4 files are gone; 'mlforge approve spend' or a build goes on without them"
    )
    path.write_text(json.dumps(document))
    assert unattended(project).version == "1.0.2"


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
    result = project.definitions(hold_above=0.1).refresh("spend", attended=False)
    assert "1 of 4 files are gone" in str(result.held)
    assert project.definitions().refresh("spend", options=strict).held == result.held
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


def test_a_change_that_was_rolled_back_from_counts_once(project: Project) -> None:
    """It is published again as a PATCH of the MAJOR that it was, whatever came in meanwhile."""
    fewer = project.define(metrics=[Rolling(["7d"], {"amount": ["sum"]})])
    definitions = project.definitions(fewer)
    assert definitions.refresh("spend").version == "2.0.0"
    rollback(project.store, "spend")
    assert definitions.refresh("spend", attended=False).reason == "held"
    again = definitions.refresh("spend")
    assert (again.version, again.bump, again.reason) == ("2.0.1", "patch", "rolled_forward")
    assert "2.0.0" in again.details[0]
    assert project.store.read("spend").equals(project.store.read("spend", "2.0.0"))
    rollback(project.store, "spend", "1.0.0")
    project.drop("more", rows((7, 0, 1.0)))
    late = definitions.refresh("spend")
    assert (late.version, late.bump, late.reason) == ("2.0.2", "patch", "data_refresh")
    assert str(project.store.read_metadata("spend").parent) == "1.0.0", "what was served"
    assert project.store.read("spend").height == 41


def test_after_a_rollback_a_number_says_how_a_version_differs_from_the_one_below_it(
    project: Project,
) -> None:
    fewer = project.define(metrics=[Rolling(["7d"], {"amount": ["sum"]})])
    project.definitions(fewer).refresh("spend")
    rollback(project.store, "spend")
    project.drop("more", rows((7, 0, 1.0)))
    back = attended(project)  # with the metrics of 1.0.0, which 2.0.0 lacks
    assert (back.version, back.reason) == ("2.1.0", "metrics_added")
    rollback(project.store, "spend", "1.0.0")
    assert project.definitions(fewer).refresh("spend").version == "3.0.0"


def test_a_rollback_to_what_the_source_says_survives_an_attended_build(project: Project) -> None:
    """What was rolled back from is not served again because the hold is gone."""
    path = project.drop("wrong", rows((7, 0, 1.0)))
    unattended(project)
    path.unlink()
    rollback(project.store, "spend")
    assert attended(project).reason == "unchanged"
    assert unattended(project).version == "1.0.0"
    assert project.store.read("spend").height == 40


def test_rows_that_were_rolled_back_from_are_new_data_to_who_reads_the_served_version(
    project: Project,
) -> None:
    project.drop("more", rows((7, 0, 1.0)))
    assert unattended(project).version == "1.0.1"
    rollback(project.store, "spend")
    again = attended(project)
    assert (again.version, again.bump, again.reason) == ("1.0.2", "patch", "data_refresh")


def test_an_attended_build_that_fails_leaves_the_last_version_served(project: Project) -> None:
    for number in range(4):
        rows((number, 0, 1.0)).drop("amount").write_parquet(project.events / f"f{number}.parquet")
        (project.events / f"f{number}.parquet").rename(project.events / f"bad{number}.parquet")
    with pytest.raises(MlforgeError, match="asks for a column that is not there"):
        attended(project)
    is_served_as_before(project)
