"""The threads in which the server does what blocks: apart from those of answers with values, which none of it keeps waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

LOOKS = ThreadPoolExecutor(4, "mlforge-looks")
"""Documents and pages, which read the store."""
DEEDS = ThreadPoolExecutor(4, "mlforge-deeds")
"""Deeds that a person asks for: an approval builds, which takes its time."""
_P = ParamSpec("_P")
_T = TypeVar("_T")


async def in_thread(
    threads: Executor, work: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs
) -> _T:
    """The outcome of a call in one of these threads, in the caller's context."""
    call = partial(copy_context().run, work, *arguments, **named)
    return await asyncio.get_running_loop().run_in_executor(threads, call)
