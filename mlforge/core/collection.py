"""The garbage collector kept from what stays: values while very many are read, and all that a process has loaded."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_WHILE_LOADING = 1_000_000
"""So many new objects start a collection while a process loads what it needs: more than what it needs is made of."""
_MANY = 50_000
"""So many new objects that stay are worth to be taken for old at once."""
_usual: list[tuple[int, int, int]] = []
"""The thresholds to go back to, while it loads."""
_ends_soon: list[bool] = [False]
"""Whether this process is a command or a job of ours, which ends before long."""


@contextmanager
def collection_paused() -> Iterator[None]:
    """Let no collection of cycles begin in the block: all that it makes is going to stay.

    With a hundred thousand files collections take longer than the reading. Very many objects are taken for old at the end: young ones
    would be gone through three times before long. Threads that end such blocks in another order
    than they began them only let collections begin sooner.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if gc.get_count()[0] >= _MANY:
            _take_for_old()
        gc.enable()


def _take_for_old() -> None:
    """Have only full collections look at what is alive now, and none at all in a process that ends soon.

    One that goes on, and in which somebody has had some looked at by none, is left as it is: circles alive now would never be freed.
    """
    has_frozen = gc.get_freeze_count() > 0
    if has_frozen and not _ends_soon[0]:
        return
    gc.freeze()
    if not has_frozen:
        gc.unfreeze()


@contextmanager
def loading() -> Iterator[None]:
    """Have collections of this process pass over all that it makes until `end_loading` is called: modules stay.

    Collections amid the imports, and the last at the end of the process, which looks at each object of theirs once more, take a
    fifth of the CPU of a command that does little.
    """
    _ends_soon[0] = True
    _usual.append(gc.get_threshold())
    gc.set_threshold(_WHILE_LOADING)
    try:
        yield
    finally:
        end_loading()
        gc.freeze()


def end_loading() -> None:
    """Have collections come as often as usual, and look at nothing that is alive now; in a process that is not `loading`, nothing."""
    if _usual:
        gc.freeze()
        gc.set_threshold(*_usual.pop())


def leave_loaded_alone() -> None:
    """Have collections look no more at what is alive now: modules, definitions and caches stay for as long as the process does.

    To look at the hundred thousand objects of a server takes about 80 ms, and each request waits meanwhile. They are still
    freed once nothing refers to them; only circles among them are not. Source: `gc.freeze` of Python's documentation.
    """
    _ends_soon[0] = False
    gc.collect()
    gc.freeze()
