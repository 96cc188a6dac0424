"""Connections of event loops: each loop has one of its own, which closes when the loop ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Protocol

import redis
from redis.asyncio import connection as kinds
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff

from mlforge.online.redis.shared_connection import SharedConnection


class Whereabouts(Protocol):
    """Whoever tells at which host and port a server is by now."""

    @property
    def known(self) -> tuple[str, int] | None:
        """The address as it was told last; None where nobody has asked yet."""

    def ask(self) -> tuple[str, int]:
        """The address as it is told now. Blocks; raises redis-py's errors."""


class AsyncConnections:
    """The connection of the running event loop, whichever that is.

    kind: the name of redis-py's class of connections. options: its arguments, but for `retry`. whereabouts: asked in a thread for
    the address before each connection; one to an address that is known to be left by now is given up.
    """

    def __init__(
        self,
        kind: str,
        options: Mapping[str, Any],
        backoff: ExponentialBackoff,
        retries: int,
        whereabouts: Whereabouts | None,
    ) -> None:
        self._kind, self._options = getattr(kinds, kind), options
        self._backoff, self._retries, self._whereabouts = backoff, retries, whereabouts
        self._of_loops: dict[asyncio.AbstractEventLoop, _OfLoop] = {}

    async def ask(self, commands: bytes, replies: int, raw: bool = False) -> list[Any]:
        """The replies to packed commands, all sent at once; sent again if the connection breaks.

        For idempotent commands only. raw: replies are bytes, not texts. An error reply is returned, not raised. Raises redis-py's errors.
        """
        loop = asyncio.get_running_loop()
        own = self._of_loops.get(loop) or await self._begun(loop)
        failures = 0
        while True:
            try:
                shared = own.shared
                if shared is None or not shared.is_open or self._is_left(shared):
                    shared = await own.opened(self._open)
                return await shared.ask(commands, replies, raw)
            except (redis.ConnectionError, redis.TimeoutError):
                failures += 1
                if failures > self._retries:
                    raise
            await asyncio.sleep(self._backoff.compute(failures))

    async def close(self) -> None:
        """Close the connection of the running loop; the next call opens another."""
        own = self._of_loops.get(asyncio.get_running_loop())
        if own is not None:
            await own.close()

    def _is_left(self, shared: SharedConnection) -> bool:
        known = self._whereabouts and self._whereabouts.known
        return known is not None and known != shared.address

    async def _open(self) -> SharedConnection:
        now: dict[str, Any] = {}
        if self._whereabouts is not None:
            now["host"], now["port"] = await asyncio.to_thread(self._whereabouts.ask)
        connection = self._kind(**{**self._options, **now}, retry=Retry(NoBackoff(), 0))
        try:
            await connection.connect()
            return SharedConnection(connection, self._options.get("socket_timeout"))
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    async def _begun(self, loop: asyncio.AbstractEventLoop) -> _OfLoop:
        # A loop that ended without a word, as `loop.close()` ends it, has left its connection behind.
        for other in list(self._of_loops):
            if other.is_closed():
                self._of_loops.pop(other, None)
        own = self._of_loops[loop] = _OfLoop()
        own.until_the_end = self._until_the_end(loop)
        await anext(own.until_the_end)
        return own

    async def _until_the_end(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None]:
        """A generator that the loop finishes before it closes, as it does with all of its asynchronous generators."""
        try:
            yield
        finally:
            await self._of_loops.pop(loop).close()


class _OfLoop:
    """The connection of one event loop, opened when it is first needed and once the one before has broken."""

    until_the_end: AsyncGenerator[None]

    def __init__(self) -> None:
        self.shared: SharedConnection | None = None
        self._opening: asyncio.Task[SharedConnection] | None = None

    async def opened(self, open_: Callable[[], Awaitable[SharedConnection]]) -> SharedConnection:
        """An open connection; all who want one at once wait for the same, and are told the same error."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(open_))
            self._opening.add_done_callback(_noted)
        return await asyncio.shield(self._opening)

    async def close(self) -> None:
        """Close it, once it is open if it is about to be."""
        if self._opening is not None:
            await asyncio.wait([self._opening])
        shared, self.shared = self.shared, None
        if shared is not None:
            await shared.end()

    async def _open(self, open_: Callable[[], Awaitable[SharedConnection]]) -> SharedConnection:
        try:
            if self.shared is not None:
                broken, self.shared = self.shared, None
                await broken.end()
            self.shared = await open_()
            return self.shared
        finally:
            self._opening = None


def _noted(opening: asyncio.Task[SharedConnection]) -> None:
    """Take note of an error that nobody waits for any more."""
    if not opening.cancelled():
        opening.exception()
