"""The stream of events over HTTP, on a real event log: from where a caller left off, for many, to its end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from mlforge import Definitions
from mlforge.online import RedisStore
from mlforge.registry.live import Happening
from mlforge.serve import events
from mlforge.serve.access import keys
from mlforge.serve.access.keys import ApiKey
from mlforge.serve.app import App
from tests.support.projects import Project
from worker.connection import connect
from worker.project import scope_of
from worker.service.live import open_live
from worker.state.event_log import EventLog

WITHIN_S = 60


@pytest.fixture
def definitions(tmp_path: Path, online: RedisStore) -> Iterator[Definitions]:
    project = Project(tmp_path)
    definitions = project.definitions(project.define(), online_store=online)
    yield definitions
    definitions.close()


@pytest.fixture
def log(definitions: Definitions, redis_url: str) -> EventLog:
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    return EventLog(connect(redis_url), scope_of(definitions))


class Stream:
    """An answer as it comes in."""

    def __init__(self) -> None:
        self.status, self.text, self._news = 0, "", asyncio.Condition()
        self.ended = asyncio.Event()

    async def sent(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.text += message.get("body", b"").decode()
        async with self._news:
            self._news.notify_all()

    async def has(self, said: str) -> None:
        """Return as soon as the text is there."""
        async with asyncio.timeout(WITHIN_S), self._news:
            await self._news.wait_for(lambda: said in self.text)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [
            json.loads(line[6:]) for line in self.text.splitlines() if line.startswith("data: ")
        ]


@asynccontextmanager
async def following(
    app: App, query: str = "", path: str = "/v1/events", key: ApiKey | None = None, **headers: str
) -> AsyncIterator[Stream]:
    """A caller who follows, and goes at the end of the block. key: the caller's, as a server with keys has found it."""
    stream, going, asked = Stream(), asyncio.Event(), False

    async def receive() -> Any:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b""}
        await going.wait()
        return {"type": "http.disconnect"}

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": query.encode(),
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
        keys._HOLDER: key,
    }
    call = asyncio.create_task(app(scope, receive, stream.sent))
    call.add_done_callback(lambda _: stream.ended.set())
    try:
        yield stream
    finally:
        going.set()
        async with asyncio.timeout(WITHIN_S):
            await call


def test_events_come_as_they_happen_and_from_where_a_caller_left_off(
    definitions: Definitions, log: EventLog, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, unforeseen = open_live(definitions, redis_url), [ValueError("nobody thought of it")]
    after = live.after

    def after_a_fault(id: str, wait_ms: int | None = None) -> list[Happening]:
        if wait_ms is not None and unforeseen:
            raise unforeseen.pop()
        return after(id, wait_ms)

    monkeypatch.setattr(live, "after", after_a_fault)
    monkeypatch.setattr(events, "_PAUSE_S", 0)

    async def scenario() -> None:
        app = App(definitions, live=live)
        log.write("held", "spend", reason="rows fell")
        async with following(app) as first, following(app) as second:
            for each in (first, second):
                await each.has(": following")
            log.write("approved\n\nid: 7", "spend", by="a\nb")
            for each in (first, second):
                await each.has("a\\nb")
            assert first.events == second.events, "what was before is not told"
            [event] = first.events
            assert (event["feature"], event["details"]) == ("spend", {"by": "a\nb"})
        log.write("failed", "spend", error="x")
        async with following(app, last_event_id=event["id"]) as again:
            await again.has('"failed"')
            assert [each["kind"] for each in again.events] == ["failed"]
        async with (
            following(app, "after=0") as whole,
            following(app, f"after={event['id']}", "/news") as page,
        ):
            await whole.has('"failed"')
            await page.has('"failed"')
            assert page.events == again.events
            assert [each["kind"] for each in whole.events][::2] == ["held", "failed"]
            app.end()
        assert whole.status == 200
        assert not unforeseen

    asyncio.run(scenario())


def test_a_stream_is_over_with_the_token_that_it_was_asked_for_with(
    definitions: Definitions, log: EventLog, redis_url: str
) -> None:
    async def scenario() -> None:
        app, over = App(definitions, live=open_live(definitions, redis_url)), time.time()
        async with following(app, key=ApiKey("risk/ann", "", until=over)) as stream:
            async with asyncio.timeout(WITHIN_S):
                await stream.ended.wait()
        assert stream.text.startswith(": following")

    asyncio.run(scenario())


def test_no_more_callers_follow_than_there_is_room_for_though_they_come_at_once(
    definitions: Definitions, log: EventLog, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "STREAMS", 1)

    async def scenario() -> None:
        app = App(definitions, live=open_live(definitions, redis_url))
        async with following(app) as first, following(app) as second:
            for each in (first, second):
                await each.has("follow")  # it follows, or is told that others do
            assert sorted((first.status, second.status)) == [200, 503]
        async with following(app) as later:
            await later.has(": following")

    asyncio.run(scenario())


def test_a_stream_that_cannot_be_is_a_problem(
    definitions: Definitions, log: EventLog, redis_url: str
) -> None:
    async def asked(app: App, query: str = "") -> tuple[int, str]:
        async with following(app, query) as stream:
            await stream.has("}")
            return stream.status, json.loads(stream.text)["reason"]

    async def scenario() -> None:
        app = App(definitions, live=open_live(definitions, redis_url))
        assert await asked(app, "after=x") == (422, "unfit_request")
        assert await asked(app, "since=1") == (422, "unknown_field")
        assert await asked(App(definitions)) == (404, "no_workers")
        away = App(definitions, live=open_live(definitions, "redis://127.0.0.1:1/0"))
        assert await asked(away) == (503, "online_store_unavailable")

    asyncio.run(scenario())


def test_events_that_are_in_memory_no_longer_come_from_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "_KEPT", 2)
    every = [Happening(f"5-{number}", 5, "refreshed", None, {}) for number in range(4)]
    live: Any = SimpleNamespace(after=lambda _: every)
    followed = events.Events(live)
    followed._last.extend(every)

    async def after(last: str) -> list[Happening]:
        return await followed._after(live, last)

    assert asyncio.run(after("5-2")) == every[3:]
    assert asyncio.run(after("5-0")) == every, "the log is asked, as some have left"
