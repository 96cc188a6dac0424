"""Whether this thread is collecting garbage: code that runs then was not called by the function at work.

The collector starts by itself in the midst of any call, and runs callbacks of libraries and finalizers of objects
that have nothing to do with that call.
"""

from __future__ import annotations

import gc
import threading
from typing import Any

_collecting: set[int] = set()  # threads


def is_being_collected() -> bool:
    """Whether this thread is collecting garbage now; known from the last `hear_collections` of this thread on."""
    return threading.get_ident() in _collecting


def hear_collections() -> None:
    """Start to know of collections, before the first callback of anybody else and until after the last one."""
    if gc.callbacks[:1] != [_begun]:
        gc.callbacks.insert(0, _begun)  # one that is further behind does no harm
    if gc.callbacks[-1:] != [_ended]:
        if _ended in gc.callbacks:
            gc.callbacks.remove(_ended)
        gc.callbacks.append(_ended)
    _collecting.discard(threading.get_ident())


def _begun(phase: str, _: dict[str, Any]) -> None:
    if phase == "start":
        _collecting.add(threading.get_ident())


def _ended(phase: str, _: dict[str, Any]) -> None:
    if phase == "stop":
        _collecting.discard(threading.get_ident())
