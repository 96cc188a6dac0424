"""A store in a bucket whose server refuses: it is asked again within bounds, else told why, and nothing is half visible."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlforge.errors import BuildError, StoreError
from mlforge.store import ObjectStore
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
    """Writes are refused from the nth on; as a 404 of a read is what a missing object is, too, reads are left alone."""
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


@pytest.mark.slow
def test_a_server_that_never_has_time_is_given_up_within_bounds_and_says_so(project, server):
    server.refuse = lambda method, path: (503, "SlowDown")
    with pytest.raises(StoreError, match=r"overloaded.*let fewer machines ask"):
        project.store.pointer("spend")
