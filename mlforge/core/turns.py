"""The turns that Linux gives a process on a core: who answers requests gets short ones, at once."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from contextlib import suppress
from pathlib import Path

TURN_NS = 100_000
"""How long a turn is, in nanoseconds; others have some milliseconds."""
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""The call's number by machine: the C library has no name for it."""
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
"""struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period (man 2 sched_setattr)."""


def take_short_turns(process: int | None = None) -> None:
    """Have Linux give a process, and all that it begins, short turns on a core, which come as soon as it wakes; elsewhere nothing.

    Beside processes that compute it waits less for each turn, and has no greater share of a core for that. Linux heeds it from
    6.12 on (docs.kernel.org/scheduler/sched-eevdf.html). process: its pid; None for this process, with the threads that it has.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if not sys.platform.startswith("linux") or number is None:
        return
    with suppress(OSError):  # a system that does not tell of processes, or the process has ended
        for thread in Path(f"/proc/{process or 'self'}/task").iterdir():
            with suppress(OSError):  # it has ended
                _take_short_turns(number, int(thread.name))


def _take_short_turns(number: int, thread: int) -> None:
    policy = os.sched_getscheduler(thread)
    if policy not in (os.SCHED_OTHER, os.SCHED_BATCH):
        return  # somebody has given it another place already
    nice = os.getpriority(os.PRIO_PROCESS, thread)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, policy, 0, nice, 0, TURN_NS, 0, 0)
    # Where a container forbids the call, things stay as they are.
    ctypes.CDLL(None).syscall(number, thread, attributes, 0)
