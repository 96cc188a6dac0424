"""Work done by several threads at once: for libraries that let go of the interpreter while they compute or wait."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

CORES = os.cpu_count() or 1


def begin(work: Callable[P, R], *args: P.args, **named: P.kwargs) -> Future[R]:
    """The result of a call that goes on beside the caller; made at once where no further thread can be started.

    Such work waits for no other that was begun so: all threads could be waiting then.
    """
    try:
        return _threads().submit(work, *args, **named)
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


@cache
def _threads() -> ThreadPoolExecutor:
    """Threads that are started as they are needed, and kept."""
    return ThreadPoolExecutor(CORES, "mlforge-side")


os.register_at_fork(after_in_child=_threads.cache_clear)  # a fork has none of its parent's threads
