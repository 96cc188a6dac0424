"""Everything in one terminal: the server, the watcher, the workers, and a line for each drop."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis

from mlforge.core.text import plural
from mlforge.definitions.environment import PROFILE, REDIS_URL
from mlforge.definitions.running import FOLDER, project_folder
from mlforge.errors import MissingExtra
from worker.connection import hide_password
from worker.ending import set_from_handler
from worker.project import DEFINITIONS, Project, Settings
from worker.service.embedded_redis import EmbeddedServer
from worker.service.log_file import LogFile
from worker.service.process import Beside
from worker.service.supervised_process import Say, SupervisedProcess, stop_all
from worker.service.telling import described, record_of, tell_person, worth_showing
from worker.service.up_lock import only_one
from worker.service.web import Web, web_listener
from worker.state.event_log import EventLog
from worker.supervision import FAULTS, pause_after, survived

_WATCHER, _SERVER = "watcher", "server"
GIVES_WAY = 5
"""The nice value of workers: of a core that both want, the server of requests gets three quarters."""
_TICK_S = 0.25
_FOLLOW_MS = 3_000
"""How long to wait for an entry: less than the client waits for any answer, which comes half a second later where the server rests."""


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
class Up:
    """A running `mlforge up`; `say` prints a line for a person."""

    plan: Plan
    say: Say
    stop: threading.Event = field(default_factory=threading.Event)
    hurry: threading.Event = field(default_factory=threading.Event)
    starts: bool = True  # nothing is supervised yet, and the start may wait for a server
    server: SupervisedProcess | None = None
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
            note = stack.enter_context(only_one(folder, self.plan.profile, url is not None))
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
            stack.callback(stop_all, children, self.hurry, self.say)
            self.scope, self.begun_with = opened.scope, opened.hash
            threading.Thread(target=self._follow, args=(opened.redis,), daemon=True).start()
            self._supervise(children, server)
            self.say("stopping")
        return 0

    def _supervise(
        self, children: Sequence[SupervisedProcess], server: EmbeddedServer | None
    ) -> None:
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

    def _children(
        self, url: str, log: LogFile, listener: socket.socket | None
    ) -> list[SupervisedProcess]:
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

        children = [SupervisedProcess(_WATCHER, watcher, environment, on_line)]
        children += [
            SupervisedProcess(f"worker-{number}", worker, environment, on_line, nice=GIVES_WAY)
            for number in range(1, self.plan.workers + 1)
        ]
        if listener is not None:
            number = listener.fileno()
            command = [*mlforge, "serve", f"--fd={number}"]
            self.server = SupervisedProcess(_SERVER, command, environment, on_line, (number,))
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
