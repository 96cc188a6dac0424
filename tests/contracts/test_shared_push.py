"""A full push by tasks: JSON in and out, in any order, lost and run again, and the same rows as by one process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from mlforge import Definitions, get_online_features
from mlforge.core import clock
from mlforge.definitions.building import engine_of
from mlforge.errors import NotServed, RunnerUnavailable, StalePush, TaskRefused
from mlforge.metrics import Rolling
from mlforge.online import RedisStore, batches, shared_push
from tests.support.projects import Project, at, rows
from tests.support.scattered import SHAPES, SOME_SHAPES, USERS, Scattered, TaskKilledError, uneven

WALL = {"online_clock": "wall"}


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entities are cut into parts of about eight events, of which a task has two."""
    monkeypatch.setattr(batches, "EVENTS_HELD", 8)
    monkeypatch.setattr(shared_push, "PARTS", 2)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as connection:
        yield connection


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return uneven(tmp_path)


@pytest.fixture(autouse=True)
def now() -> Iterator[None]:
    with clock.fixed(at(9)):
        yield


def defined(
    project: Project, redis_url: str, prefix: str = "mlforge", **changes: Any
) -> Definitions:
    shape = {
        key: changes.pop(key)
        for key in tuple(changes)
        if key not in ("runner", "fallback", "distribute_above")
    }
    online = RedisStore.from_url(redis_url, prefix=prefix)
    options = {"distribute_above": 0, **changes} if changes else {}
    return project.definitions(project.define(**shape), online_store=online, **options)


def shared(project: Project, redis_url: str, runner: Scattered, **changes: Any) -> Definitions:
    """Definitions whose tasks are run by two other processes' ones; only pushes are shared."""
    runner.executors = [
        defined(project, redis_url, runner=runner, **changes).run_task for _ in "ab"
    ]
    return defined(project, redis_url, runner=runner, **changes)


def online_rows(client: redis.Redis, prefix: str = "mlforge") -> dict[bytes, bytes]:
    keys = [key for key in client.scan_iter(f"{prefix}:spend:*") if client.type(key) == b"string"]
    return {key.rpartition(b":")[2]: client.get(key) or b"" for key in keys}


@pytest.mark.parametrize("shape", SOME_SHAPES)
def test_tasks_in_any_order_write_the_rows_of_a_push_by_one_process(
    shape: str, project: Project, redis_url: str, client: redis.Redis
) -> None:
    home = defined(project, redis_url, prefix="home", **SHAPES[shape])
    home.refresh("spend")
    alone = home.push("spend")
    runner = Scattered(seed=len(shape))

    pushed = shared(project, redis_url, runner, **SHAPES[shape]).push("spend")

    assert online_rows(client) == online_rows(client, "home")
    assert pushed.written == alone.written == len(online_rows(client)) > 0
    assert pushed.full
    assert len(runner.tasks) > 1


def test_packed_rows_are_those_of_a_push_by_one_process(project: Project, redis_url: str) -> None:
    stores = {
        prefix: RedisStore.from_url(redis_url, prefix=prefix, layout="packed")
        for prefix in ("home", "away")
    }
    project.definitions(online_store=stores["home"]).build(online=True)
    runner = Scattered(seed=3)
    away = {"online_store": stores["away"], "runner": runner, "distribute_above": 0}
    runner.executors = [project.definitions(**away).run_task for _ in "ab"]

    assert project.definitions(**away).push("spend").written == USERS

    rows_of = [
        [store.read("spend", {"user_id": user}) for user in range(USERS)]
        for store in stores.values()
    ]
    assert rows_of[0] == rows_of[1]
    assert None not in rows_of[0]
    assert len(runner.tasks) > 1


def test_rows_that_are_of_no_entity_any_more_are_gone_after_a_shared_push(
    project: Project, redis_url: str, client: redis.Redis
) -> None:
    runner = Scattered(seed=1)
    defs = shared(project, redis_url, runner)
    assert isinstance(defs.online_store, RedisStore)
    defs.refresh("spend")
    defs.push("spend")
    before = online_rows(client)
    defs.online_store.write("spend", {"user_id": 99}, {"amount__sum__2d": 1.0})
    defs.online_store.forget("spend")

    pushed = defs.push("spend")

    assert (pushed.written, pushed.deleted) == (USERS, 1)
    assert online_rows(client) == before


def test_only_large_pushes_of_all_rows_are_shared(project: Project, redis_url: str) -> None:
    few = Scattered()
    small = shared(project, redis_url, few, distribute_above=1_000)
    small.refresh("spend")
    assert small.push("spend").full
    assert few.tasks == []
    project.drop("late", rows((1, 8.9, 3.0)))
    some = Scattered()
    large = shared(project, redis_url, some)
    large.refresh("spend")

    pushed = large.push("spend")

    assert (pushed.written, pushed.full) == (1, False)
    assert [task.kind for task in some.tasks if task.kind == "push"] == []


def written_late(run: Callable[[str], str], task: str) -> int | None:
    """The number of rows that a task wrote, None where it was told that it is late."""
    try:
        written: int = json.loads(run(task))["rows"]
    except StalePush:
        return None
    return written


def test_a_task_that_is_late_writes_nothing_once_a_newer_push_has_begun(
    project: Project, redis_url: str, client: redis.Redis
) -> None:
    killed = Scattered()
    defs = shared(project, redis_url, killed, **WALL)
    defs.refresh("spend")
    killed.most = 1
    with pytest.raises(TaskKilledError):
        defs.push("spend")
    late = [task.to_json() for task in killed.tasks]
    with pytest.raises(NotServed):
        get_online_features(["spend"], [{"user_id": 1}], store=defs.online_store)

    with clock.fixed(at(9) + timedelta(hours=13)):
        again = Scattered()
        shared(project, redis_url, again, **WALL).push("spend")
        served = online_rows(client)
        ended = [written_late(again.executors[0], task) for task in late]

    assert online_rows(client) == served
    assert set(ended) == {0, None}


def test_tasks_of_a_push_that_another_overtakes_end_it_quietly(
    project: Project, redis_url: str, client: redis.Redis
) -> None:
    runner = Scattered()
    defs = shared(project, redis_url, runner, **WALL)
    defs.refresh("spend")
    one, newer = runner.one, defined(project, redis_url, **WALL)

    def overtaken(task: Any) -> Any:
        runner.one = one  # type: ignore[method-assign]
        with clock.fixed(at(9) + timedelta(seconds=30)):
            newer.push("spend")
        return one(task)

    runner.one = overtaken  # type: ignore[method-assign]

    pushed = defs.push("spend")

    assert (pushed.written, pushed.full) == (0, False)
    books = newer.online_store and newer.online_store.books("spend")
    assert books is not None
    assert books.target is not None
    assert (books.target.as_of, books.pending) == (clock.now() + 30_000_000, ())
    assert len(online_rows(client)) == books.rows == USERS


def test_a_server_that_is_flushed_between_two_tasks_ends_the_push(
    project: Project, redis_url: str, client: redis.Redis
) -> None:
    runner = Scattered()
    defs = shared(project, redis_url, runner)
    defs.refresh("spend")
    one = runner.one

    def flushed(task: Any) -> Any:
        client.flushdb()
        return one(task)

    runner.one = flushed  # type: ignore[method-assign]
    assert defs.push("spend").written == 0
    assert online_rows(client) == {}

    runner.one = one  # type: ignore[method-assign]
    assert defs.push("spend").written == USERS


def test_a_version_that_was_made_anew_is_not_what_a_late_task_writes(
    project: Project, redis_url: str, client: redis.Redis
) -> None:
    runner = Scattered()
    defs = shared(project, redis_url, runner)
    defs.refresh("spend")
    defs.push("spend")
    [task, *_] = runner.tasks
    served = online_rows(client)
    project.drop("more", rows((1, 8.0, 5.0)))
    defs.store.erase("spend")
    defs.refresh("spend")

    with pytest.raises(StalePush):
        runner.executors[0](task.to_json())

    assert online_rows(client) == served


def test_a_process_that_has_other_definitions_or_processors_or_no_online_store_refuses_a_task(
    project: Project, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = Scattered()
    defs = shared(project, redis_url, runner)
    defs.refresh("spend")
    defs.push("spend")
    task = runner.tasks[0]
    other = defined(project, redis_url, metrics=[Rolling("3d", {"amount": "max"})])
    with pytest.raises(TaskRefused, match="of the definitions"):
        other.run_task(task.to_json())

    with pytest.raises(TaskRefused, match="no online store"):
        shared_push.run_push_task(task, defs.store, None, engine_of(defs, "spend"))

    monkeypatch.setattr(shared_push, "hash_sample", lambda: "another")
    with pytest.raises(TaskRefused, match="deals entities into other parts"):
        defs.run_task(task.to_json())


def test_a_push_without_anybody_else_goes_on_alone_where_it_may(
    project: Project, redis_url: str
) -> None:
    class Nobody(Scattered):
        def run(self, tasks: Any, here: Any) -> Any:
            raise RunnerUnavailable("nobody is there")

    strict = defined(project, redis_url, runner=Nobody(), distribute_above=0)
    defined(project, redis_url).refresh("spend")
    with pytest.raises(RunnerUnavailable, match="fallback"):
        strict.push("spend")

    alone = defined(project, redis_url, runner=Nobody(), fallback="local")

    assert alone.push("spend").written == USERS


def test_entities_of_no_share_are_in_none(project: Project) -> None:
    """Shares are disjoint and whole: each entity is in one."""
    frame = rows(*((n, 0, 0.0) for n in range(200)))
    shares = [batches.Share(first, first + 3, 9) for first in range(0, 9, 3)]

    held = [set(share.held(["user_id"], frame)["user_id"]) for share in shares]

    assert sum(map(len, held)) == len(set.union(*held)) == 200
    assert min(map(len, held)) > 30
