"""Connections of event loops: each loop has its own, and they close when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import redis
from redis.asyncio import connection as kinds
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

CONNECTIONS = 64
"""The most connections of one event loop; further requests wait for their turn."""
TURN_S = 15.0
"""How long a request waits for its turn: as long as a server that does not answer is tried."""


class AsyncConnections:
    """The connections of the running event loop, whichever that is.

    kind: the name of redis-py's class of connections. options: its arguments, but for `retry`.
    """

    def __init__(
        self, kind: str, options: Mapping[str, Any], backoff: ExponentialBackoff, retries: int
    ) -> None:
        self._kind, self._options = getattr(kinds, kind), options
        self._trip_s: float | None = options.get("socket_timeout")
        self._retry = Retry(backoff, retries)
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}

    async def ask(self, commands: bytes, replies: int, raw: bool = False) -> list[Any]:
        """The replies to packed commands, all sent at once; sent again if the connection breaks.

        For idempotent commands only. raw: replies are bytes, not texts. An error reply is returned, not raised. Raises redis-py's errors, its
        TimeoutError where all connections stay busy.
        """
        pool = await self._pool()
        try:
            async with asyncio.timeout(TURN_S):
                await pool.turns.acquire()
        except TimeoutError:
            raise redis.TimeoutError(
                f"all {CONNECTIONS} connections are busy for {TURN_S:g} seconds"
            ) from None
        try:
            connection = (
                pool.idle.pop() if pool.idle else self._kind(**self._options, retry=self._retry)
            )
            try:
                return await _answers(connection, commands, replies, self._trip_s, raw)
            finally:
                pool.idle.append(connection)
        finally:
            pool.turns.release()

    async def close(self) -> None:
        """Close the connections of the running loop that are not in use."""
        pool = self._pools.get(asyncio.get_running_loop())
        if pool is not None:
            await pool.close()

    async def _pool(self) -> _Pool:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            # A loop that ended without a word, as `loop.close()` ends it, has left its pool behind.
            self._pools = {other: p for other, p in self._pools.items() if not other.is_closed()}
            pool = self._pools[loop] = _Pool()
            pool.end = self._until_the_end(loop)
            await anext(pool.end)
        return pool

    async def _until_the_end(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None]:
        """A generator that the loop finishes before it closes, as it does with all of its asynchronous generators."""
        try:
            yield
        finally:
            await self._pools.pop(loop).close()


class _Pool:
    """The connections of one event loop, idle or in use."""

    end: AsyncGenerator[None]

    def __init__(self) -> None:
        self.idle: list[Any] = []
        self.turns = asyncio.Semaphore(CONNECTIONS)

    async def close(self) -> None:
        while self.idle:
            await self.idle.pop().disconnect()


async def _answers(
    connection: Any, commands: bytes, replies: int, trip_s: float | None, raw: bool
) -> list[Any]:
    """The replies on a connection, which is closed if any of them does not arrive.

    trip_s: seconds for commands and replies together. One deadline for all of them: redis-py sets one for the sending and one for
    each reply, which costs more than the reading.
    """
    check = _cancellations()

    async def once() -> list[Any]:
        try:
            async with asyncio.timeout(trip_s):
                await connection.send_packed_command([commands])
                check()
                return [await _answer(connection, raw) for _ in range(replies)]
        except TimeoutError:
            raise redis.TimeoutError(f"no answer within {trip_s:g} seconds") from None

    try:
        if not connection.is_connected:
            connection.socket_timeout = trip_s
            await connection.connect()
            check()
        connection.socket_timeout = None
        answers: list[Any] = await connection.retry.call_with_retry(
            once, lambda _: connection.disconnect()
        )
        check()
    except BaseException:  # also the task's cancellation: replies may be under way
        await connection.disconnect(nowait=True)
        raise
    return answers


def _cancellations() -> Callable[[], None]:
    """A function that raises CancelledError where the task was cancelled since, and the error was lost.

    `asyncio.wait_for` of Python 3.11, through which redis-py sends, loses it where the sending is done already.
    """
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()

    def check() -> None:
        if task.cancelling() > before:
            raise asyncio.CancelledError

    return check


async def _answer(connection: Any, raw: bool) -> Any:
    """The next reply; an error reply is returned, not raised, since further replies may follow it."""
    try:
        return await connection.read_response(disable_decoding=raw)
    except redis.ResponseError as error:
        return error
