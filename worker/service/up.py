"""Everything in one terminal: the server, the watcher, the workers, and a line for each drop."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis

from mlforge.core.text import plural
from mlforge.definitions.environment import PROFILE, REDIS_URL
from mlforge.definitions.running import FOLDER, NOTE, project_folder, read_note
from mlforge.errors import MissingExtra, MlforgeError
from worker.child_process import bound_to_parent
from worker.connection import hide_password
from worker.ending import set_from_handler
from worker.project import DEFINITIONS, Project, Settings
from worker.service.embedded_redis import EmbeddedServer
from worker.service.log_file import LogFile
from worker.service.process import Beside
from worker.service.telling import described, record_of, tell_person, worth_showing
from worker.service.web import Web, web_listener
from worker.state.event_log import EventLog
from worker.supervision import FAULTS, pause_after, survived

_WATCHER, _SERVER = "watcher", "server"
GIVES_WAY = 5
"""The nice value of workers: of a core that both want, the server of requests gets three quarters."""
STOP_S = 15.0
"""How long a job in hand may take to finish once all is to stop."""
_TICK_S = 0.25
_BACK_OFF_S = (0.5, 1.0, 2.0, 5.0, 15.0, 30.0)
_STEADY_S = 30.0
_NOTED_S = 5.0
_FOLLOW_MS = 3_000
"""How long to wait for an entry: less than the client waits for any answer, which comes half a second later where the server rests."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of `up`. redis_url: an existing server; None starts an embedded one. web: None answers nobody over HTTP."""

    target: str | None
    here: Path
    profile: str | None = None
    workers: int = 2
    redis_url: str | None = None
    polling: bool = False
    fork: bool = True
    beside: Beside = field(default_factory=Beside)
    web: Web | None = None


@dataclass
class Child:
    """A process that is to run for as long as `up` does."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    on_line: Callable[[str, str], None]
    files: tuple[int, ...] = ()
    """Open files that the process gets, by their numbers."""
    nice: int = 0
    """By how much its priority is below that of `up`."""
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
            # Ctrl-C in the terminal is for `up`, which stops its children. No session of its own:
            # Linux shares cores among sessions first, and nice values count within one alone (man 7 sched, autogroups).
            process_group=0,
        )
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:  # to its end: a pipe that nobody empties would stop the process
            with survived("tell what a process says", process=self.name):
                self.on_line(self.name, line.rstrip("\n"))


@dataclass
class Up:
    """A running `mlforge up`; `say` prints a line for a person."""

    plan: Plan
    say: Say
    stop: threading.Event = field(default_factory=threading.Event)
    hurry: threading.Event = field(default_factory=threading.Event)
    starts: bool = True  # nothing is supervised yet, and the start may wait for a server
    server: Child | None = None
    """The process that answers over HTTP; it is started anew for edited definitions."""
    scope: str = ""
    """Under which the project's event log is found: the watcher says so at each of its starts."""
    begun_with: str = ""
    """The hash of the definitions of the start, until the watcher has told of its own: the process that answers has these already."""

    def run(self) -> int:
        """Run until `stop` is set; nothing that it started outlives it. `hurry` waits for no job."""
        with ExitStack() as stack:
            folder = project_folder(self.plan.target, self.plan.here) / FOLDER
            url = self.plan.redis_url
            note = stack.enter_context(_only_one(folder, self.plan.profile, url is not None))
            where = (
                f"your own, {hide_password(url)}"
                if url
                else f"embedded, data in {folder / 'redis'}"
            )
            if url is None:
                server = EmbeddedServer(folder / "redis")
                stack.enter_context(server)
                url = server.url
            else:
                server = None
            opened = Project.open(
                Settings(url, self.plan.target, self.plan.here, profile=self.plan.profile)
            )
            note(url)
            self._greet(opened, url, where)
            log = stack.enter_context(closing(LogFile(folder / "up.log")))
            children = self._children(url, log, self._listener(stack))
            stack.callback(_stop_all, children, self.hurry, self.say)
            self.scope, self.begun_with = opened.scope, opened.hash
            threading.Thread(target=self._follow, args=(opened.redis,), daemon=True).start()
            self._supervise(children, server)
            self.say("stopping")
        return 0

    def _supervise(self, children: Sequence[Child], server: EmbeddedServer | None) -> None:
        """Keep all processes running until `stop` is set; a start that fails is tried again later."""
        self.starts, faults = False, 0
        while not self.stop.wait(pause_after(faults) if faults else _TICK_S):
            try:
                if server is not None and not server.alive:
                    self.say("the embedded server ended; it starts again")
                    server.start()
                for child in children:
                    child.supervise(time.monotonic(), self.say)
                faults = 0
            except FAULTS as error:
                faults += 1
                self.say(
                    f"cannot start what ended, tried again in {pause_after(faults):g} s: {error}"
                )

    def _greet(self, project: Project, url: str, where: str) -> None:
        definitions = project.definitions
        self.say(f"mlforge up: {plural(len(definitions.features), 'feature')} of {project.name}")
        for name in sorted(definitions.features):
            source = definitions.source(name)
            missing = "  (not there yet: it waits)" if source.missing else ""
            self.say(f"  {name:<24} {source.text}{missing}")
        self.say(f"store    {getattr(definitions.store, 'path', definitions.store)}")
        self.say(f"redis    {where}")
        self.say(f"{REDIS_URL}={hide_password(url) if self.plan.redis_url else url}")

    def _listener(self, stack: ExitStack) -> socket.socket | None:
        """The socket to answer over HTTP on, which outlives restarts of the process that does; None for nobody."""
        if self.plan.web is None:
            return None
        try:
            return stack.enter_context(web_listener(self.plan.web))
        except MissingExtra as error:
            self.say(f"nothing is answered over HTTP: {error}")
            return None

    def _children(self, url: str, log: LogFile, listener: socket.socket | None) -> list[Child]:
        environment = dict(os.environ) | {REDIS_URL: url, "PYTHONUNBUFFERED": "1"}
        if self.plan.target is not None:
            environment[DEFINITIONS] = self.plan.target
        if self.plan.profile is not None:
            environment[PROFILE] = self.plan.profile
        mlforge = [sys.executable, "-P", "-m", "mlforge"]
        beside = self.plan.beside
        watcher = [*mlforge, "watch", f"--audit-every={beside.audit_every_s:g}"]
        watcher += ["--polling"] if self.plan.polling else []
        if beside.metrics_port is not None:
            watcher += [
                f"--metrics-port={beside.metrics_port}",
                f"--metrics-host={beside.metrics_host}",
            ]
        worker = [*mlforge, "worker", *([] if self.plan.fork else ["--no-fork"])]

        def on_line(name: str, line: str) -> None:
            with survived("write the log"):
                log.write(f"{name} {line}\n")
            record = record_of(line)
            if name == _WATCHER and record.get("event") == "watching" and record.get("scope"):
                self.scope = str(record["scope"])
            shown = worth_showing(record, line)
            if shown is not None:
                self.say(f"{name}: {shown}")

        children = [Child(_WATCHER, watcher, environment, on_line)]
        children += [
            Child(f"worker-{number}", worker, environment, on_line, nice=GIVES_WAY)
            for number in range(1, self.plan.workers + 1)
        ]
        if listener is not None:
            number = listener.fileno()
            command = [*mlforge, "serve", f"--fd={number}"]
            self.server = Child(_SERVER, command, environment, on_line, (number,))
            children.append(self.server)
        return children

    def _follow(self, redis: Redis) -> None:
        """Print a line for each entry of the event log, until `stop` is set."""
        scope, last = self.scope, None
        while not self.stop.is_set():
            # Another store: its watcher is about to write its first entries.
            if scope != self.scope:
                scope, last = self.scope, "0"
            try:
                events = EventLog(redis, scope)
                last = last or events.last_id()
                for entry in events.read(last, wait_ms=_FOLLOW_MS):
                    last = entry.id
                    self.say(described(entry))
                    if entry.kind == "definitions":
                        self._follow_definitions(str(entry.details.get("hash")))
            except FAULTS:  # the processes tell of an outage, each for itself
                self.stop.wait(0.5)

    def _follow_definitions(self, hash_: str) -> None:
        """Have the process that answers begin anew with definitions that were taken up, unless it has begun with them."""
        has_them, self.begun_with = hash_ == self.begun_with, ""
        if self.server is not None and not has_them:
            self.server.restart()


class _StartEnds(BaseException):
    """Raised amid the start where an end is asked for; no Exception, as the definitions may be at work."""


def run(plan: Plan) -> int:
    """Run `mlforge up` in this process until Ctrl-C or SIGTERM; either of them also ends its start."""
    up = Up(plan, tell_person)

    def stop(*_: object) -> None:
        is_first = not up.stop.is_set()
        set_from_handler(up.stop if is_first else up.hurry)
        if is_first and up.starts:
            raise _StartEnds

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        return up.run()
    except _StartEnds:
        up.say("stopping")
        return 0


@contextmanager
def _only_one(folder: Path, profile: str | None, is_own: bool) -> Iterator[Callable[[str], None]]:
    """Hold the project's lock; yields a function that writes the REDIS_URL where other processes find it.

    is_own: whether the server is the user's own, whose password is not told to whoever starts a second one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    path = folder / NOTE
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            running = _note_of_another(path)
            url = str(running.get("url") or "...")
            told = hide_password(url) if running.get("own") else url
            raise MlforgeError(
                f"mlforge up runs here already (process {running.get('pid', 'unknown')}); "
                f"use it: {REDIS_URL}={told}, or stop it with Ctrl-C in its terminal"
            ) from error

        def note(url: str | None) -> None:
            file.seek(0)
            file.truncate()
            named = {} if profile is None else {"profile": profile}
            own = {"own": True} if is_own else {}
            json.dump({"pid": os.getpid(), "url": url, **named, **own}, file)
            file.flush()

        note(None)
        try:
            yield note
        finally:
            file.seek(0)
            file.truncate()


def _note_of_another(path: Path) -> dict[str, Any]:
    """The note of the `up` that runs here; an `up` that has just started gets time to write it."""
    deadline = time.monotonic() + _NOTED_S
    while not (note := read_note(path)).get("url") and time.monotonic() < deadline:
        time.sleep(_TICK_S)
    return note


def _stop_all(children: Sequence[Child], hurry: threading.Event, say: Say) -> None:
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
