"""When a worker takes jobs, and when it starts anew."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from worker.connection import connect
from worker.project import Project
from worker.queue.rq_worker import Forge, ForgeSimpleWorker


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The seconds that a worker's process takes for the time: `now_s`."""
    told = SimpleNamespace(now_s=100.0)
    read = SimpleNamespace(monotonic=lambda: told.now_s, sleep=time.sleep)
    monkeypatch.setattr("worker.queue.rq_worker.time", read)
    return told


@pytest.fixture
def worker(redis_url: str, clock: SimpleNamespace) -> Iterator[ForgeSimpleWorker]:
    """A worker that was made at that time."""
    connection = connect(redis_url)
    yield ForgeSimpleWorker(connection=connection)
    connection.close()


@pytest.mark.parametrize(
    ("is_current", "is_of_its_store", "has_say"),
    [(True, True, True), (False, True, False), (True, False, False)],
)
def test_a_process_of_the_current_definitions_and_of_their_store_alone_takes_jobs(
    is_current: bool, is_of_its_store: bool, has_say: bool
) -> None:
    project: Any = SimpleNamespace(
        is_current=lambda: is_current, is_of_its_store=lambda: is_of_its_store
    )
    project.has_say = lambda: Project.has_say(project)
    worker: Any = SimpleNamespace(_project=project, _had_say=False)
    assert Forge._has_say(worker) is has_say
    assert worker._had_say is has_say


@pytest.mark.parametrize(
    ("age_s", "had_say", "starts_anew"),
    [(1, True, False), (3, True, True), (20, False, False), (40, False, True)],
)
def test_a_process_that_never_had_the_say_waits_longer_before_it_starts_anew(
    age_s: float, had_say: bool, starts_anew: bool
) -> None:
    started: list[dict[str, str]] = []
    worker: Any = SimpleNamespace(
        _opened_at=time.monotonic() - age_s,
        _had_say=had_say,
        _has_say=lambda: False,
        _stop_requested=False,
        _project=None,
        teardown=lambda: None,
        _restart=started.append,
    )
    Forge._follow_definitions(worker)
    assert bool(started) is starts_anew


def test_a_connection_waits_for_longer_than_a_worker_waits_for_a_job(redis_url: str) -> None:
    """Also one that was made before the worker was: else both waits end at once, and the worker asks again for half a minute, unheard of."""
    connection = connect(redis_url)
    worker = ForgeSimpleWorker(connection=connection)
    pool = connection.connection_pool
    made = pool.get_connection()
    pool.release(made)
    assert made.socket_timeout > worker.dequeue_timeout
    connection.close()


def test_a_worker_reports_once_in_a_moment_and_not_between_a_job_and_its_preparation(
    worker: ForgeSimpleWorker, clock: SimpleNamespace
) -> None:
    def reports() -> bool:
        worker.connection.delete(worker.key)
        worker.heartbeat()
        return bool(worker.connection.exists(worker.key))

    assert [reports(), reports()] == [True, False]
    clock.now_s += 2
    assert reports()
    clock.now_s += 2
    worker.reorder_queues(worker.queues[0])  # as rq does once a job is taken
    assert not reports(), "what prepares the job reports"
    assert reports(), "the job is done, and the last report was long ago"


def test_a_worker_is_listed_again_also_where_one_short_job_follows_the_other(
    worker: ForgeSimpleWorker, clock: SimpleNamespace
) -> None:
    worker.heartbeat()
    worker.connection.delete(worker.key)  # the server was flushed
    for _ in range(3):
        worker.reorder_queues(worker.queues[0])
        worker.heartbeat()
        worker.heartbeat(15, worker.connection)  # of the process that does the job
        clock.now_s += 0.6
        worker.heartbeat()
    assert worker.connection.hexists(worker.key, "birth")
