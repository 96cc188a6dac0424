"""Listings of a bucket that tell what was there a while ago, as those of a proxy or of a slow replica may."""

from __future__ import annotations

import time
from collections.abc import Iterator

import polars as pl
import pytest

from mlforge import Feature
from mlforge.store.objects import bucket as buckets
from mlforge.store.objects.bucket import Bucket
from mlforge.store.objects.objects import Entry, Objects
from tests.support.contents import as_parquet
from tests.support.gcs_server import google
from tests.support.objects import MemoryObjects, only_bucket
from tests.support.projects import Project, column, rows

DROPS = "s3://shop/drops/"


class LateObjects(MemoryObjects):
    """A bucket whose listings can stand still, while its objects are read as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Entry] | None = None

    def stand_still(self) -> None:
        self.shown = super().entries("")

    def entries(self, folder: str) -> list[Entry]:
        now = super().entries(folder)
        return now if self.shown is None else [e for e in self.shown if e.key.startswith(folder)]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> LateObjects:
    return only_bucket(monkeypatch, LateObjects())


@pytest.fixture(params=[True, False], ids=["by file", "whole"])
def project(request: pytest.FixtureRequest, tmp_path) -> Project:
    project = Project(tmp_path)
    project.spend = project.define(source=DROPS, incremental=request.param)
    return project


def put(bucket: Objects, name: str, frame: pl.DataFrame, folder: str = "drops") -> None:
    bucket.put(f"{folder}/{name}.parquet", as_parquet(frame))


def spent(project: Project) -> dict[int, float]:
    table = project.store.read("spend")
    return dict(zip(table["user_id"], column(table, "amount__sum__7d"), strict=True))


def test_a_listing_that_lacks_objects_that_count_removes_none_of_their_rows(bucket, project):
    put(bucket, "a", rows((1, 0.0, 1.0)))
    bucket.stand_still()
    put(bucket, "b", rows((2, 0.0, 2.0)))
    put(bucket, "date=2026-01-01/c", rows((3, 0.0, 3.0)))
    shown, bucket.shown = bucket.shown, None
    project.build(project.spend)
    bucket.shown = shown
    for _ in range(2):
        result = project.build(project.spend)
        assert (result.reason, result.quarantined) == ("unchanged", ())
    bucket.shown = []  # nothing at all
    assert project.build(project.spend).reason == "unchanged"
    bucket.shown = None
    assert project.build(project.spend).reason == "unchanged"
    assert spent(project) == {1: 1.0, 2: 2.0, 3: 3.0}


def test_an_object_that_is_not_listed_yet_comes_with_a_later_listing_and_once(bucket, project):
    put(bucket, "a", rows((1, 0.0, 1.0)))
    project.build(project.spend)
    bucket.stand_still()
    put(bucket, "b", rows((2, 0.0, 2.0)))
    assert project.build(project.spend).reason == "unchanged"
    bucket.shown = None
    assert project.build(project.spend).version == "1.0.1"
    assert project.build(project.spend).reason == "unchanged"
    assert spent(project) == {1: 1.0, 2: 2.0}


def test_an_object_that_is_listed_though_it_is_gone_counts_until_it_is_not(bucket, project):
    for user, name in enumerate("abc"):
        put(bucket, name, rows((user, 0.0, 1.0)))
        if name == "b":
            project.build(project.spend)
    bucket.stand_still()
    for name in "bc":  # known, and new
        del bucket.stored[f"drops/{name}.parquet"]
    result = project.build(project.spend)
    assert (result.quarantined, result.reason) == ((), "unchanged")
    assert spent(project) == {0: 1.0, 1: 1.0}
    bucket.shown = None
    project.build(project.spend)
    assert spent(project) == {0: 1.0}


def test_an_object_that_is_listed_as_it_was_before_counts_as_it_is_known(bucket, project):
    put(bucket, "a", rows((1, 0.0, 1.0)))
    put(bucket, "b", rows((2, 0.0, 2.0)))
    bucket.stand_still()
    put(bucket, "b", rows((2, 0.0, 5.0)))
    shown, bucket.shown = bucket.shown, None
    project.build(project.spend)
    bucket.shown = shown
    for _ in range(2):
        assert project.build(project.spend).reason == "unchanged"
    bucket.shown = None
    result = project.build(project.spend)
    assert (result.reason, result.quarantined) == ("unchanged", ())
    assert spent(project) == {1: 1.0, 2: 5.0}


def test_of_very_many_objects_that_went_a_thousand_are_asked_for(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr("mlforge.store.object_source._ASKED_FOR", 10)
    project = Project(tmp_path)
    spend = project.define(source=DROPS)
    for number in range(100):
        put(bucket, f"{number:02}", rows((number, 0.0, 1.0)))
    project.build(spend)
    for number in range(10, 100):
        del bucket.stored[f"drops/{number}.parquet"]
    bucket.requests.clear()
    project.build(spend)
    assert sum(deed == "look" for deed, *_ in bucket.requests) == 10
    assert project.store.read("spend").height == 10


def test_a_source_that_names_fewer_objects_than_before_asks_for_no_other(bucket, tmp_path):
    project = Project(tmp_path)
    put(bucket, "a", rows((1, 0.0, 1.0)))
    put(bucket, "date=2026-01-01/b", rows((2, 0.0, 1.0)))
    project.build(project.define(source=DROPS))
    narrower: Feature = project.define(source=f"{DROPS}*.parquet")
    project.build(narrower)
    assert project.store.read("spend")["user_id"].to_list() == [1]


def test_a_table_of_several_objects_is_whole_though_its_listing_lacks_one(bucket, tmp_path):
    project = Project(tmp_path)
    put(bucket, "a", rows((1, 0.0, 1.0), (2, 0.0, 1.0)))
    for user in (1, 2):
        put(bucket, f"{user}", pl.DataFrame({"user_id": [user], "rate": [2.0]}), "rates")

    def converted(df: pl.DataFrame, rates: pl.DataFrame) -> pl.DataFrame:
        joined = df.join(rates, on="user_id")
        return joined.select("user_id", "at", amount=pl.col("amount") * pl.col("rate"))

    spend = project.define(converted, source=DROPS, tables={"rates": "s3://shop/rates/"})
    project.build(spend)
    bucket.stand_still()
    bucket.shown = [entry for entry in bucket.shown if not entry.key.endswith("rates/2.parquet")]
    assert project.build(spend).reason == "unchanged"
    assert spent(project) == {1: 2.0, 2: 2.0}


@pytest.fixture
def slow_listings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket whose first answer to a listing takes longer than its client waits."""
    monkeypatch.setattr(buckets, "_CLIENT", {**buckets._CLIENT, "timeout": "1s"})
    asked: list[str] = []

    def wait(method: str, path: str) -> None:
        if "list-type" in path:
            asked.append(path)
            if len(asked) == 2:
                time.sleep(2)

    with google() as server:
        server.refuse = wait
        yield only_bucket(monkeypatch, Bucket("gs://shop", server.options))


@pytest.mark.slow
def test_a_listing_that_takes_longer_than_is_waited_for_is_asked_for_again(slow_listings, tmp_path):
    project = Project(tmp_path)
    spend = project.define(source="gs://shop/drops/")
    for user, name in enumerate("ab"):
        put(slow_listings, name, rows((user, 0.0, 1.0)))
        assert project.build(spend).changed
    assert spent(project) == {0: 1.0, 1: 1.0}
