"""The watcher process: watches sources and definitions, and reconciles."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import structlog
from redis.exceptions import RedisError

from worker.follow import Follower
from worker.lag import behind
from worker.project import Project, Settings
from worker.reconcile import Reconciler
from worker.requests import Requests
from worker.watcher import Timing, Watcher

log = structlog.get_logger()


def run(settings: Settings, timing: Timing) -> int:
    """Run until SIGTERM or SIGINT; starts itself anew, in this process, for edited definitions.

    Raises MlforgeError if the definitions or the server are not to be had at the start.
    """
    project = Project.open(settings)
    definitions = project.definitions
    stop, anew = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def taken_up() -> None:
        anew.set()
        stop.set()

    def broken(error: str) -> None:
        log.error("edited definitions do not import: the old ones stay in use", error=error)
        _tell(project, "definitions_broken", error=error)

    others_before = project.make_current()
    if others_before:
        _tell(project, "definitions", hash=project.hash, features=sorted(definitions.features))
    requests = Requests(project)
    follower = Follower(project, taken_up, broken)
    sources = {name: definitions.source(name) for name in definitions.features}
    watcher = Watcher(
        sources,
        requests,
        timing,
        on_tick=follower.tick,
        on_start=lambda: _tell(project, "watching"),
        why="definitions" if others_before else "start",
    )
    reconciler = Reconciler(project, requests, behind)
    thread = threading.Thread(target=reconciler.run, args=(stop,), name="reconcile")
    thread.start()
    log.info("watching", definitions=project.hash[:12], features=sorted(definitions.features))
    try:
        watcher.run(stop)
    finally:
        stop.set()
        thread.join()
    if anew.is_set():
        log.info("edited definitions are taken up")
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return 0


def _tell(project: Project, kind: str, **details: Any) -> None:
    try:
        project.journal.write(kind, **details)
    except RedisError as error:
        log.warning("server away", error=str(error))
