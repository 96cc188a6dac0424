"""Several features of one source are built from one reading of its files, and each stands alone for all else."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from mlforge import Feature
from mlforge.definitions.together import Readings, of_one_source
from mlforge.errors import BuildError
from mlforge.sources.source_reading import KEPT_BYTES
from tests.support.projects import Project, column, identity, rows

NAMES = ("spend", "extremes", "recent")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def features(project: Project) -> list[Feature]:
    return [project.define(name=name) for name in NAMES]


def test_each_file_is_decoded_once_for_all_features_of_a_source(project, decoded):
    for name in "ab":
        project.drop(name, rows((1, 0, 5.0), (2, 1, len(name) + ord(name))))
    results = project.definitions(*features(project)).build()
    assert [result.rows for result in results.values()] == [2, 2, 2]
    assert len(decoded) == 2
    project.drop("c", rows((1, 2, 7.0)))
    plans = project.definitions(*features(project)).plan()
    assert [plan.rows_changed for plan in plans.values()] == [1, 1, 1]
    assert len(decoded) == 3


def test_a_side_table_is_decoded_once_for_all_features(project, decoded):
    project.drop("a", rows((1, 0, 5.0)))
    pl.DataFrame({"user_id": [1], "factor": [2.0]}).write_parquet(project.root / "factors.parquet")

    def scaled(df: pl.DataFrame, factors: pl.DataFrame) -> pl.DataFrame:
        joined = df.join(factors, on="user_id", how="left")
        return joined.select("user_id", "at", amount=pl.col("amount") * pl.col("factor"))

    alike = [
        project.define(scaled, name=name, tables={"factors": "factors.parquet"}) for name in NAMES
    ]
    project.definitions(*alike).build()
    assert len(decoded) == 2
    for name in NAMES:
        assert column(project.store.read(name), "amount__sum__2d", user_id=1) == [10.0]


def test_the_tables_are_those_that_each_feature_alone_would_get(project, tmp_path):
    project.drop("a", rows((1, 0, 5.0), (2, 1, None), (None, 1, 3.0)))
    project.drop("b", rows((1, 3, 2.0)))
    alone = Project(tmp_path / "alone")
    for path in project.events.iterdir():
        (alone.events / path.name).write_bytes(path.read_bytes())
    project.definitions(*features(project)).build()
    for each in features(alone):
        alone.build(each)
    for name in NAMES:
        ours, theirs = project.store.resolve(name), alone.store.resolve(name)
        assert project.store.read(name).equals(alone.store.read(name))
        assert (ours.rows_hash, ours.partials, ours.dropped) == (
            theirs.rows_hash,
            theirs.partials,
            theirs.dropped,
        )


def test_a_function_that_changes_its_frame_in_place_changes_no_other_feature(project):
    def spoils(df: pl.DataFrame) -> pl.DataFrame:
        return df.replace_column(df.columns.index("amount"), pl.Series("amount", [0.0] * df.height))

    project.drop("a", rows((1, 0, 5.0)))
    first = project.define(spoils, name="first", incremental=True)
    second = project.define(identity, name="second", incremental=True)
    project.definitions(first, second).build()
    assert column(project.store.read("first"), "amount__sum__2d", user_id=1) == [0.0]
    assert column(project.store.read("second"), "amount__sum__2d", user_id=1) == [5.0]


def test_a_feature_that_fails_leaves_the_reading_to_the_others(project, decoded):
    def fails(df: pl.DataFrame) -> pl.DataFrame:
        return df.select("no_such_column")

    project.drop("a", rows((1, 0, 5.0)))
    bad = project.define(fails, name="bad", incremental=True)
    with pytest.raises(BuildError, match="no_such_column"):
        project.definitions(bad, *features(project)).build()
    assert len(decoded) == 1
    assert [project.store.read(name).height for name in NAMES] == [1, 1, 1]


def test_a_file_replaced_between_two_features_is_read_anew_for_the_second(project):
    project.drop("a", rows((1, 0, 5.0)))
    definitions = project.definitions(*features(project))

    def replaced(name: str) -> None:
        if name == NAMES[1]:
            project.drop("a", rows((1, 0, 8.0)))

    definitions.build(progress=replaced)
    sums = [column(project.store.read(name), "amount__sum__2d", user_id=1) for name in NAMES]
    assert sums == [[5.0], [8.0], [8.0]]


def test_a_reading_ends_with_the_last_feature_of_its_source_and_all_share_one_room(project):
    other = [project.define(name=name, source="other") for name in ("x", "y")]
    single = project.define(name="single", source="single")
    definitions = project.definitions(*features(project), *other, single)
    readings = Readings(definitions.features, definitions.features, None)
    shared = [readings.of(name) for name in NAMES]
    assert shared[0] is shared[1] is shared[2] is not None
    assert readings.of("x") is not shared[0]
    assert readings.of("single") is None
    assert shared[0]._room == KEPT_BYTES // 2
    assert of_one_source(definitions.features, "extremes") == ["spend", "recent"]
    assert of_one_source(definitions.features, "single") == []
    assert not readings._open.keys() - {("other",)}
