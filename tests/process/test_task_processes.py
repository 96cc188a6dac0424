"""Tasks by processes of this machine: one that is killed costs its task, and none outlives the process that builds."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import executors
from tests.support.executors import HOME, PROCESSES, TASKS, environment, published, result_files
from tests.support.workers import eventually


def ran(project: Path) -> list[int]:
    """The processes that ran a task, one for each task."""
    return [int(line.partition("-")[0]) for line in (project / "watch").read_text().split()]


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_two_processes_of_which_one_is_killed_write_the_bytes_of_one_alone(tmp_path: Path) -> None:
    home = executors.project(tmp_path / "home", HOME)
    executors.build(home, HOME)
    project = executors.project(tmp_path / "project", PROCESSES)
    for name in ("watch", "kill"):
        (project / name).touch()

    built = executors.build(project, PROCESSES)

    assert "a task was lost and is run again" in built.stdout + built.stderr
    assert published(project) == published(home)
    assert len(ran(project)) == TASKS + 1
    assert len(set(ran(project))) == 3
    assert not any(map(is_alive, ran(project)))


@contextmanager
def building(project: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A build whose processes are amid their tasks."""
    for name in ("hold", "watch"):
        (project / name).touch()
    process = subprocess.Popen(
        executors.command(PROCESSES),
        cwd=project,
        env=environment(PROCESSES.python),
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        eventually(lambda: len(result_files(project)) > 1 and len(set(ran(project))) == 2)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_a_build_that_is_ended(tmp_path: Path, sent: signal.Signals) -> None:
    project = executors.project(tmp_path / "project", PROCESSES)
    with building(project) as process:
        os.killpg(process.pid, sent)
        process.wait(30)
        eventually(lambda: not any(map(is_alive, ran(project))))

    assert not (project / "feature_store" / "spend" / "_latest.json").exists()
    (project / "hold").unlink()
    executors.build(project, PROCESSES)
    assert len(published(project)) == TASKS
