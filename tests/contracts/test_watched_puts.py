"""Rows that are written in transactions behind a watch of the books, and by the script where these are refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import redis

from mlforge.errors import StalePush
from mlforge.frames.encoding import key_hash
from mlforge.online import RedisStore
from mlforge.online import chunks as chunking
from mlforge.online.chunks import Rows
from mlforge.online.redis import watched_puts
from mlforge.online.redis.layouts import Write
from mlforge.testing.online_values import NEW, OLD, frame

USERS = range(1, 8)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture(params=[None, 1_000], ids=["for ever", "with a life"])
def store(request: Any, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisStore]:
    """A store that writes two rows in a chunk, and two chunks in a transaction."""
    monkeypatch.setattr(chunking, "CHUNK", 2)
    monkeypatch.setattr(watched_puts, "_CHUNKS", 2)
    store = RedisStore.from_url(redis_url, ttl=request.param)
    yield store
    store.close()


def written(client: redis.Redis) -> list[int]:
    keys = {user: f"mlforge:spend:{key_hash({'user_id': user})}" for user in USERS}
    return [user for user, key in keys.items() if client.exists(key)]


def calls(client: redis.Redis, command: str) -> int:
    return int(client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))


def test_rows_are_written_by_no_script(store: RedisStore, client: redis.Redis) -> None:
    store.begin("spend", OLD)
    scripts, transactions = calls(client, "eval"), calls(client, "exec")
    assert store.put("spend", OLD, frame(*USERS), ["user_id"]) == len(USERS)
    assert (calls(client, "eval"), calls(client, "exec")) == (scripts, transactions + 2)
    assert written(client) == [*USERS]
    if store.ttl:
        assert 0 < client.pttl("mlforge:spend") <= store.ttl * 500
        assert client.pttl(f"mlforge:spend:{key_hash({'user_id': 7})}") > store.ttl * 900


def test_rows_beyond_a_few_transactions_are_left_to_the_script(
    store: RedisStore, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_puts, "_TRANSACTIONS", 1)
    store.begin("spend", OLD)
    scripts = calls(client, "eval")
    assert store.put("spend", OLD, frame(*USERS), ["user_id"]) == len(USERS)
    assert calls(client, "eval") == scripts + 2
    assert written(client) == [*USERS]


@pytest.mark.parametrize("amid", [0, 1], ids=["the first", "the second"])
def test_a_newer_push_that_begins_amid_a_transaction_makes_it_void(
    store: RedisStore,
    redis_url: str,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    amid: int,
) -> None:
    newer, transactions, rows_of = RedisStore.from_url(redis_url), count(), watched_puts._rows

    def overtaken(write: Write, block: list[Rows]) -> bytes:
        if next(transactions) == amid:
            newer.begin("spend", NEW)
        return rows_of(write, block)

    store.begin("spend", OLD)
    monkeypatch.setattr(watched_puts, "_rows", overtaken)
    with pytest.raises(StalePush):
        store.put("spend", OLD, frame(*USERS), ["user_id"])
    assert written(client) == [*USERS][: 4 * amid]
    newer.put("spend", NEW, frame(*USERS), ["user_id"])
    assert written(client) == [*USERS]
    newer.close()


def test_books_that_are_touched_amid_a_transaction_and_stay_the_push_s_keep_no_row_back(
    store: RedisStore, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_of = watched_puts._rows

    def touched(write: Write, block: list[Rows]) -> bytes:
        client.hset("mlforge:spend", "losses", "")
        return rows_of(write, block)

    store.begin("spend", OLD)
    monkeypatch.setattr(watched_puts, "_rows", touched)
    assert store.put("spend", OLD, frame(*USERS), ["user_id"]) == len(USERS)
    assert written(client) == [*USERS]
    assert store.books("spend") is not None, "the connection is as it was"


def test_a_connection_that_redis_py_looks_after_is_the_same_throughout_a_transaction(
    store: RedisStore, redis_url: str, monkeypatch: pytest.MonkeyPatch, client: redis.Redis
) -> None:
    careful = RedisStore.from_url(f"{redis_url}?health_check_interval=1")
    newer, rows_of = RedisStore.from_url(redis_url), watched_puts._rows

    def slow(write: Write, block: list[Rows]) -> bytes:
        newer.begin("spend", NEW)
        time_passes(monkeypatch)
        return rows_of(write, block)

    careful.begin("spend", OLD)
    monkeypatch.setattr(watched_puts, "_rows", slow)
    with pytest.raises(StalePush):
        careful.put("spend", OLD, frame(*USERS), ["user_id"])
    assert written(client) == []
    careful.close()
    newer.close()


def test_a_connection_that_redis_py_looks_after_loses_no_reply_of_a_script(
    store: RedisStore, redis_url: str, monkeypatch: pytest.MonkeyPatch, client: redis.Redis
) -> None:
    careful = RedisStore.from_url(f"{redis_url}?health_check_interval=1&socket_timeout=1")
    monkeypatch.setattr(watched_puts, "_TRANSACTIONS", 0)
    careful.begin("spend", OLD)
    time_passes(monkeypatch)
    assert careful.put("spend", OLD, frame(*USERS), ["user_id"]) == len(USERS)
    assert written(client) == [*USERS]
    careful.close()


def time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a minute pass at each look at the clock."""
    real, looks = time.monotonic, count(1)
    monkeypatch.setattr(time, "monotonic", lambda: real() + 60 * next(looks))


@pytest.mark.parametrize("lacking", ["watch", "multi", "msetex"])
def test_a_user_without_the_right_to_a_command_writes_by_the_script_from_then_on(
    store: RedisStore, redis_url: str, client: redis.Redis, lacking: str
) -> None:
    rights = {"categories": ["+@all"], "keys": ["*"], "nopass": True, "enabled": True}
    client.acl_setuser("few", commands=[f"-{lacking}"], **rights)
    few = RedisStore.from_url(redis_url.replace("://", "://few:any@"), ttl=1_000)
    try:
        few.begin("spend", OLD)
        for amount in (1.5, 2.5):
            scripts = calls(client, "eval")
            rows = frame(*USERS, amount=amount)
            assert few.put("spend", OLD, rows, ["user_id"]) == len(USERS)
            assert calls(client, "eval") == scripts + 4
        assert written(client) == [*USERS]
        assert not few._server.writes_watched
    finally:
        few.close()
        client.acl_deluser("few")
