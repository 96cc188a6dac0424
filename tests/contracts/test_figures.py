"""Figures and entries in Redis that only tell: work goes on whatever somebody wrote at their keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from redis import Redis, ResponseError

from worker.state.counters import Counts
from worker.state.event_log import EventLog
from worker.state.figures import Addition, add_each

SCOPE = "scope"
LAST = f"{2**64 - 1}-{2**64 - 1}"
FORGED: dict[str, Callable[[Redis, str], object]] = {
    "text": lambda client, key: client.set(key, b"\xff"),
    "list": lambda client, key: client.rpush(key, "x"),
    "set": lambda client, key: client.sadd(key, "x"),
    "counter that is no number": lambda client, key: client.hset(key, "pushes", b"\xff"),
    "counter at its end": lambda client, key: client.hset(key, "pushes", 2**63 - 1),
    "sum that is no number": lambda client, key: client.hset(key, "freshness_sum", "abc"),
    "infinite sum": lambda client, key: client.hset(key, "freshness_sum", "inf"),
    "last possible entry": lambda client, key: client.xadd(key, {"a": "b"}, id=LAST),
}

REFUSAL = "return redis.error_reply('MISCONF Redis is configured to save RDB snapshots')"


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.mark.parametrize("forged", FORGED)
def test_what_cannot_be_added_to_is_begun_anew(forged: str, client: Redis) -> None:
    for key in ("journal", "freshness:spend", "counts:spend"):
        FORGED[forged](client, f"mlforge-work:{SCOPE}:{key}")
    journal, counts = EventLog(client, SCOPE), Counts(client, SCOPE)
    for _ in range(2):
        entry = journal.entry("refreshed", "spend", version="1.0.0")
        rise = counts.rise("spend", {"pushes": 1}, fresh_s=0.2, steps_ms={"read": 3.0})
        add_each(client, journal.drop_time("spend", 7.5), entry, rise)
    assert [entry.kind for entry in journal.recent()][-2:] == ["refreshed", "refreshed"]
    freshness = journal.freshness("spend")
    assert freshness is not None
    assert freshness.count == 2
    read = counts.read("spend")
    assert (read["pushes"], read["freshness_sum"], read["steps"]) == (2.0, 0.4, 2.0)


def test_a_server_that_refuses_writes_loses_no_figures(client: Redis) -> None:
    client.set("figures", "1")
    with pytest.raises(ResponseError, match="MISCONF"):
        add_each(client, Addition("figures", lambda pipeline: pipeline.eval(REFUSAL, 0)))
    assert client.get("figures") == b"1"
