"""Processes forked ahead of their orders: the process of a job has already done the costly first steps.

A process of the pool serves one order after the other, for as long as its service says that it may. Between orders it
warms up, a step at a time, so that an order need not wait for more than the step in hand. It reports when it has
served, and whether it goes on: nobody waits for its end, which takes the system a while.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from mlforge.core.bound import die_with_parent

ORDER_BYTES = 4_096
"""The most that an order has: a pipe takes so much in one piece."""
_LOOK_S = 0.1
_GOES_ON, _ENDS = b"+", b"."


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of an order: 0 if it was served, else the process's exit status, None if it was reaped elsewhere.

    goes_on: the process waits for another order.
    """

    status: int | None
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class ForkedProcess:
    """A forked process, with the pipe that brings its order and the pipe on which it reports that it has served."""

    pid: int
    orders: int
    served: int

    def take(self, order: bytes) -> bool:
        """Send the order; False if the process is no more."""
        try:
            os.write(self.orders, order)
        except BrokenPipeError:
            self.bury()
            return False
        return True

    def wait(self) -> Outcome:
        """Wait until the process has served its order, or has ended.

        A closed pipe is no proof of its end, since processes that it started may hold the pipe open.
        """
        outcome = self._outcome()
        if not outcome.goes_on:
            os.close(self.orders)
            os.close(self.served)
        return outcome

    def _outcome(self) -> Outcome:
        with suppress(ChildProcessError):
            while True:
                is_ready = bool(select.select([self.served], [], [], _LOOK_S)[0])
                report = os.read(self.served, 1) if is_ready else b""
                if report == _GOES_ON:
                    return Outcome(0, goes_on=True)
                if report:
                    threading.Thread(
                        target=_reap, args=(self.pid,), name="reap", daemon=True
                    ).start()
                    return Outcome(0)
                ended, status = os.waitpid(self.pid, 0 if is_ready else os.WNOHANG)
                if ended:
                    return Outcome(status)
        return Outcome(None)

    def bury(self) -> None:
        """Close the pipes, on which an idle process ends, and leave no zombie."""
        os.close(self.orders)
        os.close(self.served)
        _reap(self.pid)


class PreforkPool:
    """Up to `count` idle processes. `begin` is called in each at once, `warm` then.

    `warm` yields after each of its steps the seconds that its next step can wait for an order; it goes on between orders.
    `serve` is called with each order, and returns whether the process may serve another.
    """

    def __init__(
        self,
        count: int,
        begin: Callable[[], None],
        warm: Callable[[], Iterator[float]],
        serve: Callable[[str], bool],
    ) -> None:
        self._count = count
        self._begin, self._warm, self._serve = begin, warm, serve
        self._idle: list[ForkedProcess] = []

    @property
    def wanting(self) -> bool:
        """Whether the pool has fewer processes than it should."""
        return len(self._idle) < self._count

    def refill(self) -> None:
        """Fork as many as are wanting."""
        while self.wanting:
            self._idle.append(self._fork())

    def give(self, order: str) -> ForkedProcess | None:
        """Let the oldest process serve the order; None if no process lives."""
        text = order.encode()
        assert len(text) <= ORDER_BYTES
        while self._idle:
            process = self._idle.pop(0)
            if process.take(text):
                return process
        return None

    def take_back(self, process: ForkedProcess) -> None:
        """Take back a process that goes on: it is the next to serve, as it is the warmest."""
        self._idle.insert(0, process)

    def dismiss(self) -> None:
        """End all idle ones."""
        while self._idle:
            process = self._idle.pop()
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)  # it may be in the middle of a step
            process.bury()

    def _fork(self) -> ForkedProcess:
        take, orders = os.pipe()
        served, tell = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid:
            os.close(take)
            os.close(tell)
            return ForkedProcess(pid, orders, served)
        status = 1
        with suppress(BaseException):
            os.setpgrp()  # signals for the parent's group are not for it
            die_with_parent(parent)
            # Else nobody's pipe would end with the process at its other end.
            for held in (
                orders,
                served,
                *(end for s in self._idle for end in (s.orders, s.served)),
            ):
                os.close(held)
            self._begin()
            self._await(take, tell)
            status = 0
        os._exit(status)

    def _await(self, orders: int, tell: int) -> None:
        steps, goes_on = self._warm(), True
        while goes_on:
            for pause in steps:
                if select.select([orders], [], [], pause)[0]:
                    break
            order = os.read(orders, ORDER_BYTES)
            if not order:
                return
            goes_on = self._serve(order.decode())
            os.write(tell, _GOES_ON if goes_on else _ENDS)


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)
