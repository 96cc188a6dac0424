"""Tables with a log as sources: each commit is a drop, and what the table's own reader says is what counts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from pyiceberg.catalog import sql
from pyiceberg.utils.config import Config
from sqlalchemy import Engine, create_engine

from mlforge.errors import BuildError, DefinitionError, SourceError
from mlforge.store.lakehouse import source as lake_source
from tests.support.iceberg_deletes import delete_rows_at, delete_where_equal
from tests.support.lake_tables import DeltaEvents, IcebergEvents
from tests.support.projects import Project, at, identity, rows

# Its own planning of Iceberg scans polars has in a package beside it; without that it warns, and reads the same.
pytestmark = pytest.mark.filterwarnings("ignore::polars.exceptions.PerformanceWarning")

FORMATS = {"delta": DeltaEvents, "iceberg": IcebergEvents}
Table = DeltaEvents | IcebergEvents


@pytest.fixture(params=FORMATS)
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Table:
    return FORMATS[request.param](tmp_path / "lake" / "spend")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


def build(project: Project, table: Table, function=identity, **changes):
    source = f"{table.prefix}:{table.folder}"
    definitions = project.definitions(
        project.define(function, source=source, metrics=[], **changes)
    )
    return definitions.build()["spend"]


def of_table(table: Table) -> pl.DataFrame:
    """The rows that polars' own reader of the format gives."""
    if isinstance(table, DeltaEvents):
        return pl.scan_delta(str(table.folder)).collect()
    return pl.scan_iceberg(table.table).collect()


def same(project: Project, table: Table) -> bool:
    stored = project.store.read("spend").sort(pl.all())
    return stored.equals(of_table(table).select(stored.columns).cast(stored.schema).sort(pl.all()))


def test_a_commit_is_a_drop_of_which_only_new_files_are_read(project, table):
    assert build(project, table).reason == "waiting"
    table.append(rows((1, 0.0, 1.0), (2, 0.5, 2.0)))
    table.append(rows((1, 1.0, 3.0)))
    first = build(project, table)
    assert (str(first.version), first.files_read) == ("1.0.0", 2)
    assert same(project, table)
    assert build(project, table).reason == "unchanged"
    table.append(rows((3, 2.0, 4.0)))
    later = build(project, table)
    assert (str(later.version), later.mode, later.files_read) == ("1.0.1", "incremental", 1)
    assert same(project, table)


def test_deleted_rows_count_no_more_whether_their_file_was_written_anew_or_not(project, table):
    table.append(rows((1, 0.0, 1.0), (2, 0.5, 2.0), (3, 0.6, 2.5)))
    table.append(rows((4, 1.0, 3.0)))
    build(project, table)
    table.delete("user_id = 2")
    table.vacuum()
    assert build(project, table).files_read == 1
    assert 2 not in project.store.read("spend")["user_id"]
    assert same(project, table)


def test_a_compaction_makes_no_version_though_all_files_are_others(project, table):
    for day in range(4):
        table.append(rows((day, float(day), 1.0)))
    build(project, table)
    before = project.store.read("spend")
    table.compact()
    table.vacuum()
    result = build(project, table)
    assert len(table.data_files()) == 1
    assert project.store.read("spend").equals(before)
    assert (result.changed, result.rows_changed) == (False, 0)


def test_a_column_that_comes_is_null_in_older_files(project, table):
    table.append(rows((1, 0.0, 1.0)))
    build(project, table)
    table.add_column(rows((2, 1.0, 2.0)).with_columns(shop=pl.lit("a")))

    def with_shop(df: pl.DataFrame) -> pl.DataFrame:
        return df.select("user_id", "at", "amount", "shop")

    build(project, table, with_shop)
    assert project.store.read("spend")["shop"].to_list() == [None, "a"]
    assert same(project, table)


def test_rows_that_a_deletion_vector_marks_do_not_count(project, tmp_path):
    table = DeltaEvents(tmp_path / "lake" / "spend")
    table.append(rows(*((user, float(user), 1.0) for user in range(5))))
    table.append(rows((9, 9.0, 1.0)))
    build(project, table)
    [name] = [file.name for file in table.data_files() if pl.read_parquet(file).height == 5]
    table.delete_by_vector(name, [1, 3])
    result = build(project, table)
    assert result.files_read == 1
    assert project.store.read("spend")["user_id"].to_list() == [0, 2, 4, 9]
    assert same(project, table)
    table.delete_by_vector(name, [0, 1, 3])
    build(project, table)
    assert project.store.read("spend")["user_id"].to_list() == [2, 4, 9]


def test_columns_that_only_folders_names_hold_come_along(project, tmp_path):
    table = DeltaEvents(tmp_path / "lake" / "spend")
    days = rows((1, 0.0, 1.0), (2, 1.0, 2.0)).with_columns(
        day=pl.col("at").dt.date(), shop=pl.Series(["a b/ö=%", None])
    )
    table.append(days, partition_by=["day", "shop"])

    def all_of(df: pl.DataFrame) -> pl.DataFrame:
        return df.select("user_id", "at", "amount", "day", "shop")

    build(project, table, all_of)
    assert project.store.read("spend").rows() == [
        (1, at(0), 1.0, at(0).date(), "a b/ö=%"),
        (2, at(1), 2.0, at(1).date(), None),
    ]
    [name] = [name for name in table.paths() if "shop=a" in name]
    table.delete_by_vector(name, [0])
    build(project, table, all_of)
    assert project.store.read("spend")["user_id"].to_list() == [2]


def test_a_column_that_is_renamed_or_dropped_in_an_iceberg_table_is_so_in_old_files_too(
    project, tmp_path
):
    table = IcebergEvents(tmp_path / "lake" / "spend")
    table.append(rows((1, 0.0, 1.0)).with_columns(old=pl.lit(1)))
    with table.table.update_schema() as update:
        update.rename_column("amount", "spent")
        update.delete_column("old")
    with table.table.update_schema() as update:
        update.rename_column("spent", "amount")
        update.add_column("old", table.table.schema().find_field("user_id").field_type)
    table.append(rows((2, 1.0, 2.0)).with_columns(old=pl.lit(7)))

    def all_of(df: pl.DataFrame) -> pl.DataFrame:
        return df.select("user_id", "at", "amount", "old")

    build(project, table, all_of)
    assert project.store.read("spend")["old"].to_list() == [None, 7]
    assert same(project, table)


def test_an_iceberg_table_is_known_by_its_name_in_a_catalog(project, tmp_path, monkeypatch):
    table = IcebergEvents(tmp_path / "lake" / "spend")
    table.append(rows((1, 0.0, 1.0)))
    for key, value in (("URI", f"sqlite:///{tmp_path}/lake/catalog.db"), ("TYPE", "sql")):
        monkeypatch.setenv(f"PYICEBERG_CATALOG__TEST__{key}", value)
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())  # as a new process reads it
    for name in ("test:lake.nothing", "elsewhere:lake.spend"):
        source = project.definitions(project.define(source=f"iceberg:{name}")).source("spend")
        if name.startswith("test"):
            assert not source.scan().exists
        else:
            with pytest.raises(SourceError, match="cannot be read"):
                source.scan()
    engines: list[Engine] = []

    def noted(*args: Any, **options: Any) -> Engine:
        engines.append(create_engine(*args, **options))
        return engines[-1]

    monkeypatch.setattr(sql, "create_engine", noted)
    named = project.define(source="iceberg:test:lake.spend", metrics=[])
    project.definitions(named).build()
    assert project.store.read("spend")["user_id"].to_list() == [1]
    assert engines
    assert [engine.pool.checkedin() for engine in engines] == [0] * len(engines)


def test_a_file_that_is_gone_makes_no_version_and_the_last_one_is_served(project, table):
    table.append(rows((1, 0.0, 1.0)))
    build(project, table)
    table.append(rows((2, 1.0, 2.0)))
    [new] = [file for file in table.data_files() if pl.read_parquet(file)["user_id"][0] == 2]
    kept = new.read_bytes()
    new.unlink()
    with pytest.raises(BuildError, match=r"1\.0\.0 goes on being served: .* is gone"):
        build(project, table)
    new.write_bytes(kept)
    assert str(build(project, table).version) == "1.0.1"


def test_tables_may_be_side_tables(project, table):
    table.append(rows((1, 0.0, 1.0), (2, 0.0, 5.0)))
    project.drop("a", rows((1, 1.0, 1.0), (2, 1.5, 1.0)))

    def joined(df: pl.DataFrame, factors: pl.DataFrame) -> pl.DataFrame:
        factors = factors.select("user_id", factor="amount")
        return df.join(factors, on="user_id").select("user_id", "at", "amount", "factor")

    spend = project.define(joined, tables={"factors": f"{table.prefix}:{table.folder}"}, metrics=[])
    project.definitions(spend).build()
    assert project.store.read("spend")["factor"].to_list() == [1.0, 5.0]
    table.append(rows((2, 0.0, 7.0)))
    project.definitions(spend).build()
    assert sorted(project.store.read("spend")["factor"]) == [1.0, 5.0, 7.0]


@pytest.mark.parametrize("texts", [["delta:a", "b"], "delta:", ["iceberg:a", "iceberg:b"]])
def test_a_table_is_a_source_by_itself(project, texts):
    with pytest.raises(DefinitionError, match="a table is a source by itself"):
        project.definitions(project.define(source=texts)).source("spend")


def test_tables_that_need_more_than_is_read_are_refused_by_name(project, tmp_path):
    table = DeltaEvents(tmp_path / "lake" / "spend")
    table.append(rows((1, 0.0, 1.0)))
    features = {"readerFeatures": ["columnMapping"], "writerFeatures": ["columnMapping"]}
    table.commit({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **features}})
    assert str(build(project, table).version) == "1.0.0"  # its mapping is none
    features = {"readerFeatures": ["notYetThoughtOf"], "writerFeatures": ["notYetThoughtOf"]}
    table.commit({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **features}})
    with pytest.raises(BuildError, match="notYetThoughtOf"):
        build(project, table)


def test_two_newest_documents_of_an_iceberg_folder_are_refused_as_nothing_tells_which_counts(
    project, tmp_path
):
    table = IcebergEvents(tmp_path / "lake" / "spend")
    table.append(rows((1, 0.0, 1.0)))
    newest = max((table.folder / "metadata").glob("*.metadata.json"))
    newest.with_name(f"{newest.name[:5]}-other.metadata.json").write_bytes(newest.read_bytes())
    with pytest.raises(BuildError, match="nothing there tells which"):
        build(project, table)
    named = project.define(source=f"iceberg:{newest}", metrics=[])
    assert project.definitions(named).build()["spend"].version


def test_the_snapshot_that_was_opened_last_serves_again(project, table):
    table.append(rows((1, 0.0, 1.0)))
    source = lake_source.LakeSource.of([f"{table.prefix}:{table.folder}"], project.root)
    first = source.scan()
    assert source.scan().remote.snapshot is first.remote.snapshot
    table.append(rows((2, 1.0, 1.0)))
    later = source.scan(first.stats)
    assert later.version != first.version
    assert {path: stat for path, stat in later.stats.items() if path in first.stats} == first.stats


def test_a_missing_library_is_named_with_its_extra(project, table, monkeypatch):
    table.append(rows((1, 0.0, 1.0)))
    name = {"delta": "deltalake", "iceberg": "pyiceberg.table"}[table.prefix]
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(BuildError, match="extra 'lakehouse'"):
        build(project, table)


def test_a_plain_source_over_a_table_is_told_how_to_name_it(project, table):
    table.append(rows((1, 0.0, 1.0)))
    plain = project.definitions(project.define(source=str(table.folder)))
    with pytest.raises(SourceError, match=f"name the table: '{table.prefix}:{table.folder}'"):
        plain.source("spend").scan()


def test_rows_that_are_deleted_by_their_positions_do_not_count(project, tmp_path):
    table = IcebergEvents(tmp_path / "lake" / "spend")
    table.append(rows(*((user, float(user), 1.0) for user in range(5))))
    table.append(rows((9, 9.0, 1.0)))
    build(project, table)
    [file] = [str(path) for path in table.data_files() if pl.read_parquet(path).height == 5]
    delete_rows_at(table.table, file, [1, 3])
    assert build(project, table).files_read == 1
    assert project.store.read("spend")["user_id"].to_list() == [0, 2, 4, 9]
    assert same(project, table)
    delete_rows_at(table.table, file, [0])
    build(project, table)
    assert project.store.read("spend")["user_id"].to_list() == [2, 4, 9]


def test_deletes_by_equality_are_refused_in_words_and_the_last_version_is_served(project, tmp_path):
    table = IcebergEvents(tmp_path / "lake" / "spend")
    table.append(rows((1, 0.0, 1.0), (2, 1.0, 1.0)))
    build(project, table)
    delete_where_equal(table.table, "user_id", pa.array([2]))
    with pytest.raises(BuildError, match=r"equality deletes.*rewrite_data_files"):
        build(project, table)
    assert project.store.read("spend")["user_id"].to_list() == [1, 2]


@pytest.mark.parametrize("is_named", [False, True])
def test_a_table_names_no_class_that_is_imported(project, tmp_path, monkeypatch, is_named):
    table = IcebergEvents(tmp_path / "lake" / "spend")
    table.append(rows((1, 0.0, 1.0)))
    document = Path(table.table.metadata_location.removeprefix("file://"))
    metadata = json.loads(document.read_text())
    metadata["properties"] = {**metadata.get("properties", {}), "py-io-impl": "uninvited.Files"}
    document.write_text(json.dumps(metadata))
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "uninvited.py").write_text("raise SystemExit('was imported')")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    source = f"iceberg:{table.folder}"
    if is_named:
        for key, value in (("URI", f"sqlite:///{tmp_path}/lake/catalog.db"), ("TYPE", "sql")):
            monkeypatch.setenv(f"PYICEBERG_CATALOG__TEST__{key}", value)
        monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())  # as a new process reads it
        source = "iceberg:test:lake.spend"
    project.definitions(project.define(source=source, metrics=[])).build()
    assert project.store.read("spend")["user_id"].to_list() == [1]


def test_a_table_that_was_deleted_and_made_anew_is_read_anew(project, tmp_path):
    table = DeltaEvents(tmp_path / "lake" / "spend")
    table.append(rows((1, 0.0, 1.0)))
    build(project, table)
    shutil.rmtree(table.folder)
    table.append(rows((2, 0.0, 1.0)))  # its version is 0, as that of the one before was
    build(project, table)
    assert project.store.read("spend")["user_id"].to_list() == [2]


def test_a_log_names_no_file_outside_its_table(project, tmp_path):
    table = DeltaEvents(tmp_path / "lake" / "spend")
    table.append(rows((1, 0.0, 1.0)))
    [file] = table.data_files()
    shutil.copy(file, tmp_path / "lake" / "other.parquet")
    size = file.stat().st_size
    table.commit(
        {
            "add": {
                "path": "../other.parquet",
                "partitionValues": {},
                "size": size,
                "modificationTime": 1,
                "dataChange": True,
            }
        }
    )
    with pytest.raises(
        BuildError, match=r"whose file \.\./other\.parquet belongs to another table"
    ):
        build(project, table)
