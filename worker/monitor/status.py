"""What `mlforge status` shows: features, queue, workers, what is set aside, how fresh things are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from mlforge.cli.output import number
from mlforge.cli.style import Styled
from mlforge.cli.table import table
from mlforge.core import clock
from mlforge.core.manifest import Manifest
from mlforge.core.text import printable
from mlforge.core.values import from_iso, to_iso
from mlforge.errors import MlforgeError, SourceError
from mlforge.online import Target
from mlforge.online.staleness import behind
from mlforge.store import Audit
from worker.project import Project
from worker.queue import JobQueue, WorkerState
from worker.state.event_log import Distribution
from worker.state.work_queue import Ticket


@dataclass(frozen=True, slots=True)
class AuditStatus:
    """The last audit, and the last one that found nothing wrong (`proven`...)."""

    version: str
    at: str | None
    values: int
    mismatches: int
    unproven: int
    first: tuple[str, ...]
    proven_version: str | None
    proven_at: str | None
    proven_values: int

    @classmethod
    def of(cls, found: Audit | None) -> AuditStatus | None:
        """As status shows it; None if there was no audit yet."""
        if found is None:
            return None
        proven = found.proven
        return cls(
            version=found.version,
            at=to_iso(found.at),
            values=found.values,
            mismatches=found.mismatches,
            unproven=found.unproven,
            first=found.first,
            proven_version=proven.version if proven else None,
            proven_at=to_iso(proven.at) if proven else None,
            proven_values=proven.values if proven else 0,
        )


@dataclass(frozen=True, slots=True)
class FeatureStatus:
    """One feature: what is stored, what is online, what is being done about it."""

    feature: str
    state: str
    version: str | None
    rows: int | None
    online_version: str | None
    online_rows: int | None
    as_of: str | None
    lag: str | None
    lag_seconds: float
    held: str | None
    held_now: str | None
    error: str | None
    retry_at: str | None
    quarantine: dict[str, str]
    ignored: dict[str, str]
    source_missing: bool
    freshness: Distribution | None
    audit: AuditStatus | None


@dataclass(frozen=True, slots=True)
class Status:
    """The whole project at an instant."""

    project: str
    at: str | None
    definitions: str
    features: tuple[FeatureStatus, ...]
    queued: int
    workers: tuple[WorkerState, ...]
    warnings: tuple[str, ...]

    @property
    def is_well(self) -> bool:
        """Whether nothing needs a person."""
        calm = ("ready", "waiting", "queued", "working", "pushing")
        return not self.warnings and all(feature.state in calm for feature in self.features)

    def to_json(self) -> dict[str, Any]:
        """The document that `--json` prints."""
        return {**asdict(self), "well": self.is_well}


def gather(project: Project) -> Status:
    """Look at everything once."""
    definitions, queue = project.definitions, JobQueue(project.redis, project.scope)
    names = sorted(definitions.features)
    workers = tuple(queue.workers())
    return Status(
        project=project.name,
        at=to_iso(clock.now()),
        definitions=project.hash[:12],
        features=tuple(_feature(project, ticket) for ticket in project.tickets.read(names)),
        queued=len(queue.waiting()),
        workers=workers,
        warnings=tuple(_warnings(project, workers)),
    )


def _feature(project: Project, ticket: Ticket) -> FeatureStatus:
    name, definitions = ticket.feature, project.definitions
    pointer, books = definitions.store.pointer(name), definitions.store.books(name)
    manifest = definitions.store.manifest(name, pointer.version) if pointer else None
    online = project.online.books(name)
    shown = online.target if online else None
    lag = behind(project.definitions.store, project.online, name)
    audit = AuditStatus.of(definitions.store.audit(name))
    return FeatureStatus(
        feature=name,
        state="wrong"
        if audit and audit.mismatches
        else _state(ticket, books.hold, bool(books.quarantine), pointer is not None, lag),
        version=str(pointer.version) if pointer else None,
        rows=manifest.row_count if manifest else None,
        online_version=shown.version if shown else None,
        online_rows=online.rows if online else None,
        as_of=to_iso(shown.as_of) if shown else None,
        lag=lag,
        lag_seconds=_lag_seconds(manifest, shown) if lag else 0.0,
        held=books.hold,
        held_now=_held_now(project, name, manifest) if books.hold else None,
        error=ticket.error,
        retry_at=to_iso(ticket.retry_at),
        quarantine={path: entry.reason for path, entry in books.quarantine.items()},
        ignored=dict(books.ignored),
        source_missing=bool(definitions.source(name).missing),
        freshness=project.journal.freshness(name),
        audit=audit,
    )


def _held_now(project: Project, name: str, manifest: Manifest | None) -> str | None:
    """What is true of the source by now: the reason for a hold is that of the moment when it began."""
    if manifest is None or not manifest.sources:
        return None
    try:
        listing = project.definitions.source(name).scan()
    except SourceError as error:
        return str(error)
    if not listing.exists:
        return f"its source {listing.root} is not there"
    there = listing.stats.keys()
    missing = sum(record.path not in there for record in manifest.sources)
    if missing:
        return f"{missing} of the {len(manifest.sources)} files of {manifest.version} are not there now"
    return (
        f"all {len(manifest.sources)} files of {manifest.version} are there now: "
        f"`mlforge approve {name}` goes on with them"
    )


def _lag_seconds(manifest: Manifest | None, shown: Target | None) -> float:
    """How long the rows online have not been what they should be: since the version, or the instant due."""
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
    ticket: Ticket, held: str | None, quarantined: bool, stored: bool, lag: str | None
) -> str:
    """One word; what needs a person comes first."""
    if held:
        return "held"
    if ticket.parked:
        return "parked"
    if ticket.error is not None:
        return "failing"
    if ticket.leased:
        return "working"
    if ticket.behind:
        return "queued"
    if quarantined:
        return "quarantined"
    if not stored:
        return "waiting"
    return "pushing" if lag else "ready"


def _warnings(project: Project, workers: tuple[WorkerState, ...]) -> Iterator[str]:
    if not workers:
        yield "no worker listens: run `mlforge worker`, or `mlforge up` for everything"
    for worker in workers:
        if not worker.is_ours:
            yield (
                f"worker {worker.name} (process {worker.pid} on {worker.host}) is a plain rq worker: "
                "its serializer is wrong, so each job that it takes fails; stop it and run "
                "`mlforge worker`, or rq worker -w worker.queue.ForgeWorker -S json mlforge"
            )
    if not project.is_current():
        yield (
            "these definitions are not the ones in use: the watcher has others; "
            "it takes an edit up once it imports"
        )


_STYLES = {
    "wrong": "red",
    "ready": "green",
    "working": "green",
    "queued": "green",
    "pushing": "green",
    "waiting": "dim",
    "held": "red",
    "parked": "red",
    "failing": "yellow",
    "quarantined": "yellow",
}


def render(status: Status) -> str:
    """The status as text for people."""
    rows = [
        (
            feature.feature,
            Styled(feature.state, _STYLES[feature.state]),
            feature.version,
            number(feature.rows),
            feature.online_version,
            feature.as_of[:16].replace("T", " ") if feature.as_of else None,
            _milliseconds(feature.freshness),
            _proven(feature.audit),
        )
        for feature in status.features
    ]
    headers = (
        "feature",
        "state",
        "version",
        "rows",
        "online",
        "as of (UTC)",
        "ms p50/95/99",
        "proven",
    )
    ours = [worker for worker in status.workers if worker.is_ours]
    busy = sum(worker.state == "busy" for worker in ours)
    lines = [
        table(headers, rows, right=("rows",)),
        "",
        f"queue: {status.queued} waiting; workers: {len(ours)}, {busy} busy",
        *(printable(f"warning: {warning}") for warning in status.warnings),
        *(printable(line) for feature in status.features for line in _notes(feature)),
    ]
    return "\n".join(lines)


def _notes(feature: FeatureStatus) -> Iterator[str]:
    name = feature.feature
    audit = feature.audit
    if audit and audit.mismatches:
        yield (
            f"{name}: WRONG: an audit of {audit.version} found {number(audit.mismatches)} values or rows that "
            f"are not what the files give; `mlforge audit {name} --all` says which, `mlforge build "
            f"--features {name} --full` makes a version anew"
        )
        yield from (f"{name}: {told}" for told in audit.first[:3])
    if audit and audit.proven_at:
        yield (
            f"{name}: last proven: {audit.proven_version}, {_ago(audit.proven_at)} ago, "
            f"{number(audit.proven_values)} values"
        )
    if feature.held:
        yield f"{name}: held: {feature.held}"
    if feature.held_now:
        yield f"{name}: now: {feature.held_now}"
    if feature.state == "parked":
        yield f"{name}: given up until a file or the code changes, or `mlforge retry {name}`: {feature.error}"
    elif feature.error:
        again = f"; again at {feature.retry_at}" if feature.retry_at else ""
        yield f"{name}: {feature.error}{again}"
    if feature.source_missing:
        yield f"{name}: its source is not there (yet)"
    if feature.lag and feature.state == "pushing":
        yield f"{name}: {feature.lag}"
    for path, reason in feature.quarantine.items():
        yield f"{name}: quarantined {path}: {reason.removeprefix(f'{path}: ')}"
    for path, reason in feature.ignored.items():
        yield f"{name}: ignored {path}: {reason}"


def _ago(iso: str) -> str:
    """How long ago, in the largest unit."""
    past = max(0, clock.now() - (from_iso(iso) or 0)) // 1_000_000
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if past >= length:
            return f"{past // length} {unit}"
    return f"{past} s"


def _proven(audit: AuditStatus | None) -> str | None:
    if audit is None or audit.proven_at is None:
        return None
    return f"{audit.proven_version} {_ago(audit.proven_at)} ago"


def _milliseconds(freshness: Distribution | None) -> str | None:
    if freshness is None:
        return None
    return f"{freshness.p50:,.0f}/{freshness.p95:,.0f}/{freshness.p99:,.0f}"


def features_of(project: Project, wanted: str) -> list[str]:
    """The features that a name or a file's path stands for; raises MlforgeError for neither."""
    from pathlib import Path

    definitions = project.definitions
    if wanted in definitions.features:
        return [wanted]
    path = Path(wanted).expanduser().absolute()
    found = [name for name in definitions.features if definitions.source(name).feeds(path)]
    if not found:
        sources = ", ".join(
            f"{name} reads {', '.join(map(str, definitions.source(name).roots))}"
            for name in sorted(definitions.features)
        )
        raise MlforgeError(f"{wanted} is neither a feature nor a file of one; {sources}")
    return found
