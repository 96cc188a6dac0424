"""A connection that all reads of an event loop share: commands go out together, and each answer goes to whom it is for."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import hiredis
import redis
from redis._parsers.base import BaseParser

_NOT_YET = object()


class _Ask:
    """Commands that wait for their replies; deadline: when some of them are to be here, by the loop's clock."""

    __slots__ = ("answers", "count", "deadline", "future", "raw")

    def __init__(
        self, future: asyncio.Future[list[Any]], count: int, raw: bool, deadline: float
    ) -> None:
        self.future, self.count, self.raw, self.deadline = future, count, raw, deadline
        self.answers: list[Any] = []


class SharedConnection(asyncio.Protocol):
    """A connection of redis-py that has greeted the server, taken over: many ask on it at once.

    Commands of one turn of the event loop are sent together, and replies are taken in their order: one that nobody waits
    for any more is read all the same, so that none is taken for another's. Where a reply is late, and nothing comes, the connection breaks, for all:
    a large answer keeps the next ones waiting as long as it comes.
    trip_s: seconds in which something is to come; None waits for ever.
    """

    def __init__(self, connection: Any, trip_s: float | None) -> None:
        self._connection = connection
        self._trip_s = float("inf") if trip_s is None else trip_s
        self._loop = asyncio.get_running_loop()
        # redis-py says nowhere else which transport it has opened.
        self._transport: asyncio.Transport = connection._writer.transport
        self._stream = self._transport.get_protocol()
        self._transport.set_protocol(self)
        self._reader = hiredis.Reader(
            protocolError=redis.exceptions.InvalidResponse,
            replyError=BaseParser.parse_error,
            encoding="utf-8",
            errors="surrogateescape",
            notEnoughData=_NOT_YET,
        )
        self._asks: deque[_Ask] = deque()
        self._unsent: list[bytes] = []
        self._watch: asyncio.TimerHandle | None = None
        self._heard = self._loop.time()
        self._lost = self._loop.create_future()
        self.is_open = not self._transport.is_closing()

    def ask(self, commands: bytes, replies: int, raw: bool) -> asyncio.Future[list[Any]]:
        """The replies to packed commands, when they are here; error replies among them are returned.

        raw: replies are bytes, not texts. Raises redis-py's ConnectionError, as the future does, which has TimeoutError besides.
        """
        if not self.is_open:
            raise redis.ConnectionError("Connection closed by server.")
        ask = _Ask(self._loop.create_future(), replies, raw, self._loop.time() + self._trip_s)
        if self._watch is None and ask.deadline < float("inf"):
            self._watch = self._loop.call_at(ask.deadline, self._look)
        self._asks.append(ask)
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(commands)
        return ask.future

    @property
    def address(self) -> tuple[str, int]:
        """The host and port of a connection over TCP."""
        return self._connection.host, self._connection.port

    async def end(self) -> None:
        """Close it at once; whoever still waits for replies is told so."""
        self._transport.abort()
        await self._lost
        await self._connection.disconnect(nowait=True)

    def data_received(self, data: bytes) -> None:
        """Hand replies to those who asked, in order."""
        self._heard = self._loop.time()
        self._reader.feed(data)
        try:
            while self._asks and self._is_answered(self._asks[0]):
                self._asks.popleft()
            if not self._asks and self._reader.has_data():
                raise redis.exceptions.InvalidResponse("a reply that nobody asked for")
        except redis.RedisError as error:
            self._break(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all who wait that the server has gone."""
        self._break(redis.ConnectionError(str(exc) if exc else "Connection closed by server."))
        self._stream.connection_lost(exc)  # redis-py waits for it
        if not self._lost.done():
            self._lost.set_result(None)

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self.is_open:
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def _is_answered(self, ask: _Ask) -> bool:
        """Whether all replies to an ask are here; those that are here are noted."""
        gets, answers, decode = self._reader.gets, ask.answers, not ask.raw
        while len(answers) < ask.count:
            reply = gets(decode)
            if reply is _NOT_YET:
                return False
            if isinstance(reply, redis.ConnectionError):  # such as "max number of clients reached"
                raise reply
            answers.append(reply)
        if not ask.future.done():  # else its caller was cancelled
            ask.future.set_result(answers)
        return True

    def _look(self) -> None:
        """Break the connection where a reply is late and nothing comes, else look again when that could be."""
        self._watch = None
        if not self._asks:
            return
        deadline = max(self._asks[0].deadline, self._heard + self._trip_s)
        if self._loop.time() < deadline:
            self._watch = self._loop.call_at(deadline, self._look)
        else:
            self._break(redis.TimeoutError(f"no answer within {self._trip_s:g} seconds"))

    def _break(self, error: redis.RedisError) -> None:
        self.is_open = False
        self._transport.abort()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        asks, self._asks = self._asks, deque()
        for ask in asks:
            if not ask.future.done():
                ask.future.set_exception(type(error)(*error.args))
