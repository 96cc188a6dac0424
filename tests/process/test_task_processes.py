"""Tasks by processes of this machine: one that is killed costs its task, and none outlives the process that builds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from mlforge.build.processes import ProcessRunner, command
from mlforge.build.runner import Origin
from mlforge.errors import Unavailable
from mlforge.store import LocalStore
from mlforge.training_sets.by_tasks.set_tasks import JoinTask
from tests.support import executors
from tests.support.executors import HOME, PROCESSES, TASKS, environment, published, result_files
from tests.support.projects import rows
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_files_that_processes_read_are_taken_up_and_set_aside_as_one_alone_does(
    tmp_path: Path,
) -> None:
    project = executors.project(tmp_path / "project", HOME)
    rows((1, 2, None)).write_parquet(project / "drops" / "no amount.parquet")
    rows((1, 2, 3.0)).drop("amount").write_parquet(project / "drops" / "lacks amount.parquet")
    executors.build(project, HOME)
    home = kept(project)
    (project / "feature_store").rename(tmp_path / "home")
    executors.define(project, PROCESSES)
    for name in ("in-groups", "watch", "kill-ingested"):
        (project / name).touch()

    executors.build(project, PROCESSES)

    assert kept(project) == home
    assert [*home[1]] == ["damaged.parquet", "lacks amount.parquet"]
    read = [line for line in (project / "watch").read_text().split() if "ingested" in line]
    assert len(read) == 8 + 1  # the process that is killed at a group is not the one that builds
    assert not (project / "feature_store" / "spend" / ".tasks").exists()


def kept(project: Path) -> tuple[Any, ...]:
    """The version, the quarantine and the file states of a project, but for what tells when it was built."""
    store = LocalStore(project / "feature_store")
    states = {
        path: state._replace(mtime_ns=0) for path, state in store.file_states("spend").items()
    }
    quarantine = {
        path: replace(bad, since=0) for path, bad in store.books("spend").quarantine.items()
    }
    return replace(store.read_metadata("spend"), created_at=0), quarantine, states


def test_a_process_whose_parent_is_gone_before_it_is_bound_ends() -> None:
    late = "from mlforge.core.bound import die_with_parent; die_with_parent(0)"
    ended = subprocess.run([sys.executable, "-c", late], check=False)

    assert ended.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_tasks_that_processes_refuse_are_run_here_and_the_reason_is_told_once(
    tmp_path: Path,
) -> None:
    tasks = join_tasks(tmp_path)
    runner = ProcessRunner(command(Origin(None, str(tmp_path)), 1 << 30), 2)

    with capture_logs() as logs:
        assert [*runner.run(tasks, lambda task: task.first)] == [0, 1]

    [refused] = [entry for entry in logs if entry["log_level"] == "warning"]
    assert refused["feature"] == "set"
    assert refused["why"].startswith("the definitions do not load: ")


LEAVES_FILES = """
import sys, tempfile
from pathlib import Path
left = Path(tempfile.mkdtemp())
Path(sys.argv[1], left.name).write_text(str(left))
for task in sys.stdin:
    print('{"host": "", "result": {"rows": 1, "unknown": {}}}', flush=True)
"""


def test_temporary_files_of_processes_go_with_the_tasks(tmp_path: Path) -> None:
    runner = ProcessRunner([sys.executable, "-c", LEAVES_FILES, str(tmp_path)], 2)

    results = [*runner.run(join_tasks(tmp_path), lambda task: None)]

    left = [Path(note.read_text()) for note in tmp_path.iterdir()]
    assert [result.rows for result in results] == [1, 1]
    assert left
    assert not any(folder.exists() for folder in left)


def join_tasks(folder: Path) -> list[JoinTask]:
    return [JoinTask("set", "", "polars", {}, str(folder), "", n, n + 1) for n in (0, 1)]


def test_a_process_that_cannot_be_started_is_told_with_its_task_and_is_not_the_features_fault(
    tmp_path: Path,
) -> None:
    runner = ProcessRunner([str(tmp_path / "none")], 2)

    with pytest.raises(Unavailable, match=r"for set: the task .* \(No such file or directory\)"):
        [*runner.run(join_tasks(tmp_path), lambda task: None)]


def temporary_of(project: Path) -> Path:
    """The folder for temporary files of builds of a project."""
    folder = project / "tmp"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def building(project: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A build whose processes are amid their tasks."""
    for name in ("hold", "watch"):
        (project / name).touch()
    process = subprocess.Popen(
        executors.command(PROCESSES),
        cwd=project,
        env=environment(PROCESSES.python) | {"TMPDIR": str(temporary_of(project))},
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
        code = process.wait(30)
        eventually(lambda: not any(map(is_alive, ran(project))))

    left, temporary = sent == signal.SIGKILL, temporary_of(project)
    assert code == (-sent if left else 128 + sent)
    assert [path.name[:22] for path in temporary.iterdir()] == ["mlforge-scratch-tasks-"] * left
    assert not (project / "feature_store" / "spend" / "_latest.json").exists()
    (project / "hold").unlink()
    executors.build(project, PROCESSES, TMPDIR=str(temporary))
    assert len(published(project)) == TASKS
    assert list(temporary.iterdir()) == []
