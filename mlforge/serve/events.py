"""`/v1/events` and, for the page, `/news`: what happens in the project, as server-sent events, from where a caller left off."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from mlforge.core.logs import get_logger
from mlforge.registry.live import Happening, Live
from mlforge.serve.access.keys import holder_of
from mlforge.serve.http import Receive, Scope, Send
from mlforge.serve.operations import NO_WORKERS
from mlforge.serve.problems import Refused
from mlforge.serve.queries import query_of

STREAMS = 200
"""The most callers who follow at once."""
ALIVE_S = 15.0
"""After so long without an event a line says that the stream is alive."""
_KEPT, _WAIT_MS, _PAUSE_S = 1_000, 1_000, 1.0
_ID = re.compile(r"\d{1,20}(-\d{1,20})?")
_log = get_logger(__name__)


class Events:
    """The event log for many callers: one thread reads it, whoever follows.

    live: None where there are no workers; then there is nothing to follow.
    """

    def __init__(self, live: Live | None) -> None:
        self._live = live
        self._last: deque[Happening] = deque(maxlen=_KEPT)
        self._news = asyncio.Event()
        self._followers, self._ended = 0, False
        self._reader: asyncio.Task[None] | None = None

    def routes(self) -> list[Route]:
        """The route of the API, and that of the page, which takes the key in a cookie."""
        return [Route("/v1/events", self._answer), Route("/news", self._answer)]

    def end(self) -> None:
        """End all streams: their callers come back, and go on from the last id that they saw."""
        self._ended = True
        self._tell()

    async def _answer(self, request: Request) -> Response:
        live = self._live
        if live is None:
            raise Refused(404, "no_workers", NO_WORKERS)
        query = query_of(request, "after")
        after = request.headers.get("last-event-id") or query.get("after")
        if after is not None and not _ID.fullmatch(after):
            raise Refused(422, "unfit_request", "name the last event that was seen by its id")
        self._check_room()
        # Before anything is sent: a server that is away is a problem, and no stream that ends at once.
        since = await asyncio.to_thread(live.last_id)
        self._check_room()  # others may have come meanwhile
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        holder = holder_of(request.scope)
        left_s = _left_s(None if holder is None else holder.until)
        stream = self._stream(live, after or since, time.monotonic() + left_s)
        return _Stream(self._following(live, since), stream, headers)

    def _check_room(self) -> None:
        if self._followers >= STREAMS:
            raise Refused(
                503, "too_many_streams", f"{STREAMS} callers follow already; ask again later"
            )

    async def _stream(self, live: Live, last: str, until: float) -> AsyncIterator[bytes]:
        """The events after `last`, until a time of the monotonic clock, at which the caller's token is over: who comes back is checked anew."""
        yield b": following\n\n"
        for happening in await asyncio.to_thread(live.after, last):
            last = happening.id
            yield _event(happening)
        while not self._ended and (left_s := until - time.monotonic()) > 0:
            news = self._news
            for happening in await self._after(live, last):
                last = happening.id
                yield _event(happening)
            try:
                async with asyncio.timeout(min(ALIVE_S, left_s)):
                    await news.wait()
            except TimeoutError:
                yield b": alive\n\n"

    async def _after(self, live: Live, last: str) -> list[Happening]:
        """The events after an id: those that the reader keeps, or where it has let some go, the log's."""
        if len(self._last) == _KEPT and _order(self._last[0].id) > _order(last):
            return await asyncio.to_thread(live.after, last)
        return [each for each in self._last if _order(each.id) > _order(last)]

    @contextmanager
    def _following(self, live: Live, since: str) -> Iterator[None]:
        """Count a follower in; the reader, if it is not at work yet, begins at `since`, and ends with the last follower."""
        if self._reader is None:
            self._last.clear()
            self._reader = asyncio.create_task(self._read(live, since))
        self._followers += 1
        try:
            yield
        finally:
            self._followers -= 1
            if self._followers == 0:
                self._reader.cancel()
                self._reader = None

    async def _read(self, live: Live, last: str) -> None:
        while not self._ended:
            try:
                happenings = await asyncio.to_thread(live.after, last, _WAIT_MS)
            except Exception as error:  # noqa: BLE001 - without this reader no caller would have news any more
                _log.warning("events cannot be read", error=str(error))
                await asyncio.sleep(_PAUSE_S)
                continue
            if happenings:
                last = happenings[-1].id
                self._last.extend(happenings)
                self._tell()

    def _tell(self) -> None:
        """Wake all who wait for news."""
        news, self._news = self._news, asyncio.Event()
        news.set()


class _Stream(StreamingResponse):
    """A stream whose caller counts from the answer's first byte, with nothing between the count and the look whether there is room."""

    def __init__(
        self,
        following: AbstractContextManager[None],
        stream: AsyncIterator[bytes],
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(stream, media_type="text/event-stream", headers=headers)
        self._following = following

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._following:
            await super().__call__(scope, receive, send)


def _left_s(until: float | None) -> float:
    """The seconds until an instant, in seconds since the epoch; None stands for no end."""
    return math.inf if until is None else until - time.time()


def _event(happening: Happening) -> bytes:
    """An event as a stream has it: its id, and its document in one line."""
    return f"id: {happening.id}\ndata: {json.dumps(happening.document, default=str)}\n\n".encode()


def _order(id: str) -> tuple[int, int]:
    """The place of an id among others: milliseconds, and a number within one of them."""
    milliseconds, _, number = id.partition("-")
    return int(milliseconds), int(number or 0)
