"""Fixtures that several contract tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlforge.online import RedisStore


@pytest.fixture
def online(redis_url: str) -> Iterator[RedisStore]:
    """An online store on the tests' own server, empty at first."""
    store = RedisStore.from_url(redis_url)
    yield store
    store.close()
