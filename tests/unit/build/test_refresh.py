"""What a refresh promises when files, definitions and stored bytes change under it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import Definitions
from mlforge.build.result import BuildResult, Options
from mlforge.core import failpoints
from mlforge.errors import (
    BuildError,
    DefinitionError,
    IntegrityError,
    SourceError,
    UnsupportedStore,
)
from mlforge.maintenance.operations import rollback
from mlforge.metrics import Rolling
from tests.support.projects import Project, column, rows

JUNK = b"PAR1 this is no parquet file PAR1"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "p")


def unattended(project: Project) -> BuildResult:
    return project.definitions().refresh("spend", attended=False)


def ranked(df: pl.DataFrame) -> pl.DataFrame:
    return df.with_columns(pl.col("amount").rank().over("user_id")).select(
        "user_id", "at", "amount"
    )


def test_a_window_written_otherwise_is_another_column(project: Project) -> None:
    project.drop("one", rows((1, 0, 2.0)))
    project.build()
    weekly = project.define(metrics=[Rolling(timedelta(days=7), {"amount": "sum"})])
    assert project.build(weekly).version == "2.0.0"
    assert project.store.read("spend")["amount__sum__1w"].to_list() == [2.0]


def test_a_function_whose_error_has_a_text_that_no_file_takes_sets_the_file_aside(
    project: Project,
) -> None:
    def picky(df: pl.DataFrame) -> pl.DataFrame:
        if 3 in df["user_id"]:
            raise ValueError("half a character: \udcff")
        return df

    project.drop("a", rows((1, 0, 2.0)))
    project.drop("b", rows((3, 0, 2.0)))
    feature = project.define(picky, incremental=True)
    for _ in range(2):
        [bad] = project.build(feature).quarantined
        assert bad.reason.endswith("ValueError: half a character: \\udcff")
    assert project.store.books("spend").quarantine["b.parquet"] == bad


def test_a_renamed_file_that_turns_bad_keeps_its_last_good_content(project: Project) -> None:
    path = project.drop("a", rows((1, 0, 2.0)))
    project.drop("z", rows((2, 0, 1.0)))
    project.build()
    renamed = path.rename(project.events / "b.parquet")
    assert not project.build().changed
    renamed.write_bytes(JUNK)
    assert not project.build().changed
    assert column(project.store.read("spend"), "amount__sum__7d", user_id=1) == [2.0]


def test_a_bad_file_at_a_name_that_moved_on_brings_nothing_back(project: Project) -> None:
    path = project.drop("a", rows((1, 0, 2.0)))
    project.build()
    path.rename(project.events / "b.parquet")
    project.build()
    path.write_bytes(JUNK)
    assert not project.build().changed
    assert column(project.store.read("spend"), "amount__count__7d", user_id=1) == [1]


def test_a_failing_build_leaves_a_held_feature_held(project: Project) -> None:
    project.drop("a", rows((1, 0, 2.0)))
    project.build()
    project.drop("b", rows((1, 1, 2.0)))
    project.build()
    rollback(project.store, "spend")
    with pytest.raises(BuildError, match="not above the highest"):
        project.build(version="1.0.0")
    assert project.store.books("spend").hold is not None
    assert unattended(project).reason == "held"


def test_damaged_partials_are_made_anew_from_the_sources(project: Project) -> None:
    project.drop("a", rows((1, 0, 2.0)))
    project.build()
    [partial] = (project.store.path / "spend" / "_partials").glob("*.parquet")
    partial.write_bytes(JUNK)
    project.drop("b", rows((1, 1, 2.0)))
    assert project.build().version == "1.0.1"
    assert column(project.store.read("spend"), "amount__sum__7d", user_id=1) == [2.0, 4.0]


def test_what_is_damaged_and_has_no_source_left_is_named(project: Project) -> None:
    path = project.drop("a", rows((1, 0, 2.0)))
    project.drop("b", rows((2, 0, 2.0)))
    project.build()
    path.write_bytes(JUNK)  # a's last good content is in its partial alone
    for partial in (project.store.path / "spend" / "_partials").glob("*.parquet"):
        partial.unlink()
    result = project.build()
    assert [bad.path for bad in result.quarantined] == ["a.parquet"]
    assert project.store.read("spend")["user_id"].to_list() == [2]


def test_a_nightly_compaction_is_not_held(project: Project) -> None:
    for day in range(10):
        project.drop(f"d{day}", rows((day, day, 1.0)))
    project.build()
    together = pl.concat(pl.read_parquet(path) for path in project.events.iterdir())
    for path in project.events.iterdir():
        path.unlink()
    project.drop("all", together)
    assert unattended(project).reason == "unchanged"
    assert project.store.books("spend").hold is None


def test_a_compaction_that_also_amends_a_row_is_not_held(project: Project) -> None:
    for day in range(10):
        project.drop(f"d{day}", rows((day, day, 1.0)))
    project.build()
    for path in project.events.iterdir():
        path.unlink()
    project.drop("all", rows((0, 0, 9.0), *((day, day, 1.0) for day in range(1, 10))))
    assert unattended(project).version == "1.0.1"


def test_files_that_a_new_majority_sets_aside_are_lost_and_so_held(project: Project) -> None:
    everything = project.define(lambda df: df, metrics=[])
    for name in ("a", "b", "c"):
        project.drop(name, rows((1, 0, 1.0)).with_columns(note=pl.lit(7)))
    for name in ("d", "e"):
        project.drop(name, rows((2, 0, 1.0), *[(1, 0, 1.0)] * 90))
    project.build(everything)
    for name in ("f", "g", "h", "i"):
        project.drop(name, rows((3, 0, 1.0)).with_columns(note=pl.lit("x")))
    result = project.definitions(everything).refresh("spend", attended=False)
    assert result.reason == "held"
    assert "3 of 5 files are set aside (3 events: a.parquet" in str(result.held)
    assert "3 of 185 events would stop counting" in str(result.held)
    assert "pl.col('note').cast(pl.String)" in str(result.held)
    assert 3 not in project.store.read("spend")["user_id"]
    result = project.build(everything)
    assert [bad.path for bad in result.quarantined] == ["a.parquet", "b.parquet", "c.parquet"]


def test_a_function_that_fails_is_told_as_such_and_ends_with_its_mending(project: Project) -> None:
    project.drop("a", rows((1, 0, 2.0)))
    project.build()
    broken = project.define(lambda df: df.select("user_id", "at", pl.col("amuont").alias("amount")))
    with pytest.raises(
        BuildError, match=r"column that is not there, 'amuont' [(]did you mean 'amount'[?][)]; the"
    ):
        project.definitions(broken).build()
    with pytest.raises(SourceError, match="asks for a column that is not there"):
        project.definitions(broken).refresh("spend", attended=False)
    project.drop("b", rows((1, 1, 2.0)))
    assert unattended(project).version == "1.0.1"


def test_a_source_read_as_one_keeps_the_last_version_while_a_file_of_it_is_bad(
    project: Project,
) -> None:
    path = project.drop("a", rows((1, 0, 2.0)))
    project.drop("b", rows((2, 0, 1.0)))
    feature = project.define(ranked)
    first = project.build(feature).mode_reason
    assert first.startswith("first build; each drop will go through the whole source: the function")
    assert "over" in first
    path.write_bytes(JUNK)
    result = project.build(feature)
    assert (result.changed, [bad.path for bad in result.quarantined]) == (False, ["a.parquet"])
    project.drop("a", rows((1, 0, 3.0), (1, 1, 3.0)))
    result = project.build(feature)
    assert (result.version, result.mode) == ("1.0.1", "full")
    assert "not taken for row-wise" in result.mode_reason
    assert "over" in result.mode_reason


def test_a_column_is_never_taken_from_good_files_because_a_third_lacks_it(project: Project) -> None:
    def rated(df: pl.DataFrame) -> pl.DataFrame:
        rate = pl.col("rate") if "rate" in df.columns else pl.lit(1.0)
        return df.select("user_id", "at", pl.col("amount") * rate)

    feature = project.define(rated, incremental=False)
    for name, user in (("a", 1), ("b", 2)):
        project.drop(name, rows((user, 0, 2.0)).with_columns(rate=pl.lit(2.0)))
    project.build(feature)
    project.drop("c", rows((3, 0, 2.0)))
    result = project.build(feature)
    assert [bad.path for bad in result.quarantined] == ["c.parquet"]
    assert project.store.read("spend")["amount__sum__7d"].to_list() == [4.0, 4.0]


def test_units_of_time_do_not_part_the_files_of_a_source_read_as_one(project: Project) -> None:
    for name, unit in (("a", "us"), ("b", "ns"), ("c", "ms")):
        project.drop(name, rows((1, 0, 1.0)).with_columns(pl.col("at").dt.cast_time_unit(unit)))
    assert project.build(project.define(ranked)).quarantined == ()


def test_a_plan_changes_nothing(project: Project) -> None:
    project.drop("a", rows((1, 0, 2.0)))
    project.build()
    project.drop("b", rows((1, 1, 2.0)))

    class Dies(BaseException):
        pass

    def die() -> None:
        raise Dies

    failpoints.arm("publish.renamed", die)
    try:
        with pytest.raises(Dies):
            project.build()
    finally:
        failpoints.disarm()
    before = project.store.pointer("spend")
    project.definitions().plan()
    assert project.store.pointer("spend") == before
    assert project.build().version is not None
    assert project.store.list_versions("spend") == ["1.0.0", "1.0.1"]


def test_the_first_value_of_a_column_that_was_null_so_far_is_data(project: Project) -> None:
    nothing = rows((1, 0, None)).with_columns(pl.lit(None).alias("amount"))
    project.drop("a", nothing)
    assert project.build().version == "1.0.0"
    project.drop("b", rows((1, 1, 2.0)))
    result = project.build()
    assert (result.version, result.reason) == ("1.0.1", "data_refresh")
    assert column(project.store.read("spend"), "amount__sum__7d", user_id=1) == [None, 2.0]


def test_an_explicit_version_that_cannot_be_made_is_an_error(project: Project) -> None:
    with pytest.raises(BuildError, match=r"no version 2\.0\.0 can be made"):
        project.build(version="2.0.0")


def with_columns(*names: str) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda df: df.select("user_id", "at", *(pl.col("amount").alias(name) for name in names))


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (
            {"name": "a__b", "function": with_columns("d", "c")},
            "the column 'b__c' of a would both be",
        ),
        ({"name": "z", "keys": ["a__b__c"]}, "its key or timestamp 'a__b__c' is what the column"),
    ],
)
def test_columns_of_data_that_would_have_one_name_in_an_answer_are_refused_by_a_build(
    project: Project, second: dict[str, Any], told: str
) -> None:
    project.drop("a", rows((1, 0, 1.0)).with_columns(a__b__c=1))
    first = project.define(with_columns("b__c"), name="a", metrics=[])
    project.build(first)
    other = project.define(**{"metrics": [], "function": lambda df: df, **second})
    definitions = project.definitions(first, other)
    for build in (definitions.plan, definitions.build):
        with pytest.raises(BuildError) as failed:
            build()
        [(name, error)] = failed.value.failures.items()
        assert (name, type(error)) == (second["name"], DefinitionError)
        assert told in str(error)
    assert project.store.features() == ["a"]


def test_a_column_that_comes_under_the_name_of_a_key_is_refused_and_what_was_there_is_served(
    project: Project,
) -> None:
    project.drop("a", rows((1, 0, 1.0)).with_columns(a__b=1))
    other = project.define(lambda df: df, keys=["a__b"])
    definitions = project.definitions(
        project.define(with_columns("c"), name="a", metrics=[]), other
    )
    assert definitions.build()["a"].version == "1.0.0"
    changed = project.definitions(project.define(with_columns("b"), name="a", metrics=[]), other)
    with pytest.raises(DefinitionError, match="as is a key or the timestamp of spend"):
        changed.refresh("a", attended=False)
    assert changed.store.read("a").columns == ["user_id", "at", "c"]


def test_rows_left_out_are_reported(project: Project) -> None:
    project.drop("a", rows((1, 0, float("nan")), (None, 0, 1.0), (1, None, 1.0), (1, 1, 1.0)))
    assert project.build().rows_dropped == {"non_finite": 1, "null_key": 1, "null_time": 1}


def test_what_a_hold_lets_pass_can_be_set(project: Project) -> None:
    for name in ("a", "b", "c", "d"):
        project.drop(name, rows((1, 0, 1.0)))
    project.build()
    (project.events / "a.parquet").unlink()
    strict = Options(attended=False, hold_above=0.2)
    defs: Definitions = project.definitions()
    assert defs.refresh("spend", options=strict).reason == "held"
    assert defs.refresh("spend", options=strict).changed is False
    lax = defs.refresh("spend", attended=False)  # judged anew, by what may go now
    assert (lax.version, project.store.books("spend").hold) == ("1.0.1", None)


def test_a_damaged_manifest_is_named_with_what_mends_it(project: Project) -> None:
    project.drop("a", rows((1, 0, 2.0)))
    project.build()
    meta: Any = project.store.path / "spend" / "1.0.0" / ".meta.json"
    meta.write_text(meta.read_text()[:100])
    with pytest.raises(IntegrityError, match="restore it from a backup"):
        project.definitions().refresh("spend")


@pytest.mark.parametrize("note", ["_latest.json", "_books.json"])
def test_notes_of_a_newer_mlforge_are_refused_by_name(project: Project, note: str) -> None:
    project.drop("a", rows((1, 0, 2.0)))
    project.build(project.define(tags=["gold"]))  # so that there are books
    path = project.store.path / "spend" / note
    path.write_text(path.read_text().replace('"format": 1', '"format": 9'))
    before = path.read_text()
    with pytest.raises(UnsupportedStore, match=f"{note} has format 9"):
        project.definitions().refresh("spend")
    assert path.read_text() == before
