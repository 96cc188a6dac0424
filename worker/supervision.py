"""Work in rounds that must not end: a fault ends only its round, and is logged.

A heartbeat says when such work last finished a round. Readiness, liveness and `mlforge status` ask it, so
that a thread that hangs or fails at each round does not pass for one that is well.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from polars.exceptions import PanicException
from redis.exceptions import RedisError

from mlforge.core.logs import get_logger
from mlforge.errors import MlforgeError, Unavailable

FAULTS = (Exception, PanicException)
"""All that code of ours, of a library or of a user raises; an order to stop is none of these."""
BACK_OFF_S = (1.0, 2.0, 5.0, 15.0)
"""Pauses after faults in a row; the last one repeats."""
LATE_S, DEAD_S = 30.0, 300.0
"""How long after its last good round work is late (not ready), and is given up (not alive)."""

AGAIN_S = 60.0
"""How long the same outage is not told again."""

log = get_logger(__name__)
_told_at: dict[str, float] = {}
"""When each outage was last told, in seconds of the monotonic clock, by its text."""


def tell_fault(what: str, error: BaseException, **about: object) -> None:
    """Log a fault in the words that fit it: an outage, an error of ours, or a mistake with its traceback.

    An outage is told at once, and again each `AGAIN_S` while it lasts, whatever work it ends.
    """
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    event = f"cannot {what}"
    if isinstance(error, RedisError):
        if _is_news(text):
            log.warning("server away", error=str(error), doing=what, **about)
    elif isinstance(error, Unavailable):
        # Not by its text, which tells how long a request took, too.
        if _is_news(f"{event} {about} {type(error).__name__}"):
            log.error(event, error=str(error), **about)
    elif isinstance(error, MlforgeError | OSError):
        log.error(event, error=str(error), **about)
    else:
        log.error(event, error=text, exc_info=error, **about)


def _is_news(outage: str) -> bool:
    """Whether an outage was not told within `AGAIN_S`; notes that it is told now.

    Without a lock, which a fork would copy as held: two threads at once may both tell it.
    """
    now = time.monotonic()
    for text, told_at in list(_told_at.items()):
        if now - told_at >= AGAIN_S:
            _told_at.pop(text, None)
    is_news = outage not in _told_at
    if is_news:
        _told_at[outage] = now
    return is_news


@contextmanager
def survived(what: str, **about: object) -> Iterator[None]:
    """Log a fault of the block and go on after it."""
    try:
        yield
    except FAULTS as error:
        tell_fault(what, error, **about)


class TimeIsUpError(BaseException):
    """A job has run for as long as it may; no Exception, so that nobody takes it for a fault of a file."""


@dataclass
class Heartbeat:
    """The time when a piece of work last finished a round, and the faults of the rounds since."""

    work: str
    finished_at: float = field(default_factory=time.monotonic)
    error: str | None = None

    @property
    def age_s(self) -> float:
        """Seconds since the last good round."""
        return time.monotonic() - self.finished_at

    def finished(self) -> None:
        """Note that a round is done and was good."""
        self.finished_at, self.error = time.monotonic(), None

    def failed(self, error: BaseException) -> None:
        """Note the fault that ended a round."""
        self.error = f"{type(error).__name__}: {error}"[:500]

    def problem(self, within_s: float = LATE_S) -> str:
        """The fault, if no round has finished for this many seconds; else an empty text."""
        return unfinished(self.age_s, self.error, within_s)


@contextmanager
def noted(heartbeat: Heartbeat, what: str, **about: object) -> Iterator[None]:
    """As `survived`; the heartbeat tells how the block ended."""
    try:
        yield
    except FAULTS as error:
        heartbeat.failed(error)
        tell_fault(what, error, **about)
    else:
        heartbeat.finished()


@dataclass
class Rounds:
    """Does work again and again in a thread of its own, each `every_s`, with growing pauses after faults."""

    heartbeat: Heartbeat
    work: Callable[[], None]
    every_s: float

    def run(self, stop: threading.Event) -> None:
        """Do rounds until `stop` is set."""
        faults = 0
        while not stop.wait(pause_after(faults) if faults else self.every_s):
            try:
                self.work()
            except BaseException as error:  # noqa: BLE001 - even a SystemExit would end the thread in silence
                faults += 1
                self.heartbeat.failed(error)
                tell_fault(self.heartbeat.work, error)
            else:
                faults = 0
                self.heartbeat.finished()


def unfinished(age_s: float, error: str | None, within_s: float = LATE_S) -> str:
    """The fault of work whose last good round is so old; an empty text if it is well."""
    if age_s <= within_s:
        return ""
    because = f" ({error})" if error else ""
    return f"no round was finished for {age_s:.0f} s{because}"


def pause_after(faults: int) -> float:
    """The seconds to wait after a number of faults in a row, which is at least 1."""
    return BACK_OFF_S[min(faults, len(BACK_OFF_S)) - 1]
