"""Where `mlforge up` answers over HTTP."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from mlforge.errors import MlforgeError
from mlforge.serve.server import HOST, PORT, check_extra, listening


@dataclass(frozen=True, slots=True)
class Web:
    """port: None takes the usual one, or a free one where another program has that."""

    port: int | None


def web_listener(web: Web) -> socket.socket:
    """A socket that listens on this machine alone. MissingExtra without the extra `serve`, MlforgeError for a port that is taken."""
    check_extra()
    if web.port is not None:
        return listening(HOST, web.port)
    try:
        return listening(HOST, PORT)
    except MlforgeError:
        return listening(HOST, 0)
