"""Tasks by processes of this machine: each loads the definitions, runs one task at a time, and ends with the process that builds.

`mlforge.definitions.task_child` is their side.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

from mlforge.build.orders import Answer
from mlforge.build.runner import Origin, RunHere, Runner, Task
from mlforge.core import child
from mlforge.core.logs import get_logger
from mlforge.core.scratch import scratch_folder
from mlforge.errors import Unavailable

LOSSES = 3
"""So many processes may be lost at a task."""
_LOOK_S = 0.2
_HOST = "this machine"

log = get_logger("mlforge.build")


def command(origin: Origin, memory_limit: int) -> tuple[str, ...]:
    """The command of a process for these definitions, whose kernels keep so many bytes in memory where they can spill."""
    target, profile = origin.target or "", origin.profile or ""
    return child.command(
        "mlforge.definitions.task_child", target, origin.here, profile, str(memory_limit)
    )


class ProcessRunner(Runner):
    """Shares tasks among processes that it starts. command: that of such a process, which this one's id follows. most: how many run at once."""

    name = "local"

    def __init__(self, command: Sequence[str], most: int) -> None:
        self._command, self._most = command, most

    def run(self, tasks: Sequence[Task], here: RunHere) -> Iterable[Any]:
        """Each result once it is there, while the processes are at the next tasks.

        A task that they refuse, as the definitions' file was edited since, is run here.
        """
        if len(tasks) < 2:
            yield from map(here, tasks)
            return
        count = min(self._most, len(tasks))
        log.info("tasks shared among processes", tasks=len(tasks), processes=count)
        with (
            scratch_folder("tasks") as folder,
            _answers(self._command, folder, count, tasks) as answers,
        ):
            reason = ""
            for task, answer in zip(tasks, answers, strict=True):
                if not answer.is_refusal:
                    yield answer.result_of(task)
                    continue
                if answer.text != reason:
                    reason = answer.text
                    log.warning("run here, as a process refused it", feature=task.feature, why=reason)  # fmt: skip
                yield here(task)


@contextmanager
def _answers(
    command: Sequence[str], folder: Path, count: int, tasks: Sequence[Task]
) -> Iterator[Iterator[Answer]]:
    """The answers of so many processes, in the order of the tasks; the processes are gone when the block ends, however it does.

    folder: for the processes' temporary files, which they leave there as they are killed.
    """
    processes = [_Process(command, folder) for _ in range(count)]
    idle: SimpleQueue[_Process] = SimpleQueue()
    for process in processes:
        idle.put(process)

    def answer(task: Task) -> Answer:
        process = idle.get()
        try:
            return process.answer(task)
        finally:
            idle.put(process)

    # A process dies with the thread that started it, and these live until the block ends.
    pool = ThreadPoolExecutor(count, "mlforge-tasks")
    try:
        waiting = [pool.submit(answer, task) for task in tasks]
        yield map(_result, waiting)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.close()
        pool.shutdown()
        for process in processes:
            process.reaped()


def _result(future: Future[Answer]) -> Answer:
    """The result of a future. Polars' handler of Ctrl-C has waits begin again that have no end, so these have one."""
    while not wait([future], _LOOK_S).done:
        pass
    return future.result()


class _ClosedError(Exception):
    """The block that the process was started for has ended."""


class _Process:
    """A process that answers tasks, a line of JSON each; it starts with the first one, and anew where it was lost."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._command, self._folder = command, folder
        self._process: subprocess.Popen[str] | None = None
        self._lock, self._is_closed = Lock(), False

    def answer(self, task: Task) -> Answer:
        """The answer, by another process where one is lost; TaskFailed as an answer where that helps no more, Unavailable where none can be started."""
        for losses in range(1, LOSSES + 1):
            try:
                line = self._asked(task.to_json())
            except OSError as error:
                why = f"no process can be started for {task.title} ({error.strerror})"
                return Answer(_HOST, error=Unavailable.__name__, text=why)
            if line.endswith("\n"):
                return Answer.from_json(line)
            code = self.reaped()
            if self._is_closed:
                raise _ClosedError
            log.warning("a task was lost and is run again", task=task.id[:12], losses=losses, code=code)  # fmt: skip
        return Answer(
            _HOST,
            error="TaskFailed",
            text=f"{task.title} ended {LOSSES} processes that ran it, as one does that takes more memory than there is; "
            "with a lower memory_limit fewer tasks run at once",
        )

    def close(self) -> None:
        """Kill the process; no other is started."""
        with self._lock:
            self._is_closed = True
            if self._process is not None:
                self._process.kill()

    def _asked(self, task: str) -> str:
        """The line that the process answers; one without an end where it was lost."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(f"{task}\n")
            process.stdin.flush()
        return process.stdout.readline()

    def _started(self) -> subprocess.Popen[str]:
        with self._lock:
            if self._is_closed:
                raise _ClosedError
            if self._process is None:
                # In a group of its own: a terminal's Ctrl-C is the parent's, which ends it.
                self._process = subprocess.Popen(
                    (*self._command, str(os.getpid())),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "TMPDIR": str(self._folder)},
                    process_group=0,
                )
            return self._process

    def reaped(self) -> int | None:
        """The exit code of the process that was lost or killed; None where none was started."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        with suppress(BrokenPipeError):
            process.communicate()
        return process.returncode
