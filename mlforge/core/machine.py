"""The machine, or the container, in which this process runs."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_CONTAINER = Path("/sys/fs/cgroup/memory.max")
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def cores() -> int:
    """The number of cores."""
    return os.cpu_count() or 1


def memory() -> int:
    """Bytes of memory that this process may use: its container's, where that has less than the machine."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(_CONTAINER.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no container's, or "max"
        return machine


@cache
def boot() -> str:
    """The id of this machine's last start, the same in all its containers; empty where the system tells none."""
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
