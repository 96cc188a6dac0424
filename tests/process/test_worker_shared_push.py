"""A full push that workers share, by real processes: one killed amid a task, a push killed midway and made again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from mlforge import get_online_features
from mlforge.errors import NotServed
from tests.support.workers import Shop, eventually, purchases, running_shop, several, write

pytestmark = pytest.mark.slow
USERS = 40
SHARED = """
import os
import time

from mlforge.core import failpoints
from mlforge.online import batches, shared_push
from worker.state import shared_build

batches.EVENTS_HELD, shared_push.PARTS = 8, 1
shared_build.CLAIM_MS, shared_build.RENEW_S = 1_500, 0.4


def hold_put():
    while is_there("hold_put"):
        (HERE / f"put-{os.getpid()}").touch()
        time.sleep(0.01)


failpoints.arm("task.put", hold_put)
"""
SETTINGS = {"runner": "rq", "distribute_above": 100}


@pytest.fixture
def shop(server, tmp_path: Path) -> Iterator[Shop]:
    """Forty users' amounts over two days: the build is smaller than what is shared, the push is not."""
    about = {
        "definitions": several({"spend": "drops/"}, settings=SETTINGS) + SHARED,
        "sources": ["drops"],
    }
    with running_shop(server, tmp_path, (), **about) as made:
        for day in range(4):
            events = [(n, day * 43_200 + n, (n + 1) / 7 + day) for n in range(USERS)]
            write(made.folder / "drops" / f"d{day}.parquet", purchases(*events))
        yield made


def online_rows(shop: Shop) -> dict[bytes, bytes]:
    with Redis.from_url(shop.url) as client:
        keys = [
            key
            for key in client.scan_iter("mlforge:spend:*")
            if client.type(key) == b"string" and len(key.rpartition(b":")[2]) == 64
        ]
        return {key: client.get(key) or b"" for key in keys}


def pushed_alone(shop: Shop) -> dict[bytes, bytes]:
    """The rows of a push by one process, which takes the place of those that are there."""
    alone = several({"spend": "drops/"})
    (shop.folder / "definitions.py").write_text(alone)
    with Redis.from_url(shop.url) as client:
        client.flushall()
    assert shop.ask_apart("build", "--online").returncode == 0
    return online_rows(shop)


@pytest.mark.slow
def test_a_worker_that_is_killed_at_a_task_of_a_push_costs_no_more_than_the_task(
    shop: Shop,
) -> None:
    shop.start_rq_workers(2)
    (shop.folder / "hold_put").touch()
    build = shop.start("build", "--online")
    eventually(lambda: len(list(shop.folder.glob("put-*"))) == 3)
    own = f"put-{build.pid}"
    held = next(path for path in shop.folder.glob("put-*") if path.name != own)
    os.kill(int(held.name.partition("-")[2]), signal.SIGKILL)
    (shop.folder / "hold_put").unlink()

    assert build.wait(60) == 0
    shared = online_rows(shop)
    assert len(shared) == USERS
    assert shop.log("terminated unexpectedly")
    assert shared == pushed_alone(shop)


@pytest.mark.slow
def test_a_push_that_is_killed_midway_is_not_served_until_the_next_one_has_ended(
    shop: Shop,
) -> None:
    shop.start_rq_workers(1)
    (shop.folder / "hold_put").touch()
    build = shop.start("build", "--online")
    eventually(lambda: len(list(shop.folder.glob("put-*"))) == 2)
    build.send_signal(signal.SIGKILL)
    build.wait(10)
    (shop.folder / "hold_put").unlink()
    with pytest.raises(NotServed):
        get_online_features(["spend"], [{"user_id": 1}], store=shop.project.online)

    assert shop.ask_apart("build", "--online").returncode == 0

    shared = online_rows(shop)
    assert len(shared) == USERS
    assert shared == pushed_alone(shop)
