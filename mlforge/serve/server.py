"""The process of a server: definitions, an application, and uvicorn that runs it until it is told to stop."""

from __future__ import annotations

import os
import signal
import socket
import ssl
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from mlforge.core.collection import leave_loaded_alone
from mlforge.core.turns import take_short_turns
from mlforge.definitions.environment import PROFILE, redis_url
from mlforge.definitions.loader import load
from mlforge.definitions.registry import Definitions
from mlforge.definitions.running import running_url, serve_at
from mlforge.errors import DefinitionError, MissingExtra, MlforgeError

DEFINITIONS, KEYS = "MLFORGE_DEFINITIONS", "MLFORGE_KEYS"
HOST, PORT = "127.0.0.1", 8750
DRAIN_S = 15
"""How long requests in hand may take once the server is to stop."""
_BACKLOG = 2_048
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def check_extra() -> None:
    """Raise MissingExtra unless all that serving needs is installed."""
    if any(find_spec(name) is None for name in ("jinja2", "starlette", "uvicorn")):
        raise MissingExtra.of("mlforge serve", "serve")


def app_of_environment() -> Callable[..., object]:
    """The application of the definitions that MLFORGE_DEFINITIONS names, else of definitions.py here.

    Those of the profile that MLFORGE_PROFILE names, if any, and the API keys in the file that MLFORGE_KEYS names. Their online store is their own, else that of REDIS_URL, else of a running `mlforge up`.
    """
    check_extra()
    from mlforge.registry.live import live_of
    from mlforge.serve.app import App
    from mlforge.serve.tracing import tracing_of_environment

    target, here = os.environ.get(DEFINITIONS) or None, Path.cwd()
    profile = os.environ.get(PROFILE) or None
    definitions = load(target, here=here, profile=profile)
    url = redis_url() or running_url(target, here, profile)
    served = definitions if url is None else serve_at(definitions, url)
    tracing = tracing_of_environment()
    app = App(served, keys=keys_file(), live=live_of(served, url), tracing=tracing)
    leave_loaded_alone()
    return app


def keys_file() -> Path | None:
    """The file of API keys that the environment names, None for none; DefinitionError for an empty name."""
    name = os.environ.get(KEYS)
    if name is None:
        return None
    if not name.strip():  # a mistake in a deployment would let everybody in
        raise DefinitionError(f"{KEYS} is empty; name the file of API keys in it, or unset it")
    return Path(name)


def listening(host: str, port: int, fd: int | None = None) -> socket.socket:
    """A socket that listens; port 0 takes a free one. MlforgeError for an address that cannot be had.

    fd: the number of an open socket that this process was started with; it is taken as it is.
    """
    if fd is not None:
        return socket.socket(fileno=fd)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        raise MlforgeError(
            f"cannot listen at {host}:{port}: {error}; name another with --host or --port"
        ) from error


def serve(
    definitions: Definitions,
    listener: socket.socket,
    announce: Callable[[], object],
    keys: Path | None,
    url: str | None = None,
    tls: ssl.SSLContext | None = None,
    root_path: str = "",
) -> None:
    """Answer on the listener until SIGTERM or Ctrl-C; requests in hand are answered first.

    announce: called once nothing is missing to answer. keys: the file of API keys. url: the workers' Redis, None where there is none.
    tls: None answers over plain HTTP. root_path: the path below which a proxy has it answer, and which that takes off.
    """
    check_extra()
    import uvicorn

    from mlforge.registry.live import live_of
    from mlforge.serve.access.origins import at_loopback
    from mlforge.serve.app import App
    from mlforge.serve.draining import DrainingServer
    from mlforge.serve.tracing import tracing_of_environment

    live, tracing = live_of(definitions, url), tracing_of_environment()
    is_local = at_loopback(listener)
    app = App(definitions, keys=keys, live=live, at_loopback=is_local, tracing=tracing)
    leave_loaded_alone()
    take_short_turns()
    announce()

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
        backlog=_BACKLOG,
        root_path=root_path,
        timeout_graceful_shutdown=DRAIN_S,
        ssl_context_factory=None if tls is None else lambda *_: tls,
    )
    # What would not end by itself must not keep others waiting.
    server = DrainingServer(config, app.end)

    def end(*_: object) -> None:
        server.should_exit = True

    # uvicorn has handlers of its own, and raises once more for these what has ended it.
    before = {number: signal.signal(number, end) for number in _SIGNALS}
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
