"""Fixtures that several contract tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlforge.core import failpoints
from mlforge.online import RedisStore


@pytest.fixture
def online(redis_url: str) -> Iterator[RedisStore]:
    """An online store on the tests' own server, empty at first."""
    store = RedisStore.from_url(redis_url)
    yield store
    store.close()


@pytest.fixture
def decoded() -> Iterator[list[None]]:
    """An entry for each time that a file was decoded."""
    times: list[None] = []
    failpoints.arm("file.decoding", lambda: times.append(None))
    yield times
    failpoints.disarm()
