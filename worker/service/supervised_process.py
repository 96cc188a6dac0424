"""Processes that run for as long as the one that started them: started again where they end, and stopped with it."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from worker.child_process import bound_to_parent
from worker.supervision import survived

STOP_S = 15.0
"""How long a job in hand may take to finish once all is to stop."""
_BACK_OFF_S = (0.5, 1.0, 2.0, 5.0, 15.0, 30.0)
_STEADY_S = 30.0

Say = Callable[[str], None]
"""Tells a person a line."""


@dataclass
class SupervisedProcess:
    """A process that is to run for as long as this one does."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    on_line: Callable[[str, str], None]
    files: tuple[int, ...] = ()
    """Open files that the process gets, by their numbers."""
    nice: int = 0
    """By how much its priority is below that of this process."""
    process: subprocess.Popen[str] | None = None
    _anew: bool = False
    _started_at: float = 0.0
    _deaths: int = 0
    _start_at: float = 0.0

    def supervise(self, now: float, say: Say) -> None:
        """Start the process where it does not run, after pauses that grow."""
        if self.process is not None and self.process.poll() is None:
            return
        if self.process is not None:
            code, self.process = self.process.returncode, None
            if not self._anew:
                self._pause(code, now, say)
        if now >= self._start_at:
            self._start(now)

    def _pause(self, code: int, now: float, say: Say) -> None:
        self._deaths = 0 if now - self._started_at > _STEADY_S else self._deaths
        pause = _BACK_OFF_S[min(self._deaths, len(_BACK_OFF_S) - 1)]
        self._deaths += 1
        self._start_at = now + pause
        say(f"{self.name} ended ({_how(code)}); it starts again in {pause:g} s")

    def restart(self) -> None:
        """Ask the process to end; it starts again as soon as it has."""
        if self.process is not None:
            self._anew = True
            self.process.send_signal(signal.SIGTERM)

    def _start(self, now: float) -> None:
        self._started_at, self._anew = now, False
        self.process = subprocess.Popen(
            bound_to_parent(self.command, self.nice),
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=self.files,
            # Ctrl-C in the terminal is for this process, which stops its children. No session of its own:
            # Linux shares cores among sessions first, and nice values count within one alone (man 7 sched, autogroups).
            process_group=0,
        )
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:  # to its end: a pipe that nobody empties would stop the process
            with survived("tell what a process says", process=self.name):
                self.on_line(self.name, line.rstrip("\n"))


def stop_all(children: Sequence[SupervisedProcess], hurry: threading.Event, say: Say) -> None:
    """Stop all children by SIGTERM; those that still run after a while, or at a second Ctrl-C, are killed."""
    running = [child.process for child in children if child.process is not None]
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while any(process.poll() is None for process in running):
        if time.monotonic() > deadline or hurry.is_set():
            say("a job in hand is ended; it is done again at the next start")
            for process in running:
                process.kill()
                process.wait()
        time.sleep(0.02)


def _how(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
