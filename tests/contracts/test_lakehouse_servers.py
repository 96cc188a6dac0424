"""Tables with a log in a bucket of a real server: read as sources, and written by exports."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from pyiceberg.table import StaticTable

from mlforge.maintenance.exporting import export
from mlforge.store.lakehouse.targets import target_at
from tests.support.lake_tables import catalog_in
from tests.support.object_servers import BUCKET, Server, seaweed
from tests.support.projects import Project, rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::polars.exceptions.PerformanceWarning"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def project(tmp_path, monkeypatch, server) -> Project:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return Project(tmp_path / "project")


def built(project: Project, source: str) -> pl.DataFrame:
    project.definitions(project.define(source=source, metrics=[])).build()
    return project.store.read("spend")


def test_a_delta_table_in_a_bucket_is_a_source(project):
    url = f"s3://{BUCKET}/lake/delta"
    options = {"allow_http": "true"}
    write_deltalake(url, rows((1, 0.0, 1.0)), storage_options=options)
    assert built(project, f"delta:{url}")["user_id"].to_list() == [1]
    write_deltalake(url, rows((2, 1.0, 1.0)), mode="append", storage_options=options)
    assert built(project, f"delta:{url}")["user_id"].to_list() == [1, 2]
    DeltaTable(url, storage_options=options).delete("user_id = 1")
    assert built(project, f"delta:{url}")["user_id"].to_list() == [2]


def test_an_iceberg_table_in_a_bucket_is_a_source(project, tmp_path, server):
    url = f"s3://{BUCKET}/lake/iceberg"
    options = {"s3.endpoint": server.endpoint, "s3.region": "us-east-1", "warehouse": url}
    catalog = catalog_in(tmp_path, **options)
    catalog.create_namespace("lake")
    first = rows((1, 0.0, 1.0)).to_arrow()
    table = catalog.create_table("lake.spend", first.schema, location=url)
    table.append(first.cast(table.schema().as_arrow()))
    assert built(project, f"iceberg:{url}")["user_id"].to_list() == [1]
    table.append(rows((2, 1.0, 1.0)).to_arrow().cast(table.schema().as_arrow()))
    assert built(project, f"iceberg:{url}")["user_id"].to_list() == [1, 2]


@pytest.mark.parametrize("kind", ["delta", "iceberg"])
def test_an_export_to_a_bucket_is_read_back_from_there(project, kind, server):
    url = f"s3://{BUCKET}/exports/{kind}"
    for number in range(3):
        project.drop(str(number), rows((number, float(number), 1.0)))
        project.build()
        exported = export(project.store, "spend", target_at(kind, url))
        assert len(exported.versions) == 1
    versions = project.store.versions("spend")
    if kind == "delta":
        frames = [
            pl.scan_delta(url, version=n, storage_options={"allow_http": "true"}).collect()
            for n in range(3)
        ]
    else:
        options = {"s3.endpoint": server.endpoint, "s3.region": "us-east-1"}
        table = StaticTable.from_metadata(url, options)
        frames = [
            pl.from_arrow(table.scan(snapshot_id=each.snapshot_id).to_arrow())
            for each in table.history()
        ]
    for version, frame in zip(versions, frames, strict=True):
        expected = project.store.read("spend", str(version))
        assert (
            frame.sort("user_id", "at")
            .select(expected.columns)
            .equals(expected.sort("user_id", "at"))
        )
