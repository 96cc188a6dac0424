"""Processes forked ahead of their jobs: when a job comes, its process has paid what a first job pays.

A spare serves one order and ends, as a fork made for that order would: jobs share nothing. Until then it
warms up, a step at a time, so that an order need not wait for more than the step in hand.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from worker.leash import die_with_parent

_ORDER_BYTES = 4_096  # what a pipe takes in one piece


@dataclass(frozen=True, slots=True)
class _Spare:
    pid: int
    pipe: int

    def take(self, order: bytes) -> bool:
        """Send the order; False if the process is no more."""
        try:
            os.write(self.pipe, order)
        except BrokenPipeError:
            self.bury()
            return False
        os.close(self.pipe)
        return True

    def bury(self) -> None:
        """Close the pipe, on which an idle spare ends, and leave no zombie."""
        os.close(self.pipe)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


class Spares:
    """Up to `count` idle processes. `begin` is called in each at once, `warm` then, `serve` with its order."""

    def __init__(
        self,
        count: int,
        begin: Callable[[], None],
        warm: Callable[[], Iterator[None]],
        serve: Callable[[str], None],
    ) -> None:
        self._count = count
        self._begin, self._warm, self._serve = begin, warm, serve
        self._idle: list[_Spare] = []

    @property
    def wanting(self) -> bool:
        """Whether there are fewer than there should be."""
        return len(self._idle) < self._count

    def refill(self) -> None:
        """Fork as many as are wanting."""
        while self.wanting:
            self._idle.append(self._fork())

    def give(self, order: str) -> int | None:
        """Let the oldest spare serve the order; its process, None if no spare lives."""
        text = order.encode()
        assert len(text) <= _ORDER_BYTES
        while self._idle:
            spare = self._idle.pop(0)
            if spare.take(text):
                return spare.pid
        return None

    def dismiss(self) -> None:
        """End all idle ones."""
        while self._idle:
            spare = self._idle.pop()
            with suppress(ProcessLookupError):
                os.kill(spare.pid, signal.SIGKILL)  # it may be in the middle of a step
            spare.bury()

    def _fork(self) -> _Spare:
        orders, pipe = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid:
            os.close(orders)
            return _Spare(pid, pipe)
        status = 1
        with suppress(BaseException):
            os.setpgrp()  # signals for the parent's group are not for it
            die_with_parent(parent, signal.SIGKILL)
            for held in (pipe, *(other.pipe for other in self._idle)):
                os.close(held)  # else nobody's pipe would end with the parent
            self._begin()
            self._await(orders)
            status = 0
        os._exit(status)

    def _await(self, orders: int) -> None:
        for _ in self._warm():
            if select.select([orders], [], [], 0)[0]:
                break
        order = os.read(orders, _ORDER_BYTES)
        if order:
            self._serve(order.decode())
