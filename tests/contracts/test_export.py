"""Versions as snapshots of tables, read back by the readers of others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from pyiceberg.table import StaticTable
from pyiceberg.table import Table as IcebergTable

from mlforge.build.refresh import Options
from mlforge.build.rows import Layout
from mlforge.cli.main import main
from mlforge.core import failpoints
from mlforge.errors import (
    DataError,
    MissingExtra,
    StoreError,
    UnsupportedStore,
    VersionConflict,
)
from mlforge.maintenance.exporting import export
from mlforge.maintenance.operations import rollback
from mlforge.registry.graph import FEATURE, TABLE, Node
from mlforge.registry.project import graph_of
from mlforge.registry.users import check_unused
from mlforge.store import LocalStore
from mlforge.store.lakehouse.iceberg_target import IcebergTarget, _catalog
from mlforge.store.lakehouse.targets import target_at
from tests.support.crashes import killed
from tests.support.iceberg_deletes import delete_rows_at
from tests.support.lake_tables import DeltaEvents
from tests.support.projects import Project, rows

# Its own planning of Iceberg scans polars has in a package beside it; without that it warns, and reads the same.
pytestmark = pytest.mark.filterwarnings("ignore::polars.exceptions.PerformanceWarning")

FORMATS = ("delta", "iceberg")


@pytest.fixture(params=FORMATS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("built") / "project")
    for number in range(3):
        project.drop(f"{number}", rows((number % 2, number / 2, 1.0), (7, number, 2.0)))
        project.build()
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """The same in a folder of the test's own."""
    return built.copied(tmp_path / "project")


def snapshots(kind: str, folder: Path) -> list[pl.DataFrame]:
    """The table at each of its snapshots, the oldest first, as polars reads it; none where there is no table yet."""
    begun = "_delta_log/*.json" if kind == "delta" else "metadata/version-hint.text"
    if not list(folder.glob(begun)):
        return []
    if kind == "delta":
        newest = DeltaTable(folder).version()
        return [pl.scan_delta(str(folder), version=n).collect() for n in range(newest + 1)]
    table = StaticTable.from_metadata(str(folder))
    history = [entry.snapshot_id for entry in table.history()]
    return [pl.scan_iceberg(table, snapshot_id=each).collect() for each in history]


def by_duckdb(kind: str, folder: Path) -> pl.DataFrame:
    """The newest snapshot as DuckDB reads it: through Arrow, as its own extensions are downloads."""
    if kind == "delta":
        rows_ = DeltaTable(folder).to_pyarrow_table()
    else:
        rows_ = StaticTable.from_metadata(str(folder)).scan().to_arrow()
    with duckdb.connect() as connection:
        connection.register("exported", rows_)
        return pl.DataFrame(connection.sql("SELECT * FROM exported").to_arrow_table())


def same(one: pl.DataFrame, other: pl.DataFrame) -> bool:
    columns = other.columns
    return one.select(columns).cast(other.schema).sort(columns).equals(other.sort(columns))


def test_snapshot_n_is_version_n_and_a_second_export_writes_what_is_new(project, tmp_path, kind):
    store, folder = project.store, tmp_path / "table"
    first = export(store, "spend", target_at(kind, str(folder)))
    assert list(map(str, first.versions)) == ["1.0.0", "1.0.1", "1.0.2"]
    files = {path: path.read_bytes() for path in folder.rglob("*.parquet")}
    assert len(files) == first.files
    project.drop("next", rows((3, 9.0, 5.0)))
    project.build()
    later = export(store, "spend", target_at(kind, str(folder)))
    assert list(map(str, later.versions)) == ["1.0.3"]
    assert all(path.read_bytes() == data for path, data in files.items())
    tables = snapshots(kind, folder)
    assert len(tables) == 4
    for version, table in zip(store.versions("spend"), tables, strict=True):
        assert same(table, store.read("spend", str(version)))
    assert same(by_duckdb(kind, folder), store.read("spend"))
    again = export(store, "spend", target_at(kind, str(folder)))
    assert (again.versions, again.files) == ((), 0)
    assert len(snapshots(kind, folder)) == 4


def test_parts_that_versions_share_are_one_file(tmp_path, kind):
    project = Project(tmp_path / "project")
    for number in range(4):
        project.drop(f"{number}", rows(*((user, number * 10 + user, 1.0) for user in range(8))))
        project.definitions().refresh("spend", options=Options(layout=Layout(part_rows=8)))
    folder = tmp_path / "table"
    parts = [
        part.hash
        for version in project.store.versions("spend")
        for part in project.store.manifest("spend", version).parts
    ]
    exported = export(project.store, "spend", target_at(kind, str(folder)))
    assert exported.files == len(set(parts)) < len(parts)
    assert same(snapshots(kind, folder)[-1], project.store.read("spend"))


def test_a_rollback_is_a_snapshot_too_so_that_the_newest_is_what_is_served(project, tmp_path, kind):
    store, folder = project.store, tmp_path / "table"
    export(store, "spend", target_at(kind, str(folder)))
    rollback(store, "spend", "1.0.0")
    assert list(map(str, export(store, "spend", target_at(kind, str(folder))).versions)) == [
        "1.0.0"
    ]
    assert same(snapshots(kind, folder)[-1], store.read("spend", "1.0.0"))
    assert export(store, "spend", target_at(kind, str(folder))).versions == ()
    project.drop("next", rows((3, 9.0, 5.0)))
    project.build()
    assert list(map(str, export(store, "spend", target_at(kind, str(folder))).versions)) == [
        "1.0.3"
    ]
    assert same(snapshots(kind, folder)[-1], store.read("spend"))
    assert same(snapshots(kind, folder)[1], store.read("spend", "1.0.1"))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["file.synced", "export.files_written", "export.written"])
def test_an_export_whose_process_is_killed_anywhere_goes_on(project, tmp_path, kind, place):
    store, folder, nth = project.store, tmp_path / "table", 1
    while killed(project.root, "export", place, nth, kind, str(folder)):
        for version, table in zip(store.versions("spend"), snapshots(kind, folder), strict=False):
            assert same(table, store.read("spend", str(version)))
        nth += 1
    export(store, "spend", target_at(kind, str(folder)))
    tables = snapshots(kind, folder)
    assert len(tables) == 3
    for version, table in zip(store.versions("spend"), tables, strict=True):
        assert same(table, store.read("spend", str(version)))


def test_columns_that_come_go_and_change_their_type_are_those_of_their_snapshot(
    project, tmp_path, kind
):
    store, folder = project.store, tmp_path / "table"

    def plain(df: pl.DataFrame) -> pl.DataFrame:
        return df.select("user_id", "at", "amount")

    def wider(df: pl.DataFrame) -> pl.DataFrame:
        return df.select("user_id", "at", amount=pl.col("amount").cast(pl.String), shop=pl.lit("a"))

    for function in (plain, wider, plain):
        project.definitions(project.define(function, metrics=[])).build()
        export(store, "spend", target_at(kind, str(folder)))
    tables = snapshots(kind, folder)
    for version, table in zip(store.versions("spend"), tables, strict=True):
        expected = store.read("spend", str(version))
        assert set(table.columns) == set(expected.columns)
        assert same(table, expected)


def test_values_of_every_type_come_back(project, tmp_path, kind):
    def typed(df: pl.DataFrame) -> pl.DataFrame:
        amount = pl.col("amount")
        return df.select(
            "user_id",
            "at",
            small=amount.cast(pl.Int8),
            unsigned=amount.cast(pl.UInt32),
            large=pl.lit(2**64 - 1, pl.UInt64),
            flag=amount > 1,
            day=pl.col("at").dt.date(),
            naive=pl.col("at").dt.replace_time_zone(None),
            decimal=amount.cast(pl.Decimal(20, 3)),
            text=amount.cast(pl.String),
            several=pl.concat_list(amount, amount),
            both=pl.struct(a=amount, b=amount.cast(pl.Int16)),
            none=pl.lit(None, pl.Float64),
        )

    project.definitions(project.define(typed, metrics=[], name="typed")).build()
    folder = tmp_path / "table"
    export(project.store, "typed", target_at(kind, str(folder)))
    expected = project.store.read("typed")
    [table] = snapshots(kind, folder)
    assert table.sort("user_id", "at").select("user_id", "at", "several", "both").rows() == (
        expected.sort("user_id", "at").select("user_id", "at", "several", "both").rows()
    )
    flat = expected.drop("several", "both")
    assert same(table.select(flat.columns), flat)


def test_a_column_that_tables_do_not_have_is_named(project, tmp_path, kind):
    def timed(df: pl.DataFrame) -> pl.DataFrame:
        return df.select("user_id", "at", since=pl.col("at").dt.time())

    project.definitions(project.define(timed, metrics=[], name="timed")).build()
    with pytest.raises(DataError, match="column 'since' is time64"):
        export(project.store, "timed", target_at(kind, str(tmp_path / "table")))


def test_a_table_of_somebody_else_is_not_written_over(project, tmp_path):
    folder = tmp_path / "table"
    write_deltalake(folder, rows((1, 0.0, 1.0)))
    with pytest.raises(UnsupportedStore, match="was not made by an export"):
        export(project.store, "spend", target_at("delta", str(folder)))
    assert DeltaTable(folder).version() == 0


def test_an_export_of_another_feature_or_store_is_not_written_over(project, tmp_path, kind):
    folder = tmp_path / "table"
    export(project.store, "spend", target_at(kind, str(folder)))
    project.definitions(project.define(name="other")).build()
    with pytest.raises(UnsupportedStore, match="is an export of spend from the store"):
        export(project.store, "other", target_at(kind, str(folder)))
    elsewhere = project.on(LocalStore(tmp_path / "elsewhere"))
    elsewhere.build()
    with pytest.raises(UnsupportedStore, match="is an export of spend from the store"):
        export(elsewhere.store, "spend", target_at(kind, str(folder)))
    project.store.rename("spend", "spending")
    assert export(project.store, "spending", target_at(kind, str(folder))).versions == ()


def test_of_two_exports_at_once_one_is_told_to_run_again(project, tmp_path, kind):
    store, folder = project.store, tmp_path / "table"
    slow, quick = (target_at(kind, str(folder)) for _ in range(2))
    failpoints.arm(
        "export.files_written", lambda: (failpoints.disarm(), export(store, "spend", quick))
    )
    try:
        with pytest.raises(VersionConflict, match="run the same command again"):
            export(store, "spend", slow)
    finally:
        failpoints.disarm()
    assert export(store, "spend", target_at(kind, str(folder))).versions == ()
    assert len(snapshots(kind, folder)) == 3


def test_the_command_exports_and_says_what(project, tmp_path, kind, capsys):
    words = ["export", "spend", f"--{kind}", str(tmp_path / "table")]
    store = ["--store", str(project.root / "store")]
    assert main([*words, *store]) == 0
    assert "3 snapshots with" in capsys.readouterr().out
    assert main([*words, *store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["versions"] == []
    assert main(["export", "spend", f"--{kind}", "ftp://x/y", *store]) == 1
    assert "neither a folder nor an address" in capsys.readouterr().err


def test_a_place_where_no_table_can_be_is_told_in_words(project, tmp_path, kind, capsys):
    store = ["--store", str(project.root / "store")]
    (tmp_path / "file").write_text("text")
    for name in ("_delta_log/00000000000000000000.json", "metadata/v1.metadata.json"):
        (tmp_path / "junk" / name).parent.mkdir(parents=True)
        (tmp_path / "junk" / name).write_text("junk")
    for place in ("file", "junk"):
        assert main(["export", "spend", f"--{kind}", str(tmp_path / place), *store]) == 1
        assert capsys.readouterr().err.startswith("mlforge: error: ")


def test_lineage_shows_a_table_until_its_folder_is_gone(project, tmp_path, kind):
    store, folder = project.store, tmp_path / "table"
    export(store, "spend", target_at(kind, str(folder)))
    export(store, "spend", target_at(kind, str(tmp_path / "other")))
    table = Node(TABLE, f"{kind}:{folder}")
    assert store.books("spend").exports[table.name].version == "1.0.2"
    definitions = project.definitions()
    assert graph_of(definitions).made_from(table) == [Node(FEATURE, "spend")]
    store.rename("spend", "spent")
    shutil.rmtree(tmp_path / "other")
    [user] = graph_of(definitions).users(Node(FEATURE, "spent"))
    assert user == table
    check_unused(definitions, "spent")  # a table is whole without the feature


def test_a_store_that_takes_no_notes_fails_no_export(project, tmp_path, kind, monkeypatch, capsys):
    def refuse(name, books):
        raise StoreError("read-only file system")

    monkeypatch.setattr(project.store, "write_books", refuse)
    exported = export(project.store, "spend", target_at(kind, str(tmp_path / "table")))
    assert len(exported.versions) == 3
    assert "export not noted for lineage" in capsys.readouterr().err


def test_an_iceberg_export_that_was_killed_before_its_first_document_goes_on(project, tmp_path):
    folder = tmp_path / "table"
    (folder / "metadata").mkdir(parents=True)
    (folder / "metadata" / "0-m0.avro").write_bytes(b"what a commit writes first")
    export(project.store, "spend", target_at("iceberg", str(folder)))
    assert len(snapshots("iceberg", folder)) == 3


def test_a_table_of_which_somebody_else_has_deleted_rows_is_refused(project, tmp_path, kind):
    folder = tmp_path / "table"
    export(project.store, "spend", target_at(kind, str(folder)))
    if kind == "delta":
        table = DeltaEvents(folder)
        table.delete_by_vector(table.paths()[0], [0])
    else:
        target = IcebergTarget(str(folder))
        target.written()
        own, commits = target._table, _catalog(target._folder, target._commit)
        there = IcebergTable(own.name(), own.metadata, own.metadata_location, own.io, commits)
        [task, *_] = there.scan().plan_files()
        delete_rows_at(there, task.file.file_path, [0])
    for _ in range(2):
        with pytest.raises(UnsupportedStore, match="somebody else has deleted rows"):
            export(project.store, "spend", target_at(kind, str(folder)))
        project.drop("later", rows((9, 9.0, 1.0)))
        project.build()


def test_a_release_of_pyiceberg_that_lacks_what_is_needed_of_it_is_told(
    project, tmp_path, monkeypatch
):
    from pyiceberg.catalog import Catalog

    project.build()
    monkeypatch.delattr(Catalog, "_convert_schema_if_needed")
    with pytest.raises(
        MissingExtra, match=r"pyiceberg [\d.]+ has no _convert_schema_if_needed any more"
    ):
        export(project.store, "spend", target_at("iceberg", str(tmp_path / "out")))
