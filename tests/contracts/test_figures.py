"""Figures and entries in Redis that only tell: work goes on whatever somebody wrote at their keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from redis import Redis, ResponseError

from worker.state.counters import Counts
from worker.state.event_log import EventLog
from worker.state.figures import add_or_begin_anew

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
        journal.write("refreshed", "spend", version="1.0.0")
        journal.record_freshness("spend", 7.5)
        counts.add("spend", {"pushes": 1}, fresh_s=0.2, steps_ms={"read": 3.0})
    assert [entry.kind for entry in journal.recent()][-2:] == ["refreshed", "refreshed"]
    freshness = journal.freshness("spend")
    assert freshness is not None
    assert freshness.count == 2
    read = counts.read("spend")
    assert (read["pushes"], read["freshness_sum"], read["steps"]) == (2.0, 0.4, 2.0)


def test_a_server_that_refuses_writes_loses_no_figures(client: Redis) -> None:
    def refused() -> None:
        raise ResponseError("MISCONF Redis is configured to save RDB snapshots")

    client.set("figures", "1")
    with pytest.raises(ResponseError, match="MISCONF"):
        add_or_begin_anew(client, "figures", refused)
    assert client.get("figures") == b"1"
