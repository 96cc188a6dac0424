"""The state of a project: features, queue, watcher, workers, quarantined files, and staleness.

The contents of Redis and the store are input: unreadable entries are named, and all others reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import NoPermissionError, ReadOnlyError, RedisError

from mlforge.core import clock
from mlforge.core.manifest import Manifest
from mlforge.core.values import to_iso
from mlforge.definitions.chains import upstreams
from mlforge.errors import MlforgeError
from mlforge.online import OnlineBooks, Target
from mlforge.online.books import INCOMPLETE
from mlforge.online.staleness import OnlineView, SeenAtOnce, behind
from mlforge.store import Books, DriftNote
from worker.monitor.feature_status import AuditStatus, FeatureStatus
from worker.monitor.held import held_now
from worker.monitor.look import Look, StoreLook
from worker.monitor.service_status import ServiceStatus, service_status
from worker.project import Gone, Project
from worker.queue import JobQueue, WorkerState
from worker.state.presence import WatcherState
from worker.state.ticket import Ticket

KEPT = ("held", "parked", "failing", "unreadable", "wrong", "waiting")
"""States of a feature in which those that are made from it get nothing new."""


@dataclass(frozen=True, slots=True)
class Status:
    """The whole project at an instant."""

    project: str
    at: str | None
    definitions: str
    features: tuple[FeatureStatus, ...]
    queued: int
    watcher: WatcherState | None
    workers: tuple[WorkerState, ...]
    gone: tuple[Gone, ...]
    warnings: tuple[str, ...]
    services: tuple[ServiceStatus, ...] = ()

    @property
    def is_well(self) -> bool:
        """Whether nothing needs a person."""
        calm = ("ready", "waiting", "queued", "working", "pushing")
        return not self.warnings and all(feature.state in calm for feature in self.features)

    def to_json(self) -> dict[str, Any]:
        """The document that `--json` prints."""
        return {**asdict(self), "well": self.is_well}


def gather(project: Project) -> Status:
    """The status of a project, read once. Raises RedisError where the queue's server does not answer."""
    definitions, queue = project.definitions, JobQueue(project.redis, project.scope)
    names = sorted(definitions.features)
    online = SeenAtOnce(project.online, names)
    store = StoreLook(definitions.store)
    features = dict(_features(project, names, online, store))
    workers, watcher, gone = tuple(queue.workers()), project.presence.read(), tuple(project.gone())
    return Status(
        project=project.name,
        at=to_iso(clock.now()),
        definitions=project.hash[:12],
        features=tuple(_with_upstream(project, status, features) for status in features.values()),
        queued=len(queue.waiting()),
        watcher=watcher,
        workers=workers,
        gone=gone,
        warnings=(
            *_refusals(project),
            *_store_problems(store),
            *_worker_problems(workers, queue),
            *_watcher_problems(watcher),
            *_definition_problems(project, gone),
            *_drifts(features.values()),
        ),
        services=tuple(
            service_status(service, features, clock.now())
            for service in definitions.services.values()
        ),
    )


def _features(
    project: Project, names: list[str], online: SeenAtOnce, store: StoreLook
) -> Iterator[tuple[str, FeatureStatus]]:
    for ticket in project.work_queue.read(names):
        yield ticket.feature, _feature(project, ticket, online, store)


def _with_upstream(
    project: Project, status: FeatureStatus, features: Mapping[str, FeatureStatus]
) -> FeatureStatus:
    """The status, with the reason for which a feature that it is made from, near or far, stands still: the nearest that does by itself."""
    defined = project.definitions.features
    above = [features[name] for name in upstreams(defined, status.feature) if name in features]
    stopped = [feature for feature in above if feature.state in KEPT]
    if not stopped:
        return status
    kept = min(stopped, key=lambda feature: feature.state == "waiting")
    reason = kept.held or kept.error
    below = above[above.index(kept) - 1].feature if kept is not above[0] else None
    told = f", which {below} is made from," if below else ""
    state = f"{kept.feature}{told} is {kept.state}{f': {reason}' if reason else ''}"
    read = f"{kept.version} of it is what is read" if kept.version else "it has no version yet"
    return replace(status, upstream=f"{state}; {read}")


def _feature(
    project: Project, ticket: Ticket, online: OnlineView, store: StoreLook
) -> FeatureStatus:
    name = ticket.feature
    look = Look([f"its ticket cannot be read: {ticket.unreadable}"] if ticket.unreadable else [])
    pointer = look.at("its pointer", lambda: store.ask(lambda s: s.pointer(name)), None)
    books = look.at("its books in the store", lambda: store.ask(lambda s: s.books(name)), Books())
    manifest = look.at(
        "its version",
        lambda: store.ask(lambda s: s.manifest(name, pointer.version)) if pointer else None,
        None,
    )
    online_books = look.at("its books online", lambda: online.books(name), None)
    shown = online_books.target if online_books else None
    lag = (
        None
        if look.problems
        else look.at(
            "what it lacks online", lambda: store.ask(lambda s: behind(s, online, name)), None
        )
    )
    audit = look.at(
        "its last audit", lambda: store.ask(lambda s: AuditStatus.of(s.audit(name))), None
    )
    freshness = look.at("its freshness", lambda: project.event_log.freshness(name), None)
    no_drift: dict[str, DriftNote] = {}
    drift = look.at(
        "its drift", lambda: books.drift_at(pointer.version) if pointer else no_drift, no_drift
    )
    source_missing = look.at(
        "its source", lambda: bool(project.definitions.source(name).missing), False
    )
    state = _state(ticket, books, pointer is not None, lag, online_books)
    if look.problems:
        state = "unreadable"
    return FeatureStatus(
        feature=name,
        state="wrong" if audit and audit.mismatches else state,
        version=str(pointer.version) if pointer else None,
        rows=manifest.row_count if manifest else None,
        online_version=shown.version if shown else None,
        online_rows=online_books.rows if online_books else None,
        as_of=to_iso(shown.as_of) if shown else None,
        lag=lag,
        lag_seconds=_lag_seconds(manifest, shown) if lag else 0.0,
        held=books.hold,
        held_now=held_now(project, name, manifest, books),
        error=ticket.error,
        failing_since=to_iso(ticket.failing_since),
        retry_at=None if ticket.leased else to_iso(ticket.retry_at),
        quarantine={path: entry.reason for path, entry in books.quarantine.items()},
        ignored=dict(books.ignored),
        source_missing=source_missing,
        freshness=freshness,
        audit=audit,
        unreadable=tuple(look.problems),
        drift=drift,
        pushed_at=to_iso(online_books.pushed_at) if online_books and shown else None,
    )


def _lag_seconds(manifest: Manifest | None, shown: Target | None) -> float:
    """The seconds for which the rows online have been out of date: since the version was made, or since the instant that was due."""
    if manifest is None:
        return 0.0
    now = clock.now()
    if shown is None or shown.version != str(manifest.version):
        return max(0.0, (now - manifest.created_at) / 1e6)
    due = manifest.as_of(now)
    if due is None or shown.as_of is None:
        return 0.0
    return max(0.0, (min(due, now) - shown.as_of) / 1e6)


def _state(
    ticket: Ticket, books: Books, stored: bool, lag: str | None, online: OnlineBooks | None
) -> str:
    """The feature's state in one word; states that need a person take precedence."""
    if books.hold:
        return "held"
    if ticket.parked:
        return "parked"
    if ticket.error is not None:
        return "failing"
    if lag and online is not None and online.evidence == INCOMPLETE:
        return "incomplete"
    if ticket.leased:
        return "working"
    if ticket.behind:
        return "queued"
    if books.quarantine:
        return "quarantined"
    if not stored:
        return "waiting"
    return "pushing" if lag else "ready"


def _refusals(project: Project) -> Iterator[str]:
    """The words of a server that answers and refuses: its reply to a write that would change nothing."""
    try:
        project.redis.ping()
        project.redis.set(f"mlforge-work:{project.scope}:nothing", "", xx=True)
    except NoConnection:
        raise
    except (ReadOnlyError, NoPermissionError):
        return  # a replica may be asked, or by a user that only reads
    except RedisError as error:
        yield (
            f"Redis answers, but refuses to write ({error}): nothing is queued, pushed or renewed until "
            "its disk, its memory or its replicas are put in order"
        )


def _store_problems(store: StoreLook) -> Iterator[str]:
    if store.problem is not None:
        yield (
            f"the store cannot be read ({store.problem}): nothing new is taken in until it can, which is tried again and again; "
            "what is online is served on"
        )


def _worker_problems(workers: tuple[WorkerState, ...], queue: JobQueue) -> Iterator[str]:
    if not any(worker.unreadable is None for worker in workers) and not queue.is_starting():
        yield "no worker listens: run `mlforge worker`, or `mlforge up` for everything"
    for worker in workers:
        if worker.unreadable is not None:
            yield f"worker {worker.name} cannot be read: {worker.unreadable}"
        elif not worker.is_ours:
            yield (
                f"worker {worker.name} (process {worker.pid} on {worker.host}) is a plain rq worker: "
                "its serializer is wrong, so each job that it takes fails; stop it and run "
                "`mlforge worker`, or rq worker -w worker.queue.ForgeWorker -S json mlforge"
            )


def _watcher_problems(watcher: WatcherState | None) -> Iterator[str]:
    if watcher is None:
        yield "no watcher runs: run `mlforge watch`, or `mlforge up` for everything"
    else:
        yield from watcher.problems()


def _definition_problems(project: Project, gone: tuple[Gone, ...]) -> Iterator[str]:
    if not project.is_current():
        yield (
            "these definitions are not the ones in use: the watcher has others; "
            "it takes an edit up once it imports"
        )
    for feature in gone:
        renamed = _renamed(project, feature.feature)
        what = renamed or f"{feature.feature} is gone from the definitions"
        back = "" if renamed else "put it back, or "
        yield (
            f"{what}: its rows{' of that name' if renamed else ''} stay online as they are until "
            f"{to_iso(feature.until)}; {back}let `mlforge retire {feature.feature}` end it now"
        )


def _renamed(project: Project, feature: str) -> str | None:
    """The feature's present name, as a sentence; None where it has no other name, or the store cannot be asked."""
    try:
        return project.definitions.store.renames().sentence(feature)
    except MlforgeError:  # each feature that cannot be read says so
        return None


def _drifts(features: Iterable[FeatureStatus]) -> Iterator[str]:
    for feature in features:
        for column, note in feature.drift.items():
            if note.is_drift:
                yield (
                    f"{feature.feature}: {column} has drifted in the rows that came with {note.version}: its index is "
                    f"{note.psi:.2f}, {note.limit:g} and more is drift; `mlforge drift {feature.feature}` tells of all columns"
                )
