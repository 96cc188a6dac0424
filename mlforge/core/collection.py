"""Reading very many values at once, without the garbage collector's looking at all of them again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Let no collection of cycles begin in the block: all that it makes is going to stay.

    With a hundred thousand files collections take longer than the reading. Threads that end such blocks in another order
    than they began them only let collections begin sooner.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
