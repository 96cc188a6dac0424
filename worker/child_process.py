"""Runs a command that must not outlive its parent: `python child_process.py PARENT_PID NICE COMMAND ...`.

On Linux the kernel sends the command a signal when the parent dies. Elsewhere this process stays,
watches the parent and ends the command. Only the standard library is used: it starts in milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

ON_LINUX = sys.platform.startswith("linux")
GROWTH_BYTES = 512 << 20
"""By how much a process may have grown, at the most, to be given more work."""
_PR_SET_PDEATHSIG = 1
_GRACE_S = 10.0


def bound_to_parent(command: Sequence[str], nice: int = 0) -> list[str]:
    """The command line that runs a command bound to the caller, which it does not outlive.

    nice: by how much its priority is below the caller's.
    """
    runner = [sys.executable, "-I", "-S", str(Path(__file__))]
    return [*runner, str(os.getpid()), str(nice), *command]


def resident_bytes() -> int:
    """Bytes of this process in memory; where the system does not tell, the most that there ever were."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns only where the kernel does not help."""
    parent, nice, command = int(arguments[0]), int(arguments[1]), list(arguments[2:])
    with suppress(OSError):  # a sandbox may refuse even to lower it
        os.nice(nice)
    if ON_LINUX:
        # As mlforge.core.bound, which is not imported here; and with time to end in order.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # it died before the call
            os.kill(os.getpid(), signal.SIGTERM)
        os.execvp(command[0], command)
    return watch(parent, command)


def watch(parent: int, command: Sequence[str]) -> int:
    """Run the command as a child, and end it when the parent is gone."""
    child = subprocess.Popen(command, close_fds=False)  # it gets the files that this process got
    for forwarded in (signal.SIGTERM, signal.SIGINT):
        signal.signal(forwarded, lambda number, _: child.send_signal(number))
    while child.poll() is None:
        if os.getppid() != parent:
            child.terminate()
            try:
                child.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()
        time.sleep(0.2)
    return child.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
