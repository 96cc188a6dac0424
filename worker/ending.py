"""The end of a process that was asked to end: it does not wait for a server that is away."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from redis import Redis
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError

from mlforge.core.logs import get_logger

AWAY_S = 5.0
"""For how long a server may be away after a process was asked to end, before the process ends at once."""
_LOOK_S, _ANSWER_S = 0.5, 1.0
_REFUSALS = (ResponseError, AuthenticationError, AuthorizationError)
"""The answers of a server that is there; for redis-py some of them are errors of the connection."""
_FULL = "max number of clients"

log = get_logger(__name__)


@dataclass
class Ending:
    """Ends a process that was asked to end, once its server has been away for `AWAY_S`.

    The process may hang in any call to the server, even one of a library. To end at once loses nothing: a job in hand
    comes back by its lease, and files are looked for at the next start. url: of the server. give_up: ends what the
    process has started.
    """

    url: str
    give_up: Callable[[], None] = lambda: None
    has_begun: bool = False
    """Whether an end was asked for."""

    def begin(self) -> None:
        """Note that an end was asked for; to be called by a signal's handler, so without a lock."""
        if not self.has_begun:
            self.has_begun = True
            beside(self._await_end)

    def _await_end(self) -> None:
        self._await_outage()
        with suppress(Exception):
            log.warning("server away: ending without it", away_s=AWAY_S)
        with suppress(Exception):
            self.give_up()
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(0)

    def _await_outage(self) -> None:
        """Return once the server has been away for a while; the process has usually ended by then."""
        client = impatient(self.url)
        answered_at = time.monotonic()
        while time.monotonic() - answered_at < AWAY_S:
            if answers(client):
                answered_at = time.monotonic()
            time.sleep(_LOOK_S)


def impatient(url: str) -> Redis:
    """A client that waits a second for an answer, and asks once: for whoever must not wait for a server that hangs."""
    return Redis.from_url(
        url, socket_timeout=_ANSWER_S, socket_connect_timeout=_ANSWER_S, retry=None
    )


def start_anew(environment: Mapping[str, str], is_to_end: Callable[[], bool]) -> None:
    """Become a new process of the same command line, under the same id: a supervisor sees nothing of it.

    environment: further variables. Returns where an end was asked for: the new process would know nothing of it.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # from now on it ends the process at once
    if not is_to_end():
        argv = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, argv, {**os.environ, **environment})


def answers(client: Redis) -> bool:
    """Whether the server answers, be it that it refuses."""
    try:
        client.ping()
    except _REFUSALS:
        return True
    except RedisError as error:
        return _FULL in str(error)
    return True


def set_from_handler(event: threading.Event) -> None:
    """Set an event from a signal's handler: the code that the signal interrupts may hold the event's own lock."""
    beside(event.set)


def beside(work: Callable[[], None]) -> None:
    """Do the work in a thread of its own, started without a lock that the interrupted code may hold."""
    _thread.start_new_thread(work, ())
