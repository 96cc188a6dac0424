"""A server of uvicorn's that ends without a word to those alone who have asked for nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import uvicorn

FIRST_REQUEST_S = 1.0
"""How long callers who have just connected have to ask, once the server is to end."""
_LOOK_S = 0.01
_TICK_S = 1.0
"""How long the loop that keeps the `Date` of answers sleeps. uvicorn's own wakes ten times a second to see whether it is to end."""


class DrainingServer(uvicorn.Server):
    """Answers requests in hand before it ends, and the first of each connection that was taken.

    uvicorn closes a connection on which nothing has come yet, so that a caller whose request is on its way is told that the connection
    was reset, though another process may go on listening on the same socket.

    ending: called once the server is to end.
    """

    def __init__(self, config: uvicorn.Config, ending: Callable[[], object]) -> None:
        super().__init__(config)
        self._ending = ending
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told_to_end = asyncio.Event()

    async def main_loop(self) -> None:
        """uvicorn's own, which sleeps until a signal wakes it, or the next second begins."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told_to_end.wait(), _TICK_S)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """uvicorn's own; wakes the loop, which a signal alone does not."""
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._told_to_end.set)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no further connection, wait a moment for first requests, then do as uvicorn does."""
        self._ending()
        for listening in self.servers:
            listening.close()
        loop = asyncio.get_running_loop()
        until = loop.time() + FIRST_REQUEST_S
        await asyncio.sleep(_LOOK_S)
        while self._awaits_a_first_request() and loop.time() < until:
            await asyncio.sleep(_LOOK_S)
        await super().shutdown(sockets)

    def _awaits_a_first_request(self) -> bool:
        # Its cycle is a connection's latest request; only protocols other than HTTP/1.1 have none.
        connections = self.server_state.connections
        return any(getattr(connection, "cycle", connection) is None for connection in connections)
