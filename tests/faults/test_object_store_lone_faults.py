"""One object for which no good answer comes, while its bucket answers for all others, and a bucket that is unwell as a whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import polars as pl
import pytest

from mlforge.errors import BuildError
from mlforge.maintenance.operations import verify
from mlforge.store import ObjectStore
from mlforge.store.objects import bucket as buckets
from mlforge.store.objects import refusals
from mlforge.store.objects.bucket import Bucket
from tests.support.contents import as_parquet
from tests.support.gcs_server import GoogleServer, google
from tests.support.objects import only_bucket
from tests.support.projects import Project, column, rows

DROPS = "gs://shop/drops/"
FAULTS = [
    (500, "InternalError"),
    pytest.param(503, "SlowDownRead", marks=pytest.mark.slow),
    pytest.param(502, "", marks=pytest.mark.slow),
]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleServer]:
    """A bucket of drops and of a store, whose client asks but once again by itself."""
    monkeypatch.setattr(buckets, "_RETRIES", {**buckets._RETRIES, "max_retries": 1})
    with google() as server:
        only_bucket(monkeypatch, Bucket("gs://shop", server.options))
        yield server


def put(server: GoogleServer, name: str, frame: pl.DataFrame) -> None:
    Bucket("gs://shop", server.options).put(f"drops/{name}.parquet", as_parquet(frame))


def failing(
    server: GoogleServer, is_failing: Callable[[str], bool], status: int = 500, code: str = ""
) -> list[str]:
    """Have reads of objects fail, and no listing; returns the paths that are asked for, as they come."""
    asked: list[str] = []

    def refuse(method: str, path: str) -> tuple[int, str] | None:
        if method != "GET" or "list-type" in path:
            return None
        asked.append(unquote(path))
        return (status, code) if is_failing(asked[-1]) else None

    server.refuse = refuse
    return asked


def healed(server: GoogleServer) -> None:
    server.refuse = lambda method, path: None


# Sources


@pytest.mark.parametrize(("status", "code"), FAULTS)
def test_an_object_that_alone_gets_no_answer_is_set_aside_and_the_others_count(
    server, tmp_path, status, code
):
    project = Project(tmp_path)
    spend = project.define(source=DROPS)
    put(server, "a", rows((1, 0.0, 1.0)))
    put(server, "b", rows((2, 0.0, 1.0)))
    project.build(spend)
    put(server, "b", rows((2, 1.0, 2.0)))  # written over
    put(server, "c", rows((3, 2.0, 3.0)))
    failing(server, lambda path: "b.parquet" in path, status, code)
    assert [bad.path for bad in project.build(spend).quarantined] == ["b.parquet"]
    values = project.store.read("spend")
    assert column(values, "amount__sum__7d") == [1.0, 1.0, 3.0]  # what it held before counts
    reason = project.store.books("spend").quarantine["b.parquet"].reason
    assert f"{status}" in reason
    assert "other objects of the bucket are read" in reason
    assert project.build(spend).reason == "unchanged"
    healed(server)
    assert project.build(spend).quarantined == ()
    assert column(project.store.read("spend"), "amount__sum__7d") == [1.0, 2.0, 3.0]


def test_while_no_object_gets_an_answer_the_feature_is_held_and_served_on(server, tmp_path):
    project = Project(tmp_path)
    spend = project.define(source=DROPS)
    put(server, "a", rows((1, 0.0, 1.0)))
    project.build(spend)
    put(server, "b", rows((2, 1.0, 2.0)))
    failing(server, lambda path: True)
    with pytest.raises(BuildError, match="gives no good answer"):
        project.build(spend)
    assert project.store.list_versions("spend") == ["1.0.0"]
    assert not project.store.books("spend").quarantine
    healed(server)
    assert project.build(spend).version == "1.0.1"


@pytest.mark.slow
def test_of_many_objects_without_an_answer_none_is_gone_on_without(server, tmp_path):
    project = Project(tmp_path)
    spend = project.define(source=DROPS)
    put(server, "good", rows((1, 0.0, 1.0)))
    project.build(spend)
    for number in range(11):
        put(server, f"bad{number}", rows((number, 1.0, 2.0)))
    failing(server, lambda path: "bad" in path)
    with pytest.raises(BuildError, match="gives no good answer"):
        project.build(spend)
    assert not project.store.books("spend").quarantine


def test_a_bucket_that_comes_back_is_not_taken_for_one_with_a_bad_object(server, tmp_path):
    """As it is away while an object is asked for, and there when another one is, the first is asked for again."""
    project = Project(tmp_path)
    spend = project.define(source=DROPS)
    put(server, "a", rows((1, 0.0, 1.0)))
    project.build(spend)
    put(server, "b", rows((2, 1.0, 2.0)))
    # The request, and the client's own second one.
    asked = failing(server, lambda path: len(asked) <= 2)
    assert project.build(spend).quarantined == ()
    assert ["a.parquet" in path for path in asked] == [False, False, True, False]


@pytest.mark.slow
def test_a_server_without_time_is_waited_for_whichever_object_it_was_asked_for(server, tmp_path):
    project = Project(tmp_path)
    spend = project.define(source=DROPS)
    put(server, "a", rows((1, 0.0, 1.0)))
    project.build(spend)
    put(server, "b", rows((2, 1.0, 2.0)))
    failing(server, lambda path: "b.parquet" in path, 503, "SlowDown")
    with pytest.raises(BuildError, match="overloaded"):
        project.build(spend)
    assert not project.store.books("spend").quarantine


# Stores


def on(server: GoogleServer, cache: Path) -> ObjectStore:
    return ObjectStore("gs://bucket/store", cache, server.options)


@pytest.mark.slow
def test_events_of_a_store_that_get_no_answer_are_computed_again(server, tmp_path):
    project, alone = Project(tmp_path / "project"), Project(tmp_path / "alone")
    project.store = on(server, tmp_path / "cache")
    for each in (project, alone):
        each.drop("a", rows((1, 0.0, 1.0), (2, 0.5, 2.0)))
        each.build()
        each.drop("b", rows((1, 1.0, 3.0)))
    shutil.rmtree(tmp_path / "cache")
    asked = failing(server, lambda path: "_partials" in path)
    project.store = on(server, tmp_path / "cache")
    assert project.build().version == alone.build().version == "1.0.1"
    assert any("_partials" in path for path in asked)
    assert project.store.read("spend").equals(alone.store.read("spend"))


@pytest.mark.slow
def test_verify_names_what_gets_no_answer_and_other_features_are_listed(server, tmp_path):
    project = Project(tmp_path / "project")
    project.store = on(server, tmp_path / "cache")
    project.drop("a", rows((1, 0.0, 1.0)))
    project.build(project.define())
    project.build(project.define(name="other"))
    failing(server, lambda path: "spend/_parts" in path)
    faults = verify(project.store, ["spend"])
    assert ["gives no good answer" in str(fault) for fault in faults] == [True]
    failing(server, lambda path: "spend/_latest" in path)
    store = on(server, tmp_path / "elsewhere")
    assert store.features() == ["other", "spend"]
    assert list(store.index()) == ["other"]


@pytest.mark.parametrize(
    ("told", "may_be"),
    [
        ("status code: 500 Internal Server Error: <Error><Code>InternalError</Code></Error>", True),
        ("status code: 503 Service Unavailable", True),
        ("status code: 503 Service Unavailable: <Error><Code>SlowDownRead</Code></Error>", True),
        ("error sending request", True),
        ("status code: 503 Slow Down: <Error><Code>SlowDown</Code></Error>", False),
        ("status code: 429 Too Many Requests", False),
        ("status code: 401 Unauthorized", False),
        ("status code: 400 Bad Request: <Error><Code>ExpiredToken</Code></Error>", False),
        ("status code: 404 Not Found: <Error><Code>NoSuchBucket</Code></Error>", False),
    ],
)
def test_whose_fault_a_failure_may_be(told, may_be):
    assert refusals.may_be_of_object(f"Generic S3 error: {told}") == may_be
