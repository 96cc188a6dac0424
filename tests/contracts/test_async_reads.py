"""Online reads that are awaited: the answers and errors of those that block, on connections of the event loop."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import pytest
import redis

from mlforge import Definitions, Service, aget_online_features, get_online_features
from mlforge.core import clock
from mlforge.core.values import to_us
from mlforge.errors import (
    DefinitionError,
    MlforgeError,
    NotServed,
    OnlineError,
    OnlineUnavailable,
    OwnedElsewhere,
    RetrievalError,
)
from mlforge.frames.encoding import key_hash
from mlforge.online import RedisStore
from tests.support.faults import Proxy
from tests.support.projects import Project, at, rows
from tests.support.workers import eventually

NOW = at(5)
USERS = [{"user_id": user} for user in range(1, 6)]
PATIENCE_S = 60


@pytest.fixture
def served(tmp_path: Path, online: RedisStore) -> Definitions:
    """A feature whose values are as of NOW, with rows of users 1, 2 and 4."""
    project = Project(tmp_path)
    project.drop("a", rows((1, 0, 1.0), (1, 3, 2.0), (2, 1.5, 5.0), (4, 5, 7.0)))
    spend = project.define(derive={"age": "days(t - '2026-01-01')"})
    defs = project.definitions(spend, project.define(name="other"), online_store=online)
    with clock.fixed(to_us(NOW)):
        defs.build(online=True)
    return defs


@pytest.fixture
def proxy(redis_server: str) -> Iterator[Proxy]:
    with Proxy(urlsplit(redis_server).port or 0) as between:
        yield between


class Gate:
    """Passes all on between clients and a server, on the running event loop; while it is closed, it holds answers.

    at_once, pause_s: how many bytes of answers it passes on in how many seconds.
    """

    def __init__(self, server: str, at_once: int = 65_536, pause_s: float = 0.0) -> None:
        self._server, self._at_once, self._pause_s = urlsplit(server).port, at_once, pause_s
        self._open, self._held = asyncio.Event(), asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Gate:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self._listener.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        await asyncio.wait(self._tasks, timeout=PATIENCE_S)  # they end as clients let go

    def close(self) -> None:
        self._open.clear()
        self._held.clear()

    def open(self) -> None:
        self._open.set()

    async def holds(self) -> None:
        """Wait until an answer is held."""
        async with asyncio.timeout(PATIENCE_S):
            await self._held.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server)
        try:
            async with asyncio.TaskGroup() as both_ways:
                both_ways.create_task(self._pass(reader, to_server, False))
                both_ways.create_task(self._pass(from_server, writer, True))
        finally:
            for end in (writer, to_server):
                end.close()
                with suppress(OSError):
                    await end.wait_closed()

    async def _pass(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, holds: bool
    ) -> None:
        with suppress(OSError):
            while data := await source.read(self._at_once if holds else 65_536):
                if holds and not self._open.is_set():
                    self._held.set()
                    await self._open.wait()
                if holds and self._pause_s:
                    await asyncio.sleep(self._pause_s)
                target.write(data)
        target.close()


def outcome(call: Callable[[], Any]) -> Any:
    """What the call returns, or the class and text of what it raises."""
    try:
        return call()
    except MlforgeError as error:
        return type(error), str(error)


def both(*args: Any, **options: Any) -> Any:
    """The one outcome of a read that blocks and of one that is awaited."""
    blocking = outcome(lambda: get_online_features(*args, **options))
    awaited = outcome(lambda: asyncio.run(aget_online_features(*args, **options)))
    assert awaited == blocking
    return blocking


def test_a_read_that_is_awaited_has_the_answers_and_errors_of_one_that_blocks(
    served: Definitions, online: RedisStore, redis_url: str
) -> None:
    spend = served.feature("spend")
    service = Service(
        "s", [spend, "other"], request={"x": pl.Int32}, derive={"y": "x + user_id"}, max_age="1d"
    )
    requests = [{"x": 2}] * 5
    with clock.fixed(to_us(NOW)):
        assert both(["spend", "other"], USERS, online)[0]["spend__age"] == 5.0
        assert both(service, USERS, online, request=requests)[3]["y"] == 6
        assert both(service, USERS, online, request=requests, details=True)[2]["details"]
        for kind, args, options in [
            (RetrievalError, (["spend"], [{"user": 1}], online), {}),
            (RetrievalError, (["spend"], USERS, "redis"), {}),
            (RetrievalError, (service, USERS, online), {}),
            (DefinitionError, (["spend"], USERS, online), {"details": 1}),
            (NotServed, (["nothing"], USERS, online), {}),
            (NotServed, ([("spend", "9.0.0")], USERS, online), {}),
            (OwnedElsewhere, (["spend"], USERS, RedisStore.from_url(redis_url, owner="another-store")), {}),
        ]:  # fmt: skip
            assert both(*args, **options)[0] is kind
    with pytest.raises(DefinitionError, match=r"did you mean 'details'"):
        aget_online_features(["spend"], USERS, online, detals=True)  # type: ignore[call-arg,unused-coroutine]
    with clock.fixed(to_us(at(6.1))):
        assert both(service, USERS, online, request=requests)[0] is NotServed
        stale = both(service, USERS, online, request=requests, details=True)
        assert stale[0]["details"]["spend__age"].status == "stale"
    with redis.Redis.from_url(redis_url) as client:
        client.set(f"mlforge:spend:{key_hash(USERS[0])}", "no row")
        assert both(["spend"], USERS, online)[0] is OnlineError
        client.delete(f"mlforge:spend:{key_hash(USERS[0])}")
        client.lpush(f"mlforge:spend:{key_hash(USERS[0])}", "no text")
        assert both(["spend"], USERS, online)[0] is OnlineError


def test_two_hundred_tasks_read_at_once_and_the_loop_closes_its_connections(
    served: Definitions, redis_url: str
) -> None:
    store = RedisStore.from_url(redis_url)
    expected = get_online_features(["spend", "other"], USERS, store, at=NOW)

    def connections() -> set[str]:
        return {each["id"] for each in client.client_list()}

    async def many() -> list[Any]:
        reads = [aget_online_features(["spend", "other"], USERS, store, at=NOW) for _ in range(200)]
        answers = await asyncio.gather(*reads)
        assert len(connections() - before) == 1, "all share it"
        return answers

    with redis.Redis.from_url(redis_url) as client:
        before = connections()
        assert asyncio.run(many()) == [expected] * 200
        assert asyncio.run(many()) == [expected] * 200  # another loop, other connections
        eventually(lambda: connections() <= before)

    async def closed() -> None:
        assert await aget_online_features(["spend"], USERS, store)
        await store.aclose()
        assert await aget_online_features(["spend"], USERS, store)

    asyncio.run(closed())
    gc.collect()  # a connection left open would warn, and a warning fails
    store.close()


def test_loops_of_several_threads_read_from_one_store(
    served: Definitions, online: RedisStore
) -> None:
    expected = get_online_features(["spend"], USERS, online, at=NOW)
    answers: list[Any] = []

    def read() -> None:
        async def several() -> list[Any]:
            return [await aget_online_features(["spend"], USERS, online, at=NOW) for _ in range(20)]

        answers.extend(asyncio.run(several()))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert answers == [expected] * 80


def test_a_cancelled_read_gives_no_other_read_its_answer(
    served: Definitions, redis_server: str
) -> None:
    async def cancelled() -> None:
        async with Gate(redis_server) as gate:
            store = RedisStore(port=gate.port)
            each = [await aget_online_features(["spend"], [user], store, at=NOW) for user in USERS]
            for _ in range(3):
                gate.close()
                reads = [
                    asyncio.ensure_future(aget_online_features(["spend"], [user], store, at=NOW))
                    for user in USERS
                ]
                await gate.holds()
                for read in reads[::2]:
                    read.cancel()
                gate.open()
                answers = await asyncio.gather(*reads, return_exceptions=True)
                assert answers[1::2] == each[1::2]
                assert {type(answer) for answer in answers[::2]} == {asyncio.CancelledError}, (
                    answers
                )
            assert await aget_online_features(["spend"], [USERS[1]], store, at=NOW) == each[1]
            await store.aclose()

    asyncio.run(cancelled())


def test_a_server_that_is_away_or_loses_rows_is_told_and_waited_for(
    served: Definitions, proxy: Proxy, redis_url: str
) -> None:
    store = RedisStore(port=proxy.port)
    expected = get_online_features(["spend"], USERS, store, at=NOW)

    async def away() -> None:
        assert await aget_online_features(["spend"], USERS, store, at=NOW) == expected
        proxy.cut_all()  # broken connections are made anew
        assert await aget_online_features(["spend"], USERS, store, at=NOW) == expected
        proxy.drop_answers = 1
        assert await aget_online_features(["spend"], USERS, store, at=NOW) == expected
        proxy.cut = True
        proxy.cut_all()
        with pytest.raises(OnlineUnavailable, match="does not answer"):
            await aget_online_features(["spend"], USERS, store, at=NOW)
        proxy.cut = False
        assert await aget_online_features(["spend"], USERS, store, at=NOW) == expected

    asyncio.run(away())
    with redis.Redis.from_url(redis_url) as client:
        books = store.books("spend")
        assert books is not None
        store.mark_incomplete("spend", books)
        assert both(["spend"], USERS, store)[0] is NotServed
        client.delete("mlforge:spend")
    assert both(["spend"], USERS, store)[0] is NotServed
    store.close()


def test_reads_wait_for_a_slow_server_together_and_are_told_so_when_it_does_not_answer(
    served: Definitions, redis_server: str
) -> None:
    async def slow() -> None:
        async with Gate(redis_server) as gate:  # which passes nothing on while this loop is blocked
            url = f"redis://127.0.0.1:{gate.port}"
            store = RedisStore.from_url(url)
            expected = await aget_online_features(["spend"], USERS, store, at=NOW)
            gate.close()
            reads = [
                asyncio.ensure_future(aget_online_features(["spend"], USERS, store, at=NOW))
                for _ in range(100)
            ]
            await gate.holds()
            gate.open()
            assert await asyncio.gather(*reads) == [expected] * 100
            await store.aclose()
            hasty = RedisStore.from_url(f"{url}?socket_timeout=0.2")
            assert await aget_online_features(["spend"], USERS, hasty, at=NOW) == expected
            gate.close()
            reads = [
                asyncio.ensure_future(aget_online_features(["spend"], USERS, hasty, at=NOW))
                for _ in range(3)
            ]
            await asyncio.wait(reads, timeout=PATIENCE_S)
            for read in reads:
                assert isinstance(read.exception(), OnlineUnavailable)
            gate.open()
            assert await aget_online_features(["spend"], USERS, hasty, at=NOW) == expected
            await hasty.aclose()

    asyncio.run(slow())


@pytest.mark.slow
def test_answers_that_come_slowly_are_waited_for_as_long_as_they_come(
    served: Definitions, redis_server: str, online: RedisStore
) -> None:
    expected = get_online_features(["spend"], USERS, online, at=NOW)

    async def slow() -> None:
        async with Gate(redis_server, at_once=500, pause_s=0.05) as gate:
            url = f"redis://127.0.0.1:{gate.port}?socket_timeout=0.5"
            store, loop = RedisStore.from_url(url), asyncio.get_running_loop()
            began = loop.time()
            reads = (aget_online_features(["spend"], USERS, store, at=NOW) for _ in range(3))
            assert await asyncio.gather(*reads) == [expected] * 3
            assert loop.time() - began > 1.0
            await store.aclose()

    asyncio.run(slow())


def test_a_read_that_is_cancelled_while_the_first_connection_opens_keeps_none_from_it(
    served: Definitions, redis_server: str
) -> None:
    async def opened() -> None:
        async with Gate(redis_server) as gate:
            store = RedisStore(port=gate.port)
            gate.close()
            first, *others = [
                asyncio.ensure_future(aget_online_features(["spend"], USERS, store, at=NOW))
                for _ in range(3)
            ]
            await gate.holds()
            first.cancel()
            gate.open()
            answers = await asyncio.gather(first, *others, return_exceptions=True)
            assert isinstance(answers[0], asyncio.CancelledError)
            assert answers[1] == answers[2] != []
            await store.aclose()

    asyncio.run(opened())


def test_a_backend_without_awaited_calls_is_asked_in_a_thread(
    served: Definitions, online: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlforge.online import OnlineStore

    for name in ("_fetch_async", "_foreign_async", "evidence_async"):
        monkeypatch.setattr(RedisStore, name, getattr(OnlineStore, name))
    asked: list[int] = []
    fetch = RedisStore._fetch

    def noted(self: RedisStore, requests: Any) -> Any:
        asked.append(threading.get_ident())
        return fetch(self, requests)

    monkeypatch.setattr(RedisStore, "_fetch", noted)
    answers = asyncio.run(aget_online_features(["spend"], USERS, online, at=NOW))
    assert threading.get_ident() not in asked
    assert asked
    assert answers == get_online_features(["spend"], USERS, online, at=NOW)


def test_reads_that_come_together_fetch_the_books_of_a_feature_once(
    served: Definitions, online: RedisStore, redis_url: str
) -> None:
    """Each answers as it does alone, also where another reads what is damaged."""
    entities = [{"user_id": user % 5} for user in range(40)]
    alone = [get_online_features(["spend"], [entity], online, at=NOW) for entity in entities]

    async def together(*others: str) -> list[Any]:
        reads = [aget_online_features(["spend"], [entity], online, at=NOW) for entity in entities]
        beside = [aget_online_features([other], USERS, online) for other in others]
        return await asyncio.gather(*reads, *beside, return_exceptions=True)

    with redis.Redis.from_url(redis_url) as client:
        before = client.info("commandstats")["cmdstat_hgetall"]["calls"]
        assert asyncio.run(together()) == alone
        calls = client.info("commandstats")["cmdstat_hgetall"]["calls"] - before
        client.hset(f"{online.prefix}:bad", "colour", "red")
    assert calls < 10, "alone they are 40"
    *answers, damaged, unknown = asyncio.run(together("bad", "nobody"))
    assert answers == alone
    assert (type(damaged), type(unknown)) == (OnlineError, NotServed)
