"""The tasks of a shared build in Redis: each is at work in one place, and none is lost."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest
from redis import Redis

from mlforge.build.tasks import BuildTask, TaskResult
from tests.support.workers import (
    eventually,
    redis,  # noqa: F401 - fixtures
    server,  # noqa: F401 - fixtures
)
from worker.queue import task_job
from worker.queue.intake import queue_named
from worker.queue.rq_queue import queue_of
from worker.queue.rq_runner import _see_through
from worker.state import shared_build
from worker.state.shared_build import Ended, SharedBuild

IDS = ["a", "b", "c"]


@pytest.fixture
def shared(redis: Redis) -> SharedBuild:  # noqa: F811
    made = SharedBuild.of(redis, "shop", IDS)
    made.offer({id: f"task {id}" for id in IDS})
    return made


def test_each_task_is_taken_once_and_the_build_knows_how_it_ended(shared: SharedBuild) -> None:
    taken = [
        shared.take("first"),
        shared.take("second"),
        shared.take("first"),
        shared.take("third"),
    ]
    assert taken == [*((id, f"task {id}") for id in IDS), None]

    shared.end("a", Ended("first"))
    shared.end("b", Ended("second", "DataError", "too large"))

    assert shared.ended() == {"a": Ended("first"), "b": Ended("second", "DataError", "too large")}
    assert shared.lost() == {}  # c is claimed


def test_a_task_whose_claim_is_no_longer_renewed_waits_again(
    shared: SharedBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_build, "CLAIM_MS", 500)
    monkeypatch.setattr(shared_build, "RENEW_S", 0.01)
    for _ in IDS:
        shared.take("dying")
    shared.end("a", Ended("dying"))
    with shared.renewed("b", "dying"):
        assert eventually(shared.lost, every=0.01) == {"c": 1}
        assert shared.lost() == {}
    again = shared.take("other")

    assert again is not None
    assert again.id == "c"
    assert eventually(shared.lost, every=0.01) in ({"b": 1}, {"c": 2}, {"b": 1, "c": 2})


def test_a_build_that_is_begun_again_passes_over_what_somebody_is_at_work_on(
    redis: Redis,  # noqa: F811
    shared: SharedBuild,
) -> None:
    assert shared.take("at work") == ("a", "task a")
    again = SharedBuild.of(redis, "shop", IDS)
    again.offer({id: f"task {id}" for id in IDS})

    assert [again.take("new"), again.take("new"), again.take("new")] == [
        ("b", "task b"),
        ("c", "task c"),
        None,
    ]
    shared.end("a", Ended("at work"))
    assert again.ended() == {"a": Ended("at work")}


def test_a_task_that_is_refused_waits_for_another_worker_and_all_is_forgotten_at_the_end(
    redis: Redis,  # noqa: F811
    shared: SharedBuild,
) -> None:
    assert shared.take("old") == ("a", "task a")
    shared.give_back("a", "old", "other definitions")

    assert shared.has_waiting()
    assert shared.take("new") == ("a", "task a")
    assert shared.refusals() == {"old": "other definitions"}
    assert all(redis.ttl(key) > 0 or b":claim:" in key for key in redis.keys("*build*"))
    shared.end("a", Ended("new"))
    shared.close()
    assert redis.keys("*build*") == []


@pytest.mark.timeout(30)
def test_a_build_that_the_server_knows_nothing_of_any_more_is_offered_again(
    redis: Redis,  # noqa: F811
) -> None:
    tasks = [
        BuildTask("spend", "hash", "store", "polars", "inputs", None, day, day + 1, 10, {})
        for day in range(3)
    ]
    by_id = {task.id: task for task in tasks}
    shared = SharedBuild.of(redis, "shop", [*by_id])
    ran: list[int] = []
    asked: list[str] = []

    def here(task: BuildTask) -> TaskResult:
        ran.append(task.start)
        if len(ran) == 1:
            shared.close()  # as a server forgets that is flushed, and as another process at the same build does at its end
        return TaskResult(task.id, (), 0, 0)

    _see_through(shared, by_id, here, lambda: asked.append(shared.id), 2)

    assert ran == [0, 0, 1, 2]
    assert asked == [shared.id] * 4


def test_a_worker_that_takes_no_part_asks_another_in_its_place_while_tasks_wait(
    redis: Redis,  # noqa: F811
    shared: SharedBuild,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = SimpleNamespace(job_timeout_s=60)
    at_work = SimpleNamespace(redis=redis, scope="shop", hash="mine", settings=settings)
    monkeypatch.setattr(task_job.project, "in_use", lambda: at_work)
    monkeypatch.setattr(task_job, "current_job_id", lambda: "task-1")
    monkeypatch.setattr(task_job, "PAUSE_S", 0)
    queue = queue_named(queue_of("shop"), redis)
    request = {"build": shared.id, "definitions": "shop", "definitions_hash": "theirs"}

    assert task_job.take_part(*request.values()) == "refused"
    assert [job.kwargs for job in queue.jobs] == [request]
    assert list(shared.refusals()) == [socket.gethostname()]

    for _ in IDS:
        shared.take("another")
    assert task_job.take_part(*request.values()) == "refused"
    assert len(queue.jobs) == 1  # nothing waits
    shared.close()
    assert task_job.take_part(*request.values()) == "nothing to do"
    assert shared.refusals() == {}
