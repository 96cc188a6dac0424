"""A command that is bound to its parent ends when its parent does, whether or not the kernel helps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.workers import eventually
from worker import child_process

PARENT = """
import subprocess, sys
from worker import child_process
command = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"]
runner = {runner}
subprocess.Popen(runner).wait()
"""
WATCHED = """[sys.executable, "-c",
    "import os, sys; from worker.child_process import watch; watch(os.getppid(), sys.argv[1:])", *command]"""


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize(
    "runner", ["child_process.bound_to_parent(command)", WATCHED], ids=["kernel", "watched"]
)
def test_a_command_ends_with_its_killed_parent(runner):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(runner=runner)], stdout=subprocess.PIPE
    )
    child = int(parent.stdout.readline())
    assert is_running(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    eventually(lambda: not is_running(child))


def test_the_exit_code_is_passed_on():
    code = child_process.watch(os.getppid(), [sys.executable, "-c", "import sys; sys.exit(3)"])
    assert code == 3
