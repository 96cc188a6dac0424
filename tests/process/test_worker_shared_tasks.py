"""The tasks of a shared build in Redis: each is at work in one place, and none is lost."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from mlforge import Definitions
from mlforge.build.tasks import BuildTask, TaskResult
from mlforge.errors import DataError, RunnerUnavailable, TaskFailed, VersionConflict
from mlforge.store import LocalStore
from tests.support.workers import eventually
from worker.queue import task_job, task_sharing
from worker.queue.intake import queue_named
from worker.queue.rq_queue import queue_of
from worker.queue.rq_runner import RqRunner
from worker.queue.task_sharing import TaskSharing
from worker.service.embedded_redis import EmbeddedServer
from worker.state import shared_build
from worker.state.shared_build import Ended, SharedBuild

IDS = ["a", "b", "c"]


@pytest.fixture
def shared(redis: Redis) -> SharedBuild:
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
    redis: Redis,
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
    redis: Redis,
    shared: SharedBuild,
) -> None:
    assert shared.take("old") == ("a", "task a")
    shared.give_back("a", "old", "old", "other definitions")

    assert shared.has_waiting()
    assert shared.take("new") == ("a", "task a")
    assert shared.refusals() == {"old": "other definitions"}
    assert all(redis.ttl(key) > 0 or b":claim:" in key for key in redis.keys("*build*"))
    shared.end("a", Ended("new"))
    shared.close()
    assert redis.keys("*build*") == []


@pytest.mark.parametrize("ends", ["fails", "refuses"])
def test_a_worker_whose_claim_has_expired_leaves_the_task_to_whoever_has_it_now(
    redis: Redis,
    shared: SharedBuild,
    ends: str,
) -> None:
    assert shared.take("slow") == ("a", "task a")
    redis.delete(shared._claim + "a")  # as it does by itself after a while
    assert shared.lost() == {"a": 1}
    while (taken := shared.take("quick")) is not None and taken.id != "a":
        shared.end(taken.id, done(taken.id))

    if ends == "fails":
        shared.fail("a", "slow", "host", "OSError: no space left")
    else:
        shared.give_back("a", "slow", "host", "other definitions")

    assert not shared.has_waiting()
    assert shared.take_left("builder") is None
    assert redis.get(shared._claim + "a") == b"quick"
    assert shared.has_refused("host")


def three_tasks() -> dict[str, BuildTask]:
    tasks = [
        BuildTask("spend", "hash", "polars", {}, "store", "inputs", None, day, day + 1, 10)
        for day in range(3)
    ]
    return {task.id: task for task in tasks}


def done(task: str) -> Ended:
    """The end of a task that went well on a worker, with its result."""
    return Ended("worker", text=json.dumps(TaskResult(task, (), 0, 0).to_json()))


def see_through(sharing: TaskSharing, tasks: Iterable[str]) -> None:
    sharing.begin()
    for task in tasks:
        sharing.see_through(task)


@pytest.mark.timeout(30)
def test_a_result_is_there_as_soon_as_its_task_has_ended_while_others_wait(
    redis: Redis,
) -> None:
    by_id = three_tasks()
    shared = SharedBuild.of(redis, "shop", [*by_id])
    first, second, third = by_id
    ran: list[str] = []

    def here(task: BuildTask) -> TaskResult:
        ran.append(task.id)
        return TaskResult(task.id, (), 0, 0)

    sharing = TaskSharing(shared, by_id, here, list, 0)
    sharing.begin()
    sharing.see_through(first)
    assert ran == [first]

    [claimed, other] = shared.take("worker"), shared.take("worker")
    assert claimed is not None
    assert other is not None
    shared.end(second, done(second))
    assert sharing.see_through(second) == TaskResult(second, (), 0, 0)
    assert ran == [first]
    shared.end(third, Ended("worker", "DataError", "too large"))
    with pytest.raises(DataError, match="too large"):
        sharing.see_through(third)


@pytest.mark.timeout(30)
def test_a_build_that_the_server_knows_nothing_of_any_more_is_offered_again(
    redis: Redis,
) -> None:
    by_id = three_tasks()
    shared = SharedBuild.of(redis, "shop", [*by_id])
    ran: list[int] = []
    asked: list[str] = []

    def here(task: BuildTask) -> TaskResult:
        ran.append(task.start)
        if len(ran) == 1:
            shared.close()  # as a server forgets that is flushed, and as another process at the same build does at its end
        return TaskResult(task.id, (), 0, 0)

    see_through(TaskSharing(shared, by_id, here, lambda: asked.append(shared.id), 2), by_id)

    assert ran == [0, 1, 2]  # a task that was run here is not offered again
    assert asked == [shared.id] * 4


def test_a_worker_that_takes_no_part_says_so_and_leaves_asking_another_to_the_build(
    redis: Redis,
    shared: SharedBuild,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = SimpleNamespace(job_timeout_s=60)
    at_work = SimpleNamespace(redis=redis, scope="shop", hash="mine", settings=settings)
    monkeypatch.setattr(task_job.project, "in_use", lambda: at_work)
    monkeypatch.setattr(task_job, "current_job_id", lambda: "task-1")
    queue = queue_named(queue_of("shop"), redis)
    request = {"build": shared.id, "definitions": "shop", "definitions_hash": "theirs"}

    assert task_job.take_part(*request.values()) == "refused"
    assert task_job.take_part(*request.values()) == "refused"
    assert list(shared.refusals()) == [socket.gethostname()]
    assert queue.jobs == []  # it does not ask itself again
    assert [shared.take_declined(), shared.take_declined()] == [2, 0]

    shared.decline()
    shared.close()
    assert shared.take_declined() == 0
    assert task_job.take_part(*request.values()) == "nothing to do"
    assert shared.refusals() == {}


@pytest.mark.parametrize("waits", ["nothing", "refresh-1"])
def test_a_job_runs_one_task_after_the_other_until_another_job_waits(
    redis: Redis, shared: SharedBuild, monkeypatch: pytest.MonkeyPatch, waits: str
) -> None:
    queue, ran = queue_named(queue_of("shop"), redis), list[str]()

    def run_task(task: str) -> str:
        if waits != "nothing":
            redis.rpush(queue.key, waits)
        ran.append(task)
        return "{}"

    at_work = SimpleNamespace(
        redis=redis,
        scope="shop",
        hash="mine",
        settings=SimpleNamespace(job_timeout_s=60),
        definitions=SimpleNamespace(run_task=run_task),
        has_say=lambda: True,
    )
    monkeypatch.setattr(task_job.project, "in_use", lambda: at_work)
    monkeypatch.setattr(task_job, "current_job_id", lambda: "task-1")

    assert task_job.take_part(shared.id, "shop", "mine") == "task done"

    assert ran == [f"task {id}" for id in (IDS if waits == "nothing" else IDS[:1])]
    jobs = [entry.partition(b"-")[0].decode() for entry in redis.lrange(queue.key, 0, -1)]  # type: ignore[union-attr]
    assert jobs == ([] if waits == "nothing" else ["refresh", "task"])


@pytest.mark.timeout(30)
def test_workers_that_take_no_part_are_asked_again_more_and_more_seldom(
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by_id = three_tasks()
    shared = SharedBuild.of(redis, "shop", [*by_id])
    now_s, asked_at = 100.0, []
    monkeypatch.setattr(task_sharing, "time", SimpleNamespace(monotonic=lambda: now_s))

    def ask() -> None:
        asked_at.append(now_s)
        shared.decline()  # as the only worker there is does, each time

    sharing = TaskSharing(shared, by_id, lambda task: TaskResult(task.id, (), 0, 0), ask, 1)
    sharing.begin()
    for _ in range(200):
        sharing._ask_again()
        now_s += 1.0

    assert asked_at == [100, 100, 101, 103, 107, 115, 131, 163, 223, 283]
    sharing.see_through([*by_id][-1])
    assert len(asked_at) < 12


@pytest.mark.timeout(60)
@pytest.mark.parametrize("comes_back", [False, True])
def test_a_build_whose_server_goes_away_goes_on_alone_and_shares_again_once_it_is_back(
    tmp_path: Path, comes_back: bool
) -> None:
    with EmbeddedServer(tmp_path) as own:
        by_id = three_tasks()
        impatient = Redis.from_url(own.url, retry=Retry(NoBackoff(), 0))
        shared = SharedBuild.of(impatient, "shop", [*by_id])
        ran: list[int] = []
        asked: list[str] = []

        def here(task: BuildTask) -> TaskResult:
            ran.append(task.start)
            if len(ran) == 1:
                own.stop()
            if len(ran) == 2 and comes_back:
                own.start()
            return TaskResult(task.id, (), 0, 0)

        see_through(TaskSharing(shared, by_id, here, lambda: asked.append(shared.id), 1), by_id)

        # The task at which the server went away has been done, and the last one is least likely to be another's.
        assert ran == [0, 2, 1]
        assert len(asked) == (2 if comes_back else 1)
        if comes_back:
            assert shared.ended().keys() == {id for id, task in by_id.items() if task.start == 1}


def test_a_build_whose_server_is_gone_before_it_is_offered_says_that_nobody_is_there(
    tmp_path: Path,
) -> None:
    with EmbeddedServer(tmp_path) as own:
        impatient = Redis.from_url(own.url, retry=Retry(NoBackoff(), 0))
    shared = SharedBuild.of(impatient, "shop", IDS)

    with pytest.raises(RunnerUnavailable, match="does not answer"):
        TaskSharing(shared, three_tasks(), lambda task: pytest.fail("run"), list, 1).begin()


@pytest.mark.timeout(30)
def test_a_build_leaves_no_connection_to_the_workers_server(
    redis: Redis,
    server: EmbeddedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", server.url)
    runner = RqRunner(Definitions(LocalStore(tmp_path / "store"), []))
    before = len(redis.client_list())

    with pytest.raises(RunnerUnavailable, match="no worker of this project is there") as raised:
        list(runner.run([], lambda task: TaskResult(task.id, (), 0, 0)))

    assert raised.value is not None  # which holds on to all that the build had
    assert eventually(lambda: len(redis.client_list()) == before, every=0.01)


def test_a_task_that_ends_each_process_that_runs_it_is_named_after_three(
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_build, "CLAIM_MS", 20)
    monkeypatch.setattr(task_sharing, "_LOOK_S", 0.05)
    by_id = three_tasks()
    shared, workers = (SharedBuild.of(redis, "shop", [*by_id]) for _ in "ab")
    [deadly, *_] = by_id
    # The process that builds is busy with others.
    monkeypatch.setattr(shared, "take", lambda me: None)

    def ask() -> None:
        claimed = workers.take("worker")
        while claimed is not None and claimed.id != deadly:
            workers.end(claimed.id, done(claimed.id))
            claimed = workers.take("worker")

    def here(task: BuildTask) -> TaskResult:
        raise AssertionError(f"{task} is run by the process that builds")

    with pytest.raises(TaskFailed, match=f"{deadly[:12]} ended 3 processes"):
        see_through(TaskSharing(shared, by_id, here, ask, 1), by_id)


@pytest.mark.timeout(30)
def test_a_task_that_fails_on_three_workers_is_left_to_the_process_that_builds(
    redis: Redis,
) -> None:
    by_id = three_tasks()
    shared, workers = (SharedBuild.of(redis, "shop", [*by_id]) for _ in "ab")
    ran: list[str] = []

    def ask() -> None:
        for number in range(3):
            claimed = workers.take(f"worker {number}")
            assert claimed is not None
            assert claimed.id == next(iter(by_id))  # the task waits again, before the others
            workers.fail(
                claimed.id, f"worker {number}", f"worker {number}", "OSError: no space left"
            )
            assert workers.has_refused(f"worker {number}")
        assert workers.lost() == {}
        assert redis.llen(f"mlforge-work:shop:build:{shared.id}:left") == 1

    def here(task: BuildTask) -> TaskResult:
        ran.append(task.id)
        return TaskResult(task.id, (), 0, 0)

    see_through(TaskSharing(shared, by_id, here, ask, 1), by_id)

    assert ran == [*by_id]
    assert len(shared.refusals()) == 3


def test_an_error_of_the_data_ends_a_build_and_one_of_the_worker_ends_only_its_part(
    redis: Redis,
    shared: SharedBuild,
) -> None:
    raised: list[BaseException] = [OSError(28, "No space left on device"), DataError("too large")]

    def run_task(task: str) -> str:
        raise raised.pop(0)

    at_work: Any = SimpleNamespace(definitions=SimpleNamespace(run_task=run_task))
    for job, is_done in (("one", False), ("two", True)):
        claimed = shared.take(job)
        assert claimed is not None
        assert claimed.id == "a"
        assert task_job.run_claimed(at_work, shared, claimed, job, f"worker {job}") is is_done

    assert shared.ended() == {"a": Ended("worker two", "DataError", "too large")}
    assert shared.refusals() == {"worker one": "OSError: [Errno 28] No space left on device"}


def test_a_task_whose_build_ends_meanwhile_asks_nobody_else(
    redis: Redis,
    shared: SharedBuild,
) -> None:
    def run_task(task: str) -> str:
        shared.close()
        raise VersionConflict("no build has its tasks here")

    at_work: Any = SimpleNamespace(definitions=SimpleNamespace(run_task=run_task))
    claimed = shared.take("job")
    assert claimed is not None

    assert task_job.run_claimed(at_work, shared, claimed, "job", "worker")
    assert not shared.has_waiting()
    assert not shared.refusals()


def test_a_worker_that_has_refused_leaves_the_tasks_to_others(
    redis: Redis, shared: SharedBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.refuse("this", "its disk is full")
    monkeypatch.setattr(task_job, "current_worker", lambda: "this")
    at_work: Any = SimpleNamespace(redis=redis, scope="shop")
    assert task_job._run_waiting(at_work, shared, "job") == "refused"
    assert (shared.has_waiting(), shared.take_declined()) == (True, 1)
