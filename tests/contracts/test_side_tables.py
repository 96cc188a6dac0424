"""Tables that a function is given beside its rows: part of what partials depend on, and drops when they change."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from mlforge.core.disk import hash_file
from mlforge.core.manifest import Manifest
from mlforge.errors import BuildError, DefinitionError, MlforgeError, UnsupportedStore
from mlforge.store import LocalStore
from tests.support.projects import Project, at, column, rows

TABLES = {"users": "dim/users.parquet"}
Frame = Any


def weighted(df: Frame, users: Frame) -> Frame:
    return df.join(users, on="user_id", how="inner").select(
        "user_id", "at", amount=pl.col("amount") * pl.col("weight")
    )


def grouped(df: Frame, users: Frame) -> Frame:
    joined = df.join(users, on="user_id")
    return joined.group_by("user_id", "at").agg((pl.col("amount") * pl.col("weight")).sum())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path / "project")
    project.drop("a", rows((1, 1, 2.0), (2, 1, 5.0)))
    project.drop("b", rows((1, 2, 3.0), (9, 1, 1.0)))
    (project.root / "dim").mkdir()
    users(project, {1: 1.0, 2: 10.0})
    return project


def users(project: Project, weights: dict[int, float], name: str = "users") -> None:
    frame = pl.DataFrame({"user_id": list(weights), "weight": list(weights.values())})
    frame.write_parquet(project.root / f"dim/{name}.parquet")


def sums(project: Project, user: int) -> list[float]:
    return column(project.store.read("spend"), "amount__sum__7d", user_id=user)


def latest(project: Project) -> Manifest:
    manifest = project.store.latest("spend")
    assert manifest is not None
    return manifest


@pytest.mark.parametrize("function", [weighted, grouped])
def test_a_function_is_given_its_tables_and_a_change_of_one_is_a_drop(project, function) -> None:
    feature = project.define(function, tables=TABLES)
    assert project.build(feature).version == "1.0.0"
    assert (sums(project, 1), sums(project, 2), sums(project, 9)) == ([2.0, 5.0], [50.0], [])
    assert latest(project).rowwise == (function is weighted)
    assert not project.build(feature).changed
    users(project, {1: 2.0, 9: 1.0})
    changed = project.build(feature)
    assert (changed.version, changed.bump) == ("1.0.1", "patch")
    assert (sums(project, 1), sums(project, 2), sums(project, 9)) == ([4.0, 10.0], [], [1.0])
    users(project, {1: 1.0, 2: 10.0})
    assert project.build(feature).files_read == 0
    assert sums(project, 2) == [50.0]


def test_files_of_a_table_go_together_without_loss(project: Project) -> None:
    """Instants keep their microseconds, long ids their digits, whatever the other files have."""
    exact = 2**53 + 1
    since = pl.Series([at(0) + timedelta(microseconds=1)])
    tables = {
        "a": pl.DataFrame({"user_id": [exact], "since": since}),
        "b": pl.DataFrame({"user_id": [1], "since": since.dt.convert_time_zone("Asia/Kolkata")}),
        "c": pl.DataFrame({"user_id": [2], "since": since.dt.replace_time_zone(None).dt.cast_time_unit("ms")}),
        "d": pl.DataFrame({"user_id": pl.Series([9], dtype=pl.Int32), "weight": [2.0]}),
    }  # fmt: skip
    for name, frame in tables.items():
        frame.write_parquet(project.root / f"dim/of_{name}.parquet")
    project.drop("c", rows((exact, 1, 1.0)))

    def joined(df: Frame, users: Frame) -> Frame:
        return df.join(users, on="user_id", how="inner")

    feature = project.define(joined, tables={"users": "dim/of_*.parquet"}, metrics=[])
    project.build(feature)
    read = project.store.read("spend")
    assert sorted(read["user_id"].unique()) == [1, 2, 9, exact]
    assert column(read, "since", user_id=exact) == [at(0) + timedelta(microseconds=1)]
    assert set(column(read, "since", user_id=1)) == {at(0) + timedelta(microseconds=1)}
    assert set(column(read, "since", user_id=2)) == {at(0)}


@pytest.mark.parametrize("other", [["7"], [7.5]], ids=["text", "floats that round the ids"])
def test_a_table_whose_files_hold_a_column_in_dtypes_that_no_dtype_holds_is_refused(
    other: list[Any], project: Project
) -> None:
    users(project, {2**53 + 1: 1.0}, "a")
    users(project, {2**53 + 3: 1.0}, "b")
    frame = pl.DataFrame({"user_id": other, "weight": [1.0]})
    frame.write_parquet(project.root / "dim/c.parquet")
    feature = project.define(
        weighted, tables={"users": ["dim/a.parquet", "dim/b.parquet", "dim/c.parquet"]}
    )
    with pytest.raises(BuildError, match=r"its table 'users': .*c\.parquet: column 'user_id' is "):
        project.build(feature)


def test_a_drop_beside_a_table_costs_one_file_and_equals_a_rebuild(project: Project) -> None:
    feature = project.define(weighted, tables=TABLES)
    project.build(feature)
    project.drop("c", rows((2, 3, 1.0)))
    assert project.build(feature).files_read == 1
    incremental = project.store.read("spend")
    project.build(feature, full=True, version="5.0.0")
    assert project.store.read("spend").equals(incremental)
    assert sums(project, 2) == [50.0, 60.0]


@pytest.mark.parametrize("how", ["left", "inner", "semi", "anti"])
def test_joins_with_tables_are_proven_row_wise(project: Project, how: Any) -> None:
    feature = project.define(
        lambda df, users: df.join(
            users.filter(pl.col("weight") > 1).select("user_id"), on="user_id", how=how
        ),
        tables=TABLES,
    )
    project.build(feature)
    assert latest(project).rowwise


@pytest.mark.parametrize(
    "function",
    [
        lambda df, users: df.join(users, on="user_id", how="full", coalesce=True),
        lambda df, users: df.join(df, on="user_id"),
        lambda df, users: df.join(users, on="user_id").unique(),
        lambda df, users: df.with_columns(n=users.lazy().select(pl.len()).collect().item()),
        lambda df, users: users.join(df, on="user_id", how="left"),
        lambda df, users: pl.concat([df, users.select("user_id")], how="diagonal"),
    ],
)
def test_what_is_more_than_such_a_join_sees_the_whole_source(project: Project, function) -> None:
    project.build(project.define(function, tables=TABLES))
    assert not latest(project).rowwise


def test_a_table_may_be_a_folder_and_several_places(project: Project) -> None:
    (project.root / "dim/users.parquet").unlink()
    users(project, {1: 1.0}, "one")
    users(project, {2: 10.0}, "two")
    project.build(project.define(weighted, tables={"users": ["dim/one.parquet", "dim/t*.parquet"]}))
    assert (sums(project, 1), sums(project, 2)) == ([2.0, 5.0], [50.0])
    users(project, {9: 4.0}, "three")
    project.build(project.define(weighted, tables={"users": ["dim/one.parquet", "dim/t*.parquet"]}))
    assert sums(project, 9) == [4.0]


def test_a_table_that_is_not_there_or_damaged_changes_nothing(project: Project) -> None:
    feature = project.define(weighted, tables=TABLES)
    project.build(feature)
    (project.root / "dim/users.parquet").write_bytes(b"PAR1")
    with pytest.raises(BuildError, match="table 'users'"):
        project.build(feature)
    (project.root / "dim/users.parquet").unlink()
    with pytest.raises(BuildError, match="its table 'users' is not there"):
        project.build(feature)
    assert project.store.books("spend").quarantine == {}
    assert sums(project, 2) == [50.0]


def test_a_table_that_lacks_a_column_leaves_the_version_as_it_is(project: Project) -> None:
    feature = project.define(weighted, tables=TABLES)
    project.build(feature)
    pl.DataFrame({"user_id": [1]}).write_parquet(project.root / "dim/users.parquet")
    with pytest.raises(BuildError, match="weight"):
        project.build(feature)
    assert sums(project, 2) == [50.0]


def test_an_audit_holds_the_version_against_files_and_tables(project: Project) -> None:
    definitions = project.definitions(project.define(weighted, tables=TABLES))
    definitions.build()
    assert definitions.audit("spend").mismatches == 0
    users(project, {1: 7.0})
    with pytest.raises(MlforgeError, match="its tables changed since"):
        definitions.audit("spend")


@pytest.mark.parametrize(
    ("function", "tables", "says"),
    [
        (weighted, None, "called with one frame, but missing a required argument: 'users'"),
        (weighted, {"merchants": "dim/x.parquet"}, r"write def spend\(df, merchants\)"),
        (weighted, {"users": 5}, "tables: users must be a list, not 5"),
        (weighted, {"users": "s3a://b/x.parquet"}, "does not read"),
        (weighted, ["users"], "tables must be a dict"),
        (weighted, {"df": "dim/x.parquet"}, "called with one frame"),
    ],
)
def test_tables_that_the_function_cannot_be_given_are_refused(project, function, tables, says):
    with pytest.raises(DefinitionError, match=says):
        project.definitions(project.define(function, tables=tables))


def test_a_store_inside_a_table_is_refused(project: Project) -> None:
    project.store = LocalStore(project.root / "dim/store")
    with pytest.raises(UnsupportedStore, match="lies inside"):
        project.definitions(project.define(weighted, tables={"users": "dim/"}))


def test_the_hash_of_definitions_tells_tables_apart(project: Project) -> None:
    places = [TABLES, {"users": "dim/"}]
    hashes = {project.definitions(project.define(weighted, tables=t)).hash for t in places}
    assert len(hashes) == 2


@pytest.mark.parametrize("incremental", [None, True, False])
def test_a_function_that_reads_files_by_itself_is_refused_with_the_way_to_say_it(
    project: Project, incremental: bool | None
) -> None:
    path = project.root / "dim/users.parquet"

    def reads(df: Frame) -> Frame:
        return df.join(pl.read_parquet(path), on="user_id")

    def reads_for_rows(df: Frame) -> Frame:
        for _ in df.lazy().collect().rows():
            path.read_bytes()
        return df

    def scans_for_rows(df: Frame) -> Frame:
        some = df.lazy().collect().height > 0
        return df.lazy().join(pl.scan_parquet(path), on="user_id") if some else df

    def limited(df: Frame) -> Frame:
        """A plan that looks at each row alone, with a literal out of a file."""
        [(limit,)] = duckdb.sql(f"select max(day) from '{path}'").fetchall()
        return df.lazy().filter(pl.col("amount") < limit)

    for function in (reads, reads_for_rows, scans_for_rows, limited):
        with pytest.raises(BuildError, match=r"reads files by itself .* tables=\{'merchants'"):
            project.build(project.define(function, incremental=incremental))
        assert project.store.latest("spend") is None


def test_a_version_names_the_files_of_its_tables(project: Project) -> None:
    feature = project.define(weighted, tables=TABLES)
    project.build(feature)
    users(project, {1: 3.0})
    project.build(feature)
    store = LocalStore(project.root / "store")
    for version, weights in (("1.0.0", {1: 1.0, 2: 10.0}), ("1.0.1", {1: 3.0})):
        users(project, weights)
        [file] = store.read_metadata("spend", version).tables["users"]
        path = project.root / "dim/users.parquet"
        assert (file.path, file.size, file.hash) == (
            "users.parquet",
            path.stat().st_size,
            hash_file(path),
        )
    meta = json.loads((project.root / "store/spend/1.0.1/.meta.json").read_text())
    assert meta["tables"]["users"][0]["path"] == "users.parquet"
    project.build(project.define(name="plain"))
    assert "tables" not in json.loads((project.root / "store/plain/1.0.0/.meta.json").read_text())
