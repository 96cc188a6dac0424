"""Orders of a worker to a process of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from redis import Redis
from rq.exceptions import NoSuchJobError

from worker.connection import connect
from worker.queue.forking import ForgeWorker, order_text
from worker.queue.intake import ForgeJob, queue_named
from worker.queue.prefork import ORDER_BYTES
from worker.queue.rq_queue import JobQueue, queue_of

SCOPE = "orders"


@pytest.fixture
def connection(redis_url: str) -> Redis:
    return connect(redis_url)


def queued(connection: Redis, job: str) -> ForgeJob:
    """A job that was put into the queue, as a worker reads it."""
    JobQueue(connection, SCOPE).enqueue({"spend": job}, "hash", 60)
    fetched = queue_named(queue_of(SCOPE), connection).fetch_job(job)
    assert isinstance(fetched, ForgeJob)
    return fetched


def told(job: ForgeJob) -> Mapping[str, Any]:
    return {**job.to_dict(), "kwargs": job.kwargs, "timeout": job.timeout}


def test_an_order_brings_the_job_as_it_was_read(connection: Redis) -> None:
    """No server is asked for it again."""
    job = queued(connection, "spend-1")
    nowhere: Any = SimpleNamespace(connection=Redis(port=1))
    ordered, execution = ForgeWorker._ordered(nowhere, order_text(job, "an-execution"))
    assert isinstance(ordered, ForgeJob)
    assert (told(ordered), execution) == (told(job), "an-execution")


def test_a_job_that_is_too_long_for_an_order_is_read_from_the_server(connection: Redis) -> None:
    job = queued(connection, "spend-2")
    assert job.record is not None
    job.record = {**job.record, b"meta": b"\xff" * ORDER_BYTES}
    order = order_text(job, "an-execution")
    assert len(order.encode()) <= ORDER_BYTES
    asking: Any = SimpleNamespace(connection=connection, serializer=job.serializer)
    ordered, _ = ForgeWorker._ordered(asking, order)
    assert isinstance(ordered, ForgeJob)
    assert told(ordered) == told(job)


def test_an_order_for_what_is_no_job_of_ours_is_refused(connection: Redis) -> None:
    fields = json.loads(order_text(queued(connection, "spend-3"), "an-execution"))
    fields["record"]["data"] = "no job"
    nowhere: Any = SimpleNamespace(connection=Redis(port=1))
    with pytest.raises(NoSuchJobError, match="refused"):
        ForgeWorker._ordered(nowhere, json.dumps(fields))
