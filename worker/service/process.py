"""The watcher process: watches sources and definitions, and reconciles."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from mlforge.core.logs import get_logger
from mlforge.errors import DefinitionError
from mlforge.maintenance.operations import list_anew
from mlforge.online.staleness import behind
from worker.ending import Ending, set_from_handler, start_anew
from worker.monitor.metrics import Exporter, Health
from worker.project import Project, Settings
from worker.queue.requests import Requests
from worker.reconcile.audit_scheduler import Auditor
from worker.reconcile.reconciler import TICK_S, Reconciler
from worker.state.notices import Notices
from worker.state.pending import PendingRequest
from worker.supervision import Heartbeat, Rounds, survived
from worker.watch.definitions_watch import Follower
from worker.watch.watcher import Timing, Watcher

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Beside:
    """Further work of the process: audits at an interval, and metrics at a port (None: no metrics)."""

    audit_every_s: float = 0.0
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"


def run(settings: Settings, timing: Timing, beside: Beside) -> int:
    """Run until SIGTERM or SIGINT; starts itself anew, in this process, for edited definitions.

    Raises MlforgeError if the definitions do not load or the server does not answer at the start.
    """
    project = Project.open(settings)
    definitions = project.definitions
    stop, anew = threading.Event(), threading.Event()
    ending = Ending(settings.redis_url)

    def end(*_: object) -> None:
        set_from_handler(stop)
        ending.begin()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)

    def taken_up() -> None:
        anew.set()
        stop.set()

    def broken(error: str) -> None:
        log.error("edited definitions do not import: the old ones stay in use", error=error)
        _tell(project, "definitions_broken", error=error)

    def unsteady(sentence: str) -> None:
        log.error("nothing is done", error=sentence)
        _tell(project, "definitions_unsteady", error=sentence)

    refuse_a_store_in_use(project)
    project.take_over()
    takeover = project.make_current()
    if takeover.others_before:
        _tell(project, "definitions", hash=project.hash, features=sorted(definitions.features))
        with survived("end the rest of features"):
            project.work_queue.end_rests(definitions.features)
    requests, auditor = Requests(project), Auditor(project, beside.audit_every_s)
    watching, reconciling = Heartbeat("watch"), Heartbeat("reconcile")
    health = Health(project, (watching, reconciling))

    def request(pending: Mapping[str, PendingRequest]) -> None:
        with survived("give way to work"):
            auditor.give_way()
        requests.each(pending)
        with survived("count drops"):
            project.counts.add_drops(pending)

    def started() -> None:
        health.scanned.set()
        _tell(project, "watching")

    def unseal(feature: str, path: str) -> None:
        if list_anew(definitions.store, feature):
            log.warning("an object came into a sealed partition", feature=feature, path=path)
            _tell(project, "late", feature=feature, path=path)

    follower = Follower(project, taken_up, broken, unsteady)

    def looked() -> None:
        watching.finished()
        with survived("follow the definitions"):
            follower.tick()

    sources = {name: definitions.source(name) for name in definitions.features}
    watcher = Watcher(
        sources,
        request,
        replace(timing, hints=settings.hints),
        on_tick=looked,
        on_fault=watching.failed,
        on_start=started,
        why="definitions" if takeover.others_before else "start",
        unseal=unseal,
    )
    reconciler = Reconciler(project, requests, behind, auditor.tick, since=takeover.since)

    def reconcile() -> None:
        try:
            if not project.is_of_its_store():
                log.warning("another store was made in the place of the old one: starting anew")
                return taken_up()
            reconciler.tick(time.monotonic())
        finally:
            project.presence.report(health.heartbeats)

    rounds = Rounds(reconciling, reconcile, TICK_S)
    thread = threading.Thread(target=rounds.run, args=(stop,), name="reconcile")
    thread.start()
    if watcher.takes_hints:
        notices = Notices(project.redis, project.scope)
        threading.Thread(
            target=notices.run, args=(watcher.hint, stop), name="notices", daemon=True
        ).start()
    log.info(
        "watching",
        scope=project.scope,
        definitions=project.hash[:12],
        features=sorted(definitions.features),
    )
    try:
        with _served(health, beside):
            watcher.run(stop)
    finally:
        stop.set()
        thread.join()
        auditor.stop()
        if not anew.is_set():  # else it still watches: its report is renewed in a moment
            with survived("say that this watcher ends"):
                project.presence.leave()
    if anew.is_set():
        with survived("give up the say"):
            project.resign()
        log.info("starting anew")
        start_anew({}, lambda: ending.has_begun)
    return 0


@contextmanager
def _served(health: Health, beside: Beside) -> Iterator[None]:
    """Metrics and health, if a port was given for them."""
    if beside.metrics_port is None:
        yield
        return
    exporter = Exporter(health, beside.metrics_port, beside.metrics_host)
    exporter.start()
    log.info("metrics", host=beside.metrics_host, port=exporter.port)
    try:
        yield
    finally:
        exporter.stop()


def _tell(project: Project, kind: str, **details: Any) -> None:
    with survived("write to the event log", kind=kind):
        project.event_log.write(kind, **details)


def refuse_a_store_in_use(project: Project) -> None:
    """Raise DefinitionError while a watcher of other definitions, with other features, is at work on the store.

    Each of the two would take the other's features for gone.
    """
    other = project.presence.other()
    if other is not None:
        raise DefinitionError(
            f"{project.definitions.store} is at work for other definitions, {other.definitions}, with the features "
            f"{', '.join(other.features)} (watcher: {other.where}); stop that watcher, put all features into one "
            f"Definitions, or {_sharing(project)}"
        )


def _sharing(project: Project) -> str:
    """The words by which two definitions share a store: partial ones of one name have one queue."""
    if project.definitions.partial:
        return f"give one of them another name= than {project.name!r}"
    return "say Definitions(partial=True) in both"
