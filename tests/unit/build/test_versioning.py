"""Which version each change makes, through the public API, on both engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge.build.diff import diff
from mlforge.core.values import Version
from mlforge.errors import FeatureNotFound, StoreError, VersionConflict, VersionNotFound
from mlforge.metrics import Rolling
from mlforge.store.manifest_json import to_json
from tests.support.projects import Project, at, identity, rows


@pytest.fixture(params=["polars", "duckdb"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    made = Project(tmp_path, request.param)
    made.drop("one", rows((1, 0, 10.0), (1, 1, 5.0), (2, 0, 1.0)))
    made.build()
    return made


def rolling(*windows: str, **aggregations: list[str]) -> list[Rolling]:
    return [Rolling(windows, aggregations)]


def with_note(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", "amount", pl.lit("x").alias("note"))


def without_note(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", "amount")


def doubled(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", pl.col("amount") * 2)


def as_integers(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", pl.col("amount").cast(pl.Int64))


def renamed_time(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", pl.col("at").alias("when"), "amount")


def with_shop(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", "amount", pl.lit(7).alias("shop"))


def test_the_first_build_is_1_0_0(project: Project) -> None:
    assert project.store.list_versions("spend") == ["1.0.0"]
    change = project.store.read_metadata("spend").change
    assert change is not None
    assert (change.bump_type, change.reason) == ("major", "first_build")


def test_nothing_changed_makes_no_version(project: Project) -> None:
    result = project.build()
    assert (result.changed, result.version, result.reason) == (False, "1.0.0", "unchanged")
    assert project.store.list_versions("spend") == ["1.0.0"]


def test_new_data_is_a_patch(project: Project) -> None:
    (project.events / "one.parquet").touch()
    project.drop("two", rows((1, 2, 3.0)))
    result = project.build()
    assert (result.version, result.bump, result.reason) == ("1.0.1", "patch", "data_refresh")
    assert (result.rows_changed, result.entities) == (1, 1)
    change = project.store.read_metadata("spend").change
    assert change is not None
    assert change.evidence.keys() == {"rows_changed", "entities", "files_added"}


CHANGES: dict[str, tuple[dict[str, Any], str, str]] = {
    "a window added": (
        {"metrics": rolling("2d", "7d", "30d", amount=["sum", "count"])},
        "1.1.0",
        "metrics_added",
    ),
    "an aggregation added": (
        {"metrics": rolling("2d", "7d", amount=["sum", "count", "mean"])},
        "1.1.0",
        "metrics_added",
    ),
    "a metric added": (
        {
            "metrics": [
                *rolling("2d", "7d", amount=["sum", "count"]),
                Rolling("1d", {"amount": "max"}),
            ]
        },
        "1.1.0",
        "metrics_added",
    ),
    "a window removed": (
        {"metrics": rolling("2d", amount=["sum", "count"])},
        "2.0.0",
        "metrics_removed",
    ),
    "a window's ends changed": (
        {"metrics": [Rolling(["2d", "7d"], {"amount": ["sum", "count"]}, closed="left")]},
        "1.1.0",
        "config_changed",
    ),
    "another online clock": ({"online_clock": "wall"}, "1.1.0", "config_changed"),
    "an interval set": ({"interval": "1d"}, "1.1.0", "config_changed"),
    "a key added": (
        {"function": with_shop, "keys": ["user_id", "shop"]},
        "1.1.0",
        "config_changed",
    ),
    "the timestamp renamed": (
        {"function": renamed_time, "timestamp": "when"},
        "2.0.0",
        "columns_removed",
    ),
    "a column's dtype changed": ({"function": as_integers}, "2.0.0", "dtype_changed"),
    "a column of the function added": ({"function": with_note}, "1.1.0", "added_columns"),
    "the logic changed": ({"function": doubled}, "1.1.0", "logic_changed"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_definition_is_named_and_numbered_and_has_the_rows_of_a_rebuild(
    project: Project, change: str, tmp_path: Path
) -> None:
    changes, version, reason = CHANGES[change]
    feature = project.define(**{"function": identity, **changes})
    result = project.build(feature)
    assert (result.version, result.reason) == (version, reason)
    assert project.store.read("spend").equals(
        project.rebuilt(tmp_path / "x", feature).read("spend")
    )


def test_another_dtype_of_the_functions_column_is_major_though_no_output_changes(
    project: Project,
) -> None:
    counted = {"metrics": rolling("2d", amount=["count"]), "name": "counted"}
    project.build(project.define(**counted))
    result = project.build(project.define(as_integers, **counted))
    assert (result.version, result.reason) == ("2.0.0", "dtype_changed")


def test_another_interval_makes_the_rows_of_a_rebuild(project: Project, tmp_path: Path) -> None:
    for interval, version in (("1d", "1.1.0"), ("12h", "1.2.0"), (None, "1.3.0")):
        feature = project.define(interval=interval)
        assert project.build(feature).version == version
        fresh = project.rebuilt(tmp_path / str(interval), feature)
        assert project.store.read("spend").equals(fresh.read("spend"))


@pytest.mark.parametrize("metrics", [rolling("2d", amount=["sum"]), []])
def test_rows_that_differ_in_the_last_bits_of_floats_do_not_differ(
    project: Project, metrics: list[Rolling]
) -> None:
    project.drop("more", rows((7, 1, 0.1), (7, 2, 1e12), (8, 1, None), (9, 1, 2e-12)))
    times = {
        text: project.define(_times(*factors), metrics=metrics)
        for text, factors in {"1.1": (1.1,), "11 / 10": (11.0, 0.1), "1.1001": (1.1001,)}.items()
    }
    project.build(times["1.1"])
    result = project.build(times["11 / 10"])
    assert (result.reason, result.details[-1]) == ("logic_changed", "all values stay the same")
    exact, other = project.store.read("spend", "1.0.0"), project.store.read("spend")
    assert not exact.equals(other)
    assert project.build(times["1.1001"]).details[-1].endswith("rows differ")


def _times(*factors: float) -> Callable[[pl.DataFrame], pl.DataFrame]:
    def function(df: pl.DataFrame) -> pl.DataFrame:
        amount = pl.col("amount")
        for factor in factors:
            amount = amount * factor
        return df.select("user_id", "at", amount)

    return function


@pytest.mark.parametrize("metrics", [rolling("2d", paid=["sum"]), []])
def test_rows_are_compared_by_their_columns_whatever_these_are_called(
    project: Project, metrics: list[Rolling]
) -> None:
    more = {"removed": 1, "paid__new": 2, "old": 3}

    def named(df: pl.DataFrame) -> pl.DataFrame:
        others = {name: pl.col("amount") + number for name, number in more.items()}
        return df.select(pl.col("user_id").alias("added"), "at", paid="amount", **others)

    keyed = {"keys": ["added"], "metrics": metrics, "name": "named"}
    project.build(project.define(named, **keyed))
    project.drop("two", rows((2, 0.5, 3.0), (3, 2, 1.0)))
    more |= {"old": 5, "removed": 7}
    result = project.build(project.define(named, **keyed))
    assert result.reason == "logic_changed"
    changes = diff(project.store, "named", "1.0.0", "1.1.0").rows
    assert changes is not None
    keys = [1, 2, 3] if not metrics else [2, 3]
    assert changes.sample == tuple({"added": key} for key in keys)
    counts = (changes.added, changes.removed, changes.changed)
    assert counts == ((2, 0, 0) if metrics else (5, 3, 0))


def test_another_of_two_instants_as_the_timestamp_sorts_the_rows_anew(
    project: Project, tmp_path: Path
) -> None:
    def seen_later(df: pl.DataFrame) -> pl.DataFrame:
        return df.with_columns(seen=pl.col("at").dt.offset_by("40d") - (pl.col("at") - at(0)) * 2)

    plain = {"function": seen_later, "metrics": [], "name": "plain"}
    project.build(project.define(**plain))
    other = project.define(**plain, timestamp="seen")
    assert project.build(other).reason == "config_changed"
    fresh = project.rebuilt(tmp_path / "fresh", other)
    assert project.store.read("plain").equals(fresh.read("plain"))


def test_a_removed_column_of_the_function_is_major(project: Project) -> None:
    project.build(project.define(with_note))
    result = project.build(project.define(without_note))
    assert (result.version, result.reason) == ("2.0.0", "columns_removed")
    assert result.details == ("note",)


@pytest.mark.parametrize(
    "changes",
    [{"tags": ["gold"]}, {"description": "what users spend"}],
    ids=["tags", "description"],
)
def test_tags_and_descriptions_go_to_the_books_alone(
    project: Project, changes: dict[str, Any]
) -> None:
    assert not project.build(project.define(**changes)).changed
    books = project.store.books("spend")
    assert (books.tags, books.description) == (
        tuple(changes.get("tags", ())),
        changes.get("description", ""),
    )


def test_owners_and_descriptions_of_columns_are_kept_nowhere_and_make_no_version(
    project: Project,
) -> None:
    project.build()
    plain, store = project.define(), project.store
    named = project.define(
        owner="risk", columns={"amount__sum__7d": "spent in a week", "at": "when"}
    )
    before = (store.books("spend"), store.latest("spend"), project.definitions(plain).hash)
    assert not project.build(named).changed
    assert (store.books("spend"), store.latest("spend"), project.definitions(named).hash) == before
    assert (named.code_hash, named.spec) == (plain.code_hash, plain.spec)
    assert (named.owner, named.column_descriptions["at"]) == ("risk", "when")


def test_another_engine_makes_no_version(project: Project) -> None:
    other = {"polars": "duckdb", "duckdb": "polars"}[project.engine]
    assert not project.build(engine=other).changed


def test_a_column_that_loses_its_values_and_has_some_again_has_no_other_dtype(
    project: Project,
) -> None:
    path = project.events / "one.parquet"
    before = pl.read_parquet(path)
    for frame, version in ((before.with_columns(amount=pl.lit(None)), "1.0.1"), (before, "1.0.2")):
        frame.write_parquet(path)
        assert (project.build().version, project.build().reason) == (version, "unchanged")


def test_a_moved_source_makes_no_version(project: Project) -> None:
    project.events.rename(project.root / "elsewhere")
    assert not project.build(project.define(source="elsewhere")).changed


def test_renamed_and_touched_files_make_no_version(project: Project) -> None:
    path = project.events / "one.parquet"
    path.rename(project.events / "renamed.parquet").touch()
    assert not project.build().changed


def test_a_compaction_makes_no_version(project: Project) -> None:
    project.drop("two", rows((1, 2, 3.0)))
    project.build()
    both = pl.concat(pl.read_parquet(path) for path in sorted(project.events.iterdir()))
    for path in project.events.iterdir():
        path.unlink()
    project.drop("both", both)
    assert not project.build().changed


def test_a_file_of_equal_content_counts_twice(project: Project) -> None:
    project.drop("again", rows((1, 0, 10.0), (1, 1, 5.0), (2, 0, 1.0)))
    assert project.build().version == "1.0.1"
    first = project.store.read("spend").row(0, named=True)
    assert (first["amount__sum__7d"], first["amount__count__7d"]) == (20.0, 2)


def test_an_explicit_version_is_always_made_says_what_it_is_and_numbers_go_on_from_it(
    project: Project,
) -> None:
    nothing = ("nothing changed",)
    for asked, told in (
        ("1.0.7", ("patch", "explicit_version", nothing)),
        ("1.4.0", ("minor", "explicit_version", nothing)),
        ("3.2.1", ("major", "explicit_version", nothing)),
    ):
        built = project.build(version=asked)
        assert (built.version, (built.bump, built.reason, built.details)) == (asked, told)
    project.drop("two", rows((1, 2, 3.0)))
    assert project.build().version == "3.2.2"
    project.drop("three", rows((1, 2, 4.0)))
    built = project.build(version="3.5.0")
    assert (built.bump, built.reason) == ("minor", "explicit_version")
    assert built.details == ("the change alone is a patch: data_refresh",)
    project.drop("four", rows((1, 2, 5.0)))
    built = project.build(version="3.5.9")
    assert (built.bump, built.reason, built.details) == (
        "patch",
        "data_refresh",
        ("1 row of 1 entity",),
    )
    # A number is no reason to call it harmless.
    built = project.build(project.define(metrics=[]), version="3.5.10")
    assert (built.bump, built.reason) == ("major", "metrics_removed")
    changes = [each.change for each in project.store.summaries("spend") if each.change]
    assert [each.bump_type for each in changes] == ["major", "patch", "minor", "major", "patch", "minor", "patch", "major"]  # fmt: skip
    assert [each.evidence.get("asked_for") for each in changes][-2:] == ["3.5.9", "3.5.10"]


@pytest.mark.parametrize("version", ["1.0.0", "0.9.0"])
def test_a_version_that_exists_or_is_too_low_is_refused(project: Project, version: str) -> None:
    with pytest.raises(Exception, match=r"not above the highest, 1\.0\.0") as caught:
        project.build(version=version)
    assert isinstance(caught.value.failures["spend"], VersionConflict)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text", ["1.0", "v1.0.0", "1.0.0-rc1", "01.0.0", "../1.0.0", "", "1.0.0\n"]
)
def test_a_version_that_is_not_semantic_is_refused(text: str) -> None:
    with pytest.raises(StoreError, match="is not a version"):
        Version.parse(text)


def test_old_versions_are_read_as_they_were(project: Project) -> None:
    before = project.store.read("spend")
    project.drop("two", rows((1, 0.5, 100.0)))
    project.build()
    assert project.store.read("spend", version="1.0.0").equals(before)
    assert not project.store.read("spend").equals(before)


def test_versions_are_listed_in_semantic_order(project: Project) -> None:
    for version in ("1.0.9", "1.0.10", "1.2.0"):
        project.build(version=version)
    assert project.store.list_versions("spend") == ["1.0.0", "1.0.9", "1.0.10", "1.2.0"]


def test_what_is_not_there_is_named_with_what_is(project: Project) -> None:
    with pytest.raises(VersionNotFound, match=r"spend has no version 9\.0\.0; there are: 1\.0\.0"):
        project.store.read("spend", version="9.0.0")
    with pytest.raises(FeatureNotFound, match="no feature 'spent'; there are: spend"):
        project.store.read("spent")


def test_the_metadata_holds_what_the_version_is(project: Project) -> None:
    project.drop("two", rows((1, 2, 3.0), (None, 2, 1.0), (1, None, 1.0), (1, 3, float("inf"))))
    project.build()
    meta = to_json(project.store.read_metadata("spend"))
    assert meta["entity_keys"] == ["user_id"]
    assert meta["parent"] == "1.0.0"
    assert meta["watermark"] == "2026-01-04T00:00:00.000000Z"
    assert meta["rows_dropped"] == {"non_finite": 1, "null_key": 1, "null_time": 1}
    assert meta["row_count"] == project.store.read("spend").height == 5
    assert [column["name"] for column in meta["columns"]] == project.store.read("spend").columns
    assert [source["path"] for source in meta["sources"]] == ["one.parquet", "two.parquet"]
    assert "rolled_back_from" not in meta["change_summary"]["evidence"]
    assert meta["change_summary"]["evidence"]["files_added"] == {
        "count": 1,
        "first": ["two.parquet"],
    }


def test_histories_that_mean_the_same_have_one_rows_hash(project: Project, tmp_path: Path) -> None:
    project.drop("two", rows((1, 2, 3.0), (2, 2, 4.0)))
    project.build()
    other = Project(tmp_path / "other", "polars")
    other.drop("all", rows((2, 2, 4.0), (2, 0, 1.0), (1, 2, 3.0), (1, 1, 5.0), (1, 0, 10.0)))
    other.build()
    mine, theirs = (p.store.read_metadata("spend") for p in (project, other))
    assert mine.rows_hash == theirs.rows_hash
