"""Work done by several threads at once: for libraries that let go of the interpreter while they compute or wait."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from functools import cache, partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

CORES = os.cpu_count() or 1


def begin(work: Callable[P, R], *args: P.args, **named: P.kwargs) -> Future[R]:
    """The result of a call that goes on beside the caller, in its context; made at once where no further thread can be started.

    Such work waits for no other that was begun so: all threads could be waiting then.
    """
    try:
        return _threads().submit(copy_context().run, partial(work, *args, **named))
    except RuntimeError:
        done: Future[R] = Future()
        try:
            done.set_result(work(*args, **named))
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            done.set_exception(error)
        return done


def each_of(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """The results for some items, in their order; the caller takes the first. Raises what the work raises, once all of it has ended."""
    first, *others = items
    begun = [begin(work, item) for item in others]
    try:
        return [work(first), *(each.result() for each in begun)]
    finally:
        wait(begun)


def each_ahead(work: Callable[[T], R], items: Iterable[T], ahead: int | None = None) -> Iterator[R]:
    """The results for some items, in their order; while the caller uses one, threads make the next ones: so many, by default as there are cores."""
    ahead = CORES if ahead is None else ahead
    begun: deque[Future[R]] = deque()
    try:
        for item in items:
            begun.append(begin(work, item))
            if len(begun) > ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        wait(each for each in begun if not each.cancel())


class Behind:
    """Calls that a thread makes one after the other while the caller goes on; at most one waits to be done.

    A call raises what the one before it raised, which then was the last.
    """

    def __init__(self) -> None:
        self._done: Future[object] | None = None

    def call(self, work: Callable[[], object]) -> None:
        """Begin a call, once the one before has ended; made at once where no further thread can be started."""
        self.wait()
        try:
            self._done = _writers().submit(copy_context().run, work)
        except RuntimeError:
            work()

    def wait(self) -> None:
        """Return once the last call has ended. Raises what it raised."""
        done, self._done = self._done, None
        if done is not None:
            done.result()

    def settle(self) -> None:
        """Return once the last call has ended, however it did."""
        if self._done is not None:
            wait([self._done])


@cache
def _threads() -> ThreadPoolExecutor:
    """Threads that are started as they are needed, and kept."""
    return ThreadPoolExecutor(CORES, "mlforge-side")


@cache
def _writers() -> ThreadPoolExecutor:
    """Threads of their own: their work may wait for work that `begin` began."""
    return ThreadPoolExecutor(CORES, "mlforge-behind")


os.register_at_fork(after_in_child=_threads.cache_clear)  # a fork has none of its parent's threads
os.register_at_fork(after_in_child=_writers.cache_clear)
