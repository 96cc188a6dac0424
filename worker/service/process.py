"""The watcher process: watches sources and definitions, and reconciles."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from mlforge.core.collection import leave_loaded_alone
from mlforge.core.logs import get_logger
from mlforge.errors import DefinitionError
from mlforge.maintenance.operations import list_anew
from mlforge.online.staleness import behind
from worker.ending import Ending, set_from_handler, start_anew
from worker.monitor.metrics import Exporter, Health
from worker.project import Project, Settings, TakenUp
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
    stop, ending = threading.Event(), Ending(settings.redis_url)
    _end_by_signals(stop, ending)
    refuse_a_store_in_use(project)
    taken_up = _taken_over(project)
    work = _Work(project, beside.audit_every_s, stop, taken_up.since)
    watcher = work.watcher(
        replace(timing, hints=settings.hints), "definitions" if taken_up.others_before else "start"
    )
    leave_loaded_alone()
    rounds = Rounds(work.reconciling, work.reconcile, TICK_S)
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
        features=sorted(project.definitions.features),
    )
    try:
        with _served(work.health, beside):
            watcher.run(stop)
    finally:
        stop.set()
        thread.join()
        work.end()
    if work.is_anew:
        with survived("give up the say"):
            project.resign()
        log.info("starting anew")
        start_anew({}, lambda: ending.has_begun)
    return 0


def _end_by_signals(stop: threading.Event, ending: Ending) -> None:
    """Have SIGTERM and SIGINT end the process."""

    def end(*_: object) -> None:
        set_from_handler(stop)
        ending.begin()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def _taken_over(project: Project) -> TakenUp:
    """The work as these definitions have taken it up, which the event log tells of where others had it."""
    project.take_over()
    taken_up = project.make_current()
    if taken_up.others_before:
        features = project.definitions.features
        _tell(project, "definitions", hash=project.hash, features=sorted(features))
        with survived("end the rest of features"):
            project.work_queue.end_rests(features)
    return taken_up


class _Work:
    """The work that the process does as its watcher and its reconciler find it."""

    def __init__(
        self, project: Project, audit_every_s: float, stop: threading.Event, since: int
    ) -> None:
        """since: when these definitions took the work over. stop: ends the process."""
        self._project, self._stop, self._anew = project, stop, threading.Event()
        self._requests, self._auditor = Requests(project), Auditor(project, audit_every_s)
        self._watching, self.reconciling = Heartbeat("watch"), Heartbeat("reconcile")
        self.health = Health(project, (self._watching, self.reconciling))
        self._follower = Follower(project, self._start_anew, self._broken, self._unsteady)
        self._reconciler = Reconciler(
            project, self._requests, behind, self._auditor.tick, since=since
        )
        self._watcher: Watcher | None = None

    @property
    def is_anew(self) -> bool:
        """Whether the process is to start itself anew."""
        return self._anew.is_set()

    def watcher(self, timing: Timing, why: str) -> Watcher:
        """The watcher of the sources. why: the reason of its first requests."""
        definitions = self._project.definitions
        self._watcher = Watcher(
            {name: definitions.source(name) for name in definitions.features},
            self._request,
            timing,
            on_tick=self._looked,
            on_fault=self._watching.failed,
            on_start=self._started,
            why=why,
            unseal=self._unseal,
        )
        return self._watcher

    def reconcile(self) -> None:
        """Do one round of the reconciler, unless another store has come in the place of the project's."""
        try:
            if not self._project.is_of_its_store():
                log.warning("another store was made in the place of the old one: starting anew")
                return self._start_anew()
            self._reconciler.tick(time.monotonic())
        finally:
            unlisted = self._watcher.unlisted if self._watcher else ()
            parts = (*self.health.heartbeats, *unlisted)
            self._project.presence.report(parts, self._follower.problem)

    def end(self) -> None:
        """Stop audits, and say that nobody watches any more."""
        self._auditor.stop()
        if not self.is_anew:  # else it still watches: its report is renewed in a moment
            with survived("say that this watcher ends"):
                self._project.presence.leave()

    def _request(self, pending: Mapping[str, PendingRequest]) -> None:
        with survived("give way to work"):
            self._auditor.give_way()
        self._requests.each(pending)
        with survived("count drops"):
            self._project.counts.add_drops(pending)

    def _started(self) -> None:
        self.health.scanned.set()
        _tell(self._project, "watching")

    def _unseal(self, feature: str, path: str) -> None:
        if list_anew(self._project.definitions.store, feature):
            log.warning("an object came into a sealed partition", feature=feature, path=path)
            _tell(self._project, "late", feature=feature, path=path)

    def _looked(self) -> None:
        self._watching.finished()
        with survived("follow the definitions"):
            self._follower.tick()

    def _start_anew(self) -> None:
        self._anew.set()
        self._stop.set()

    def _broken(self, error: str) -> None:
        log.error("edited definitions do not import: the old ones stay in use", error=error)
        _tell(self._project, "definitions_broken", error=error)

    def _unsteady(self, sentence: str) -> None:
        log.error("nothing is done", error=sentence)
        _tell(self._project, "definitions_unsteady", error=sentence)


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
