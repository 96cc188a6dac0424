"""Who answers requests asks Linux for short turns on a core, and gets no other place for it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlforge.core.turns import TURN_NS

_RELEASE = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/sched").exists() or _RELEASE < (6, 12),
    reason="a system that does not heed it, or does not tell",
)
WHO_SERVES = """
import os, subprocess, sys, threading
from mlforge.core import turns
exec(sys.argv[1])
told = threading.Event()
threading.Thread(target=told.wait).start()
turns.take_short_turns()
begun = subprocess.Popen(["sleep", "60"])
print(*os.listdir("/proc/self/task"), begun.pid, flush=True)
sys.stdin.read()
told.set()
begun.kill()
"""


def of(thread: int) -> tuple[int, int, int]:
    """A thread's policy, nice value and length of turns, in nanoseconds, 0 where no length is told."""
    turns = re.search(r"slice +: +(\d+)", Path(f"/proc/{thread}/sched").read_text())
    place = os.sched_getscheduler(thread), os.getpriority(os.PRIO_PROCESS, thread)
    return *place, int(turns[1]) if turns else 0


def of_who_serves(before: str) -> set[tuple[int, int, int]]:
    with subprocess.Popen(
        [sys.executable, "-c", WHO_SERVES, before],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        line = process.stdout.readline()
        try:
            threads = [int(thread) for thread in line.split()]
            assert len(threads) == 3
            return {of(thread) for thread in threads}
        finally:
            process.stdin.close()


def test_threads_and_whatever_is_begun_later_take_short_turns_in_their_place():
    policy, nice, usual = of(os.getpid())
    assert usual != TURN_NS
    assert of_who_serves("os.nice(3)") == {(policy, nice + 3, TURN_NS)}


@pytest.mark.parametrize(
    "before",
    [
        "turns._SCHED_SETATTR = {}",
        "from pathlib import Path; turns.Path = lambda _: Path('/nowhere')",
        "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))",
    ],
    ids=["unknown machine", "nobody tells of processes", "placed by somebody"],
)
def test_elsewhere_nothing_changes(before):
    policy, nice, usual = of(os.getpid())
    left = (os.SCHED_IDLE, nice, 0) if "IDLE" in before else (policy, nice, usual)
    assert of_who_serves(before) == {left}


def test_the_embedded_server_takes_short_turns_with_all_of_its_threads(server):
    turns = [of(int(thread.name))[2] for thread in Path(f"/proc/{server.pid}/task").iterdir()]
    assert turns == [TURN_NS] * len(turns)
