"""Fixtures that several test files share."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator

import pytest
import redis
import structlog
from hypothesis import settings

from tests.support.clusters import Cluster, cluster
from tests.support.covering import beyond
from tests.support.order import longest_first
from tests.support.servers import running

# Modules are compiled once, also where the environment says to keep nothing: the processes that tests start would
# compile all of mlforge each time, and both processes of the run all tests.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# What is imported and collected stays: the garbage collector begins when the tests do.
gc.disable()

# The same examples in each run; `python -m tests.property.proof` draws new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Leave to the slow run what large products of parameters have beyond a covering part, and begin with what is long."""
    for item in beyond(items):
        item.add_marker(pytest.mark.slow)
    yield
    items[:] = longest_first(items)


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what was imported and collected: each full collection would look at all of it."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end what long runs counted, whichever process they ran in."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")


@pytest.fixture(autouse=True)
def _own_logs() -> Iterator[None]:
    """What a command configures of the logs ends with its test."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The URL of a real server that lives as long as the session."""
    with running() as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The URL of an empty database."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushdb()
    return redis_server


@pytest.fixture(scope="session")
def cluster_server() -> Iterator[Cluster]:
    """A real cluster of three that lives as long as the session."""
    with cluster() as made:
        yield made


@pytest.fixture
def empty_cluster(cluster_server: Cluster) -> Cluster:
    """The cluster, empty."""
    cluster_server.flush()
    return cluster_server
