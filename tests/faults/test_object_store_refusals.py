"""A store in a bucket whose server refuses: it is asked again within bounds, else told why, and nothing is half visible."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlforge.errors import BuildError, StoreError, StoreUnavailable
from mlforge.store import ObjectStore
from mlforge.store.objects.bucket import Bucket
from mlforge.store.objects.objects import Tag
from tests.support.gcs_server import GoogleServer, google
from tests.support.projects import Project, rows


@pytest.fixture
def server() -> Iterator[GoogleServer]:
    with google() as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, server: GoogleServer) -> Project:
    """A version in a bucket, and a drop that is not built yet."""
    project = Project(tmp_path / "project")
    project.store = on(server, tmp_path / "cache")
    project.drop("a", rows((1, 0.0, 1.0), (2, 0.5, 2.0)))
    project.build()
    project.drop("b", rows((1, 1.0, 3.0)))
    return project


def on(server: GoogleServer, cache: Path) -> ObjectStore:
    return ObjectStore("gs://bucket/store", cache, server.options)


def expected(project: Project, tmp_path: Path) -> object:
    alone = Project(tmp_path / "alone")
    for name, frame in (("a", rows((1, 0.0, 1.0), (2, 0.5, 2.0))), ("b", rows((1, 1.0, 3.0)))):
        alone.drop(name, frame)
        alone.build()
    return alone.store.read("spend").rows()


@pytest.mark.slow
def test_a_server_that_asks_to_slow_down_is_asked_again(project, server, tmp_path):
    asked: dict[tuple[str, str], int] = {}

    def once(method: str, path: str) -> tuple[int, str] | None:
        asked[method, path] = asked.get((method, path), 0) + 1
        return (503, "SlowDown") if asked[method, path] == 1 else None

    server.refuse = once
    assert project.build().version == "1.0.1"
    assert max(asked.values()) >= 2
    server.refuse = lambda method, path: None
    assert on(server, tmp_path / "other").read("spend").rows() == expected(project, tmp_path)


REFUSALS = {
    "credentials that expired": (400, "ExpiredToken", "have expired: renew them"),
    "a clock that is wrong": (403, "RequestTimeTooSkewed", "clock is wrong"),
    "a bucket that went away": (404, "NoSuchBucket", "there is no such bucket, or it is gone"),
    "rights that went away": (403, "AccessDenied", "the credentials that were found may not"),
}


@pytest.mark.parametrize("begins", [1, 4, 7])
@pytest.mark.parametrize("fault", REFUSALS)
def test_a_refusal_amid_a_build_is_told_and_the_last_version_goes_on(
    project, server, tmp_path, fault, begins
):
    """Writes are refused from the nth on."""
    status, code, says = REFUSALS[fault]
    writes = 0

    def refuse(method: str, path: str) -> tuple[int, str] | None:
        nonlocal writes
        writes += method == "PUT"
        return (status, code) if method == "PUT" and writes >= begins else None

    server.refuse = refuse
    told = ""
    try:
        assert project.build().version == "1.0.1"
    except BuildError as error:
        told = str(error)
    assert (says in told) == (writes >= begins)
    if told:
        elsewhere = on(server, tmp_path / "elsewhere")
        assert str(elsewhere.pointer("spend").version) == "1.0.0"
        assert elsewhere.read("spend").height == 2
    server.refuse = lambda method, path: None
    project.build()
    assert on(server, tmp_path / "other").read("spend").rows() == expected(project, tmp_path)


DEEDS: dict[str, Callable[[Bucket, Path], object]] = {
    "read": lambda bucket, here: bucket.read("a"),
    "download": lambda bucket, here: bucket.download("a", here / "a"),
    "look": lambda bucket, here: bucket.look("a"),
    "put": lambda bucket, here: bucket.put("a", b""),
    "create": lambda bucket, here: bucket.create("a", b""),
    "replace": lambda bucket, here: bucket.replace("a", b"", Tag(None, "1000")),
    "delete": lambda bucket, here: bucket.delete(["a", "b"]),
    "list": lambda bucket, here: bucket.entries(""),
    "list a level": lambda bucket, here: bucket.level(""),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_a_bucket_that_is_gone_is_told_from_an_object_that_is_gone(server, tmp_path, deed):
    server.refuse = lambda method, path: (404, "NoSuchBucket")
    with pytest.raises(StoreUnavailable, match="there is no such bucket, or it is gone: make it"):
        DEEDS[deed](Bucket("gs://bucket/store", server.options), tmp_path)


def test_a_build_whose_bucket_is_gone_says_so_and_goes_on_once_it_is_back(
    project, server, tmp_path
):
    """It was said that other writers change the feature all the time: their document was not there, and could not be made."""
    server.refuse = lambda method, path: (404, "NoSuchBucket")
    with pytest.raises(BuildError, match="there is no such bucket, or it is gone"):
        project.build()
    server.refuse = lambda method, path: None
    assert project.build().version == "1.0.1"
    assert on(server, tmp_path / "other").read("spend").rows() == expected(project, tmp_path)


@pytest.mark.slow
def test_a_server_that_never_has_time_is_given_up_within_bounds_and_says_so(project, server):
    server.refuse = lambda method, path: (503, "SlowDown")
    with pytest.raises(StoreError, match=r"overloaded.*let fewer machines ask"):
        project.store.pointer("spend")
