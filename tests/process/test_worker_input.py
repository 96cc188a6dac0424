"""What lies in Redis is input: a worker refuses what is no job, and status shows what it cannot read."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from mlforge.core import clock
from mlforge.core.values import SECOND_US, to_iso
from tests.support.workers import Shop, eventually, purchases, write
from worker.monitor.feature_status import FeatureStatus
from worker.monitor.screen import render
from worker.monitor.status import gather
from worker.queue import JobQueue, queue_of
from worker.queue.rq_queue import LIFE, MARK
from worker.state.presence import Presence
from worker.state.work_queue import WorkQueue

NOW = "2024-01-01T00:00:00.000000Z"
KWARGS = {"feature": "spend", "definitions": "x", "definitions_hash": "y"}
DATA = json.dumps(["worker.queue.refresh_job.refresh", None, [], KWARGS])
DEEP = "[" * 200_000

HASHES: dict[str, dict[str, Any]] = {
    "timeout": {"timeout": "abc"},
    "timeout_negative": {"timeout": "-5"},
    "timeout_endless": {"timeout": "-1"},
    "timeout_huge": {"timeout": "9" * 30},
    "timeout_nan": {"timeout": "nan"},
    "status": {"status": "evil"},
    "created_at": {"created_at": "yesterday"},
    "result_ttl": {"result_ttl": "soon"},
    "failure_ttl": {"failure_ttl": b"\xff"},
    "origin": {"origin": b"\xff\xfe"},
    "description": {"description": b"\xff"},
    "worker_name": {"worker_name": b"\xff"},
    "field_not_utf8": {b"\xff": b"\xff"},
    "dependencies": {"dependency_ids": "no json"},
    "dependencies_deep": {"dependency_ids": DEEP},
    "depends": {"dependency_ids": '["other"]'},
    "callback": {"success_callback_name": b"\xff"},
    "callback_timeout": {"success_callback_timeout": "x"},
    "meta": {"meta": b"\xff"},
    "data_not_json": {"data": b"\x80\x04\x95"},
    "data_deep": {"data": DEEP},
    "data_number": {"data": "1"},
    "data_empty": {"data": ""},
    "another_function": {"data": json.dumps(["os.getcwd", None, [], {}])},
    "no_arguments": {"data": json.dumps(["worker.queue.refresh_job.refresh", None, [], {}])},
    "list_arguments": {"data": json.dumps(["worker.queue.refresh_job.refresh", None, [], [1]])},
    "number_argument": {
        "data": json.dumps(["worker.queue.refresh_job.refresh", None, [], {**KWARGS, "feature": 5}])
    },
}


def serves_on(shop: Shop, user: int) -> None:
    """A drop is served by the worker that there is."""
    write(shop.folder / f"drops/{user}.parquet", purchases((user, 0, 1.0)))
    eventually(lambda: shop.online("spend", user))
    assert all(process.poll() is None for process in shop.processes)


def queue_key(shop: Shop) -> str:
    return f"rq:queue:{queue_of(shop.project.scope)}"


def test_a_worker_goes_on_after_jobs_that_are_none(shop: Shop) -> None:
    client, key = shop.project.redis, queue_key(shop)
    for name, change in HASHES.items():
        whole = {"data": DATA, "created_at": NOW, "origin": key.removeprefix("rq:queue:"), **change}
        client.hset(f"rq:job:{name}", mapping=whole)
        client.rpush(key, name)
    eventually(lambda: not client.llen(key))
    serves_on(shop, 11)
    eventually(lambda: not client.llen(f"{key}:intermediate"))
    refused = {entry["job"] for entry in shop.log("job refused")}
    assert set(HASHES) - {"meta"} <= refused | {"meta"}


@pytest.mark.parametrize(
    "entry", [b"\xff\xfe", b"", b"a:b", b"../x", b"a b", b"x" * 5_000, b"a\x1b[2Jb", b"*"]
)
def test_an_entry_of_the_queue_that_is_no_id_is_taken_away(shop: Shop, entry: bytes) -> None:
    client, key = shop.project.redis, queue_key(shop)
    client.rpush(key, entry)
    eventually(lambda: not client.llen(key))
    eventually(lambda: entry not in client.lrange(f"{key}:intermediate", 0, -1))
    serves_on(shop, 12)


def test_a_job_whose_key_is_of_another_type_is_refused(shop: Shop) -> None:
    client, key = shop.project.redis, queue_key(shop)
    client.set("rq:job:text", "x")
    client.rpush(key, "text", "nothing-there")
    eventually(lambda: not client.llen(key))
    serves_on(shop, 13)


@pytest.mark.slow
def test_what_cannot_be_read_in_the_registries_ends_no_worker(shop: Shop) -> None:
    client, name = shop.project.redis, queue_of(shop.project.scope)
    client.lpush(f"rq:queue:{name}:intermediate", b"\xff")
    client.zadd(f"rq:wip:{name}", {b"\xff\xff": 1})
    client.sadd(f"rq:workers:{name}", b"rq:worker:\xff")
    eventually(lambda: shop.log("cannot go on with the queue"))
    serves_on(shop, 14)
    for key in (f"rq:queue:{name}:intermediate", f"rq:wip:{name}"):
        client.delete(key)
    client.srem(f"rq:workers:{name}", b"rq:worker:\xff")


TICKETS: dict[str, Callable[[Redis, str], object]] = {
    "a number that is none": lambda client, key: client.hset(key, "wanted", "abc"),
    "a negative number": lambda client, key: client.hset(key, "served", "-1"),
    "a huge number": lambda client, key: client.hset(key, "wanted", "9" * 400),
    "a field that is no text": lambda client, key: client.hset(key, "reason", b"\xff"),
    "a name that is no text": lambda client, key: client.hset(key, b"\xff", b"x"),
    # In one transaction: a worker may write its ticket between the two.
    "a list": lambda client, key: client.pipeline().delete(key).rpush(key, "x").execute(),
    "a text": lambda client, key: client.set(key, DEEP),
}


@pytest.mark.parametrize("what", TICKETS)
def test_a_ticket_that_cannot_be_read_is_made_anew_and_drops_are_served(
    shop: Shop,
    what: str,
) -> None:
    client = shop.project.redis
    TICKETS[what](client, f"mlforge-work:{shop.project.scope}:ticket:spend")
    eventually(lambda: shop.log("ticket unreadable", feature="spend"))
    eventually(lambda: shop.ticket("spend").unreadable is None)
    serves_on(shop, 20 + list(TICKETS).index(what))


@pytest.mark.parametrize("forged", ["without expiry", "for ten years", "of another type"])
def test_a_lease_that_never_ends_is_overdue_like_any_other(shop: Shop, forged: str) -> None:
    client = shop.project.redis
    key = f"mlforge-work:{shop.project.scope}:ticket:spend"
    client.hset(key, "working", "forged")
    client.delete(f"{key}:lease")
    if forged == "without expiry":
        client.set(f"{key}:lease", "somebody")
    elif forged == "for ten years":
        client.set(f"{key}:lease", "somebody", ex=10 * 366 * 86_400)
    else:
        client.rpush(f"{key}:lease", "somebody")
    serves_on(shop, 30 + len(forged))
    eventually(lambda: shop.ticket("spend").working is None)


def feature_of(shop: Shop, name: str) -> FeatureStatus:
    [feature] = [each for each in gather(shop.project).features if each.feature == name]
    return feature


def test_status_shows_a_worker_that_it_cannot_read_and_goes_on(shop: Shop) -> None:
    client, name = shop.project.redis, queue_of(shop.project.scope)
    forged = {
        "a": {"birth": NOW, "pid": "x"},
        "b": {"birth": NOW, "last_heartbeat": "never", "mlforge_definitions": "x"},
        "c": {b"\xff": b"\xff"},
    }
    for worker, fields in forged.items():
        client.hset(f"rq:worker:{worker}", mapping=fields)  # type: ignore[arg-type]
        client.sadd(f"rq:workers:{name}", f"rq:worker:{worker}")
    client.set("rq:worker:d", "text")
    client.sadd(f"rq:workers:{name}", "rq:worker:d")
    try:
        workers = JobQueue(client, shop.project.scope).workers()
        unreadable = {worker.name for worker in workers if worker.unreadable is not None}
        assert {"a", "b", "c", "d"} <= unreadable
        shown = render(gather(shop.project))
        assert "worker a cannot be read" in shown
        assert "spend" in shown
    finally:
        for worker in "abcd":
            client.srem(f"rq:workers:{name}", f"rq:worker:{worker}")
            client.delete(f"rq:worker:{worker}")


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_worker_lives_whatever_the_clock_of_its_host_says(shop: Shop, hours: int) -> None:
    client, queue = shop.project.redis, JobQueue(shop.project.redis, shop.project.scope)
    told = {"birth": NOW, "last_heartbeat": to_iso(clock.now() + hours * 3_600 * SECOND_US)}
    told |= {MARK: shop.project.hash, LIFE: 80}
    names = eventually(lambda: [each.name for each in queue.workers() if each.is_ours])
    eventually(lambda: all(client.hexists(f"rq:worker:{name}", LIFE) for name in names))
    key = "rq:worker:elsewhere"
    client.hset(key, mapping=told)  # type: ignore[arg-type]
    client.sadd(f"rq:workers:{queue_of(shop.project.scope)}", key)
    for left_s, lives in ((80, True), (61, True), (59, False)):
        client.expire(key, left_s)
        assert ("elsewhere" in [each.name for each in queue.workers()]) is lives
    client.delete(key)


def test_status_shows_a_ticket_that_it_cannot_read_and_goes_on(
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = WorkQueue.read

    def forged(queue: WorkQueue, names: Any) -> Any:
        shop.project.redis.hset(f"mlforge-work:{shop.project.scope}:ticket:spend", "wanted", "abc")
        return read(queue, names)

    monkeypatch.setattr(WorkQueue, "read", forged)
    spend = feature_of(shop, "spend")
    assert spend.state == "unreadable"
    assert "'abc' is no count" in spend.unreadable[0]
    assert feature_of(shop, "slow").state != "unreadable"
    assert not gather(shop.project).is_well


BOOKS: dict[str, Callable[[Redis, str], object]] = {
    "a field that is no text": lambda client, key: client.hset(key, "target", b"\xff"),
    "a name that is no text": lambda client, key: client.hset(key, b"\xff", b"\xff"),
    "no target": lambda client, key: client.hset(key, "target", "abc"),
    "brackets": lambda client, key: client.hset(key, "columns", DEEP),
    "a number that is none": lambda client, key: client.hset(key, "rows", "abc"),
    # In one transaction: a worker may write its ticket between the two.
    "a list": lambda client, key: client.pipeline().delete(key).rpush(key, "x").execute(),
    "a text": lambda client, key: client.set(key, "x"),
}


@pytest.mark.parametrize("what", BOOKS)
def test_books_that_cannot_be_read_stop_neither_status_nor_other_features_and_are_made_anew(
    shop: Shop,
    what: str,
) -> None:
    client = shop.project.redis
    serves_on(shop, 50)
    BOOKS[what](client, "mlforge:spend")
    assert render(gather(shop.project))
    write(shop.folder / f"slow/{len(what)}.parquet", purchases((len(what), 0, 1.0)))
    eventually(lambda: shop.online("slow", len(what)))
    watcher = eventually(shop.project.presence.read)
    eventually(lambda: shop.project.presence.read().parts[1].age_s < 3)
    assert list(watcher.problems()) == []
    eventually(lambda: feature_of(shop, "spend").state != "unreadable" and shop.online("spend", 50))


def test_figures_and_entries_that_nobody_of_us_wrote_are_left_out(shop: Shop) -> None:
    client, journal, counts = shop.project.redis, shop.project.event_log, shop.project.counts
    client.rpush(
        f"mlforge-work:{shop.project.scope}:freshness:nobody", "abc", "nan", "7.5", b"\xff"
    )
    freshness = journal.freshness("nobody")
    assert freshness is not None
    assert (freshness.count, freshness.p50) == (1, 7.5)
    client.hset(
        f"mlforge-work:{shop.project.scope}:counts:nobody", mapping={"drops": "x", "pushes": "2"}
    )
    assert "drops" not in counts.read("nobody")
    assert counts.read("nobody")["pushes"] == 2.0
    since = journal.last_id()
    forged = [
        client.xadd(f"mlforge-work:{shop.project.scope}:journal", fields).decode()  # type: ignore[arg-type]
        for fields in ({"a": "b"}, {"kind": "x", "feature": "", "details": DEEP}, {"kind": b"\xff"})
    ]
    kinds = {entry.id: entry.kind for entry in journal.read(since)}  # the shop writes beside them
    assert [kinds[id] for id in forged] == ["unreadable"] * 3


def test_the_watcher_reports_and_status_says_when_it_does_not(
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watcher = eventually(shop.project.presence.read)
    assert {part.work for part in watcher.parts} == {"watch", "reconcile"}
    assert list(watcher.problems()) == []
    now = Presence._now
    monkeypatch.setattr(Presence, "_now", lambda presence: now(presence) + 600)
    assert f"{watcher.where}) has not reported for 60" in render(gather(shop.project))


def test_a_report_that_no_watcher_wrote_is_none(shop: Shop) -> None:
    watcher = eventually(shop.project.presence.read)
    for report in ("no json", DEEP, "[]", '{"parts": 1}', b"\xff"):
        shop.project.redis.set(f"mlforge-work:{shop.project.scope}:watcher", report)
        read = shop.project.presence.read()
        # It reports each second, perhaps just now.
        assert read is None or read.where == watcher.where
    eventually(shop.project.presence.read)


@pytest.mark.slow
def test_a_worker_that_ends_without_being_asked_says_so_by_its_exit_code(shop: Shop) -> None:
    broken = (
        "from worker.queue import ForgeSimpleWorker as Kind\n"
        "from worker.connection import connect\n"
        "from worker.project import Settings\n"
        "def fault(self, *a, **o): raise {fault}\n"
        "from rq.exceptions import StopRequested\n"
        "Kind.dequeue_job_and_maintain_ttl = fault\n"
        "Kind(connection=connect(Settings.read().redis_url)).work()\n"
    )
    worker = shop.run([sys.executable, "-c", broken.format(fault="ValueError('x')")])
    assert worker.wait(60) == 1
    shop.processes.remove(worker)
    asked = shop.start("worker")
    workers = JobQueue(shop.project.redis, shop.project.scope).workers
    eventually(lambda: (asked.pid, "idle") in {(each.pid, each.state) for each in workers()})
    asked.terminate()
    assert asked.wait(60) == 0
    shop.processes.remove(asked)
