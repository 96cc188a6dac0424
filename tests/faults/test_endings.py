"""Processes that are asked to end while their server is away: they end, and what they had in hand is done later."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError
from rq.exceptions import StopRequested
from rq.worker.base import WorkerStatus

from tests.support.workers import Shop, eventually, purchases, write
from worker.connection import connect
from worker.ending import answers, start_anew
from worker.queue import ForgeSimpleWorker
from worker.service.embedded_redis import EmbeddedServer

WITHIN_S = 60.0
"""An end takes some six seconds; a slow machine may take longer, and one that waits for its server never ends."""

TWO_THAT_WAIT = """
import ctypes
import time
from pathlib import Path

import polars as pl

from mlforge import Definitions, feature
from mlforge.store import LocalStore

HERE = Path(__file__).parent


def waiting(name):
    @feature(keys=["user_id"], source=f"{name}/", timestamp="at", incremental=True, name=name)
    def waits(df: pl.DataFrame) -> pl.DataFrame:
        (HERE / f"{name}_at_work").touch()
        while ctypes.CDLL(None).access(str(HERE / "block").encode(), 0) == 0:
            time.sleep(0.01)
        return df.select("user_id", "at", "amount")

    return waits


defs = Definitions(store=LocalStore(HERE / "feature_store"), features=[waiting("left"), waiting("right")], name="shop")
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server that the test may do anything to."""
    with EmbeddedServer(tmp_path / "redis") as made:
        yield made


@pytest.fixture
def shop(server: EmbeddedServer, tmp_path: Path) -> Iterator[Shop]:
    """A shop of two features whose functions wait, for which nothing runs yet."""
    (tmp_path / "shop").mkdir()
    made = Shop(tmp_path / "shop", server.url, definitions=TWO_THAT_WAIT, sources=("left", "right"))
    yield made
    made.stop()


def started(shop: Shop) -> list[subprocess.Popen[bytes]]:
    """A watcher and both kinds of worker, each of them at work."""
    processes = [shop.start("watch"), shop.start("worker"), shop.start("worker", "--no-fork")]
    eventually(lambda: len(shop.log("worker ready")) == 2 and shop.log("watching"))
    return processes


def exit_codes(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    for process in processes:
        process.terminate()
    return [process.wait(WITHIN_S) for process in processes]


@pytest.mark.slow
def test_workers_and_watcher_end_while_their_server_hangs(
    shop: Shop, server: EmbeddedServer
) -> None:
    processes = started(shop)
    eventually(lambda: not any(ticket.behind for ticket in map(shop.ticket, shop.sources)))
    os.kill(server.pid, signal.SIGSTOP)
    try:
        assert exit_codes(processes) == [0, 0, 0]
    finally:
        os.kill(server.pid, signal.SIGCONT)


@pytest.mark.slow
def test_jobs_in_hand_at_an_end_without_a_server_are_done_later(
    shop: Shop, server: EmbeddedServer
) -> None:
    (shop.folder / "block").touch()
    for source in shop.sources:
        write(shop.folder / source / "a.parquet", purchases((1, 0, 2.0)))
    processes = started(shop)
    eventually(lambda: all((shop.folder / f"{s}_at_work").exists() for s in shop.sources))
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: not server.alive)
    assert exit_codes(processes) == [0, 0, 0]
    (shop.folder / "block").unlink()
    server.start()
    shop.start("watch")
    shop.start("worker")
    eventually(lambda: all(shop.online(s, 1) == {"amount": 2.0} for s in shop.sources))


@pytest.mark.slow
def test_idle_workers_and_watcher_end_while_their_server_is_gone(
    shop: Shop, server: EmbeddedServer
) -> None:
    processes = started(shop)
    eventually(lambda: not any(ticket.behind for ticket in map(shop.ticket, shop.sources)))
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: len(shop.log("server away")) >= 3)
    assert exit_codes(processes) == [0, 0, 0]


def test_a_server_that_refuses_is_not_away(server: EmbeddedServer) -> None:
    """A job in hand is finished then, over the connection that is there."""
    stranger = server.url.replace("redis://:", "redis://:wrong", 1)
    with Redis.from_url(server.url, retry=None) as first:
        assert answers(first)
        with Redis.from_url(stranger, retry=None) as other:
            assert answers(other)
        first.config_set("maxclients", 1)
        with Redis.from_url(server.url, retry=None) as further:
            assert answers(further)
    with Redis.from_url("redis://127.0.0.1:1/0", retry=None) as nobody:
        assert not answers(nobody)


def test_up_ends_while_it_waits_for_a_server_at_its_start(shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        shop.url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        up = shop.start("up")
        with silent.accept()[0]:
            assert exit_codes([up]) == [0]


def test_a_process_that_was_asked_to_end_does_not_start_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[str] = []
    monkeypatch.setattr("os.execve", lambda program, *_: begun.append(program))
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        start_anew({}, lambda: True)
        assert begun == []
        start_anew({}, lambda: False)
        assert begun == [sys.executable]
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "an end that comes now is heeded"
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_an_end_that_was_asked_for_amid_an_outage_is_not_forgotten(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last job's state could not be reported, so that the worker passes for one with a job in hand."""
    asked: list[str] = []
    worker = ForgeSimpleWorker(connection=connect(server.url))

    def lost(*_: object) -> bool:
        assert not asked, "it went on after it was asked to end"
        asked.append("once")
        worker._state = WorkerStatus.BUSY
        worker.request_stop(signal.SIGTERM, None)
        raise ConnectionError("the server is away")

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        monkeypatch.setattr(worker, "_has_say", lost)
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(StopRequested):
            worker.dequeue_job_and_maintain_ttl(1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
