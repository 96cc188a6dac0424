"""A source of several places is the multiset of their rows, through every kind of change."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlforge.errors import BuildError
from tests.support.projects import Project, column, rows


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path / "project")
    for place in ("a", "b"):
        (project.root / place).mkdir()
    rows((1, 1, 2.0), (2, 1, 5.0)).write_parquet(project.root / "a/x.parquet")
    rows((1, 1, 2.0), (3, 2, 7.0)).write_parquet(project.root / "b/x.parquet")
    return project


def sums(project: Project) -> dict[int, float]:
    table = project.store.read("spend").sort("at")
    return dict(zip(table["user_id"], table["amount__sum__7d"], strict=True))


def test_rows_of_all_places_count_and_equal_files_count_twice(project: Project) -> None:
    both = project.define(source=["a/", "b/"])
    assert project.build(both).version == "1.0.0"
    assert sums(project) == {1: 4.0, 2: 5.0, 3: 7.0}
    manifest = project.store.latest("spend")
    assert manifest is not None
    assert [record.path for record in manifest.sources] == ["a/x.parquet", "b/x.parquet"]


def test_the_order_of_places_means_nothing(project: Project) -> None:
    project.build(project.define(source=["a/", "b/"]))
    assert not project.build(project.define(source=["b", "a"])).changed


def test_drops_into_each_place_are_incremental_and_equal_a_rebuild(project: Project) -> None:
    both = project.define(source=["a/", "b/*.parquet", "one.parquet"])
    rows((9, 1, 1.0)).write_parquet(project.root / "one.parquet")
    project.build(both)
    rows((1, 2, 1.0)).write_parquet(project.root / "b/y.parquet")
    added = project.build(both)
    assert (added.files_read, added.rows_changed) == (1, 1)
    (project.root / "a/x.parquet").unlink()
    rows((9, 1, 4.0)).write_parquet(project.root / "one.parquet")
    project.build(both)
    incremental = project.store.read("spend")
    assert column(incremental, "amount__sum__7d", user_id=1) == [2.0, 3.0]
    assert column(incremental, "amount__sum__7d", user_id=9) == [4.0]
    project.build(both, full=True, version="9.0.0")
    assert project.store.read("spend").equals(incremental)


def test_a_place_that_went_changes_nothing(project: Project) -> None:
    both = project.define(source=["a/", "b/"])
    project.build(both)
    (project.root / "b").rename(project.root / "c")
    result = project.build(both)
    assert (result.changed, result.version) == (False, "1.0.0")
    assert f"{project.root / 'b'} is not there" in " ".join([result.reason, *result.warnings])


def test_one_place_becomes_one_of_several(project: Project) -> None:
    project.build(project.define(source="a/"))
    grown = project.build(project.define(source=["a/", "b/"]))
    assert grown.rows_changed == 2
    assert sums(project) == {1: 4.0, 2: 5.0, 3: 7.0}


def test_a_table_with_a_log_fails_the_feature_and_says_why(project: Project) -> None:
    (project.root / "a/_delta_log").mkdir()
    with pytest.raises(BuildError, match="is a table in Delta format"):
        project.build(project.define(source="a/"))


def test_a_file_named_explicitly_is_read_whatever_its_suffix(project: Project) -> None:
    (project.root / "a/x.parquet").rename(project.root / "a/000000_0")
    assert project.build(project.define(source="a/000000_0")).rows == 2
    (project.root / "b/x.parquet").rename(project.root / "b/x.parq")
    assert project.build(project.define(source=["a/000000_0", "b/*.parq"])).rows_changed == 2
