"""`mlforge wait` and `mlforge retry`: ask for a refresh, and see how it ends."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mlforge.core import clock, time_model
from mlforge.core.paths import path_of
from mlforge.core.values import to_iso
from mlforge.definitions.chains import stages, with_readers
from mlforge.errors import MlforgeError, without_owners
from mlforge.sources.file_bytes import is_being_written
from mlforge.sources.parquet_reader import completeness
from mlforge.sources.row_source import RowSource
from mlforge.store import Store
from mlforge.store.addresses import as_path
from worker.monitor.ignored_files import why_ignored
from worker.project import Project
from worker.queue import JobQueue
from worker.queue.requests import request_each
from worker.state.pending import PendingRequest
from worker.watch.file_tracker import SETTLE_S

_LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Arrival:
    """The outcome of a file in one feature; `problem` is None once its rows are online."""

    feature: str
    version: str | None
    problem: str | None
    counts_from: str | None

    def __str__(self) -> str:
        if self.problem is not None:
            return f"{self.feature}: {self.problem}"
        later = f"; its rows count from {self.counts_from}" if self.counts_from else ""
        return f"{self.feature} {self.version}: readable{later}"


def wait_for(
    project: Project, features: list[str], path: Path | None, timeout_s: float
) -> list[Arrival]:
    """Wait until a refresh that began after this call has published and pushed each feature.

    A feature that is made from another of them is waited for after the other.
    Raises MlforgeError if that takes longer than the timeout, saying what is missing.
    """
    deadline = time.monotonic() + timeout_s
    if path is not None:
        _until_whole(path, deadline)
    errors: dict[str, str | None] = {}
    for stage in stages(project.definitions.features, features):
        errors |= _until_served(project, stage, deadline)
    return [_arrival(project, feature, path, errors.get(feature)) for feature in features]


def _until_served(project: Project, features: list[str], deadline: float) -> dict[str, str | None]:
    """Request a refresh of each feature and wait for it; returns the errors of those that failed."""
    requests = ask(project, features, "wait")
    while True:
        tickets = project.work_queue.read(requests)
        lost = [ticket.feature for ticket in tickets if ticket.wanted < requests[ticket.feature]]
        if lost:
            requests |= ask(project, lost, "wait")
        pending = [t for t in tickets if t.served < requests[t.feature] and not t.failures]
        if not pending:
            return {ticket.feature: ticket.error for ticket in tickets if ticket.failures}
        if time.monotonic() > deadline:
            raise MlforgeError(_too_late(project, [ticket.feature for ticket in pending]))
        time.sleep(_LOOK_EVERY_S)


def ask(project: Project, features: Iterable[str], reason: str) -> dict[str, int]:
    """Request a refresh of each feature; returns the counts that serve them."""
    requests = request_each(project, dict.fromkeys(features, PendingRequest(reason)))
    return {feature: request.wanted for feature, request in requests.items()}


def ask_at_once(project: Project, features: Sequence[str], reason: str) -> None:
    """Request a refresh of each feature that waits for nothing, not for the end of `publish_every` either."""
    project.work_queue.hurry(dict.fromkeys(features, 0))
    project.work_queue.hurry(ask(project, features, reason))


def forgive(project: Project, feature: str, path: Path | None) -> None:
    """Let a quarantined file be tried again although it has not changed; by default all quarantined files."""
    place = project.definitions.source(feature).path_of(path) if path else None
    leave_quarantine(project.definitions.store, feature, place)


def leave_quarantine(store: Store, feature: str, place: str | None = None) -> None:
    """Take a file, by its path within the source, or all files of a feature out of quarantine."""
    with store.lock(feature):
        books = store.books(feature)
        remaining = {
            name: kept for name, kept in books.quarantine.items() if place not in (None, name)
        }
        if remaining != books.quarantine:
            store.write_books(feature, replace(books, quarantine=remaining))


def features_of(project: Project, name_or_path: str) -> list[str]:
    """The features with this name, or that a file at this path feeds, also through others; MlforgeError if there are none."""
    definitions = project.definitions
    if name_or_path in definitions.features:
        return [name_or_path]
    path = place_of(name_or_path)
    fed = [name for name in definitions.features if definitions.source(name).feeds(path)]
    if not fed:
        if ignored := why_ignored(definitions, path):
            raise MlforgeError(ignored)
        sources = ", ".join(
            f"{name} reads {_places(definitions.source(name))}"
            for name in sorted(definitions.features)
        )
        raise MlforgeError(f"{name_or_path} is neither a feature nor a file of one; {sources}")
    return with_readers(definitions.features, fed)


def place_of(text: str) -> Path:
    """The absolute path of a file, or the address of an object as a path of that many parts."""
    return as_path(text) or path_of(text).absolute()


def is_there(project: Project, features: Sequence[str], path: Path) -> bool:
    """Whether a file is there now, or an object that feeds one of the features."""
    if path.exists():
        return True
    sources = [project.definitions.source(feature) for feature in features]
    for source in sources:
        place = source.path_of(path) if source.is_polled else None
        with suppress(FileNotFoundError):
            if place is not None and source.file(place):
                return True
    return False


def _places(source: RowSource) -> str:
    return ", ".join(map(str, source.roots)) or source.text


def _until_whole(path: Path, deadline: float) -> None:
    """Wait until the file has a footer and no writer; a damaged file without a writer is accepted as it is."""
    size, since = -1, time.monotonic()
    while path.exists():
        writing, unfinished = is_being_written(path), completeness(path)
        if not writing and unfinished is None:
            return
        now, grown = time.monotonic(), path.stat().st_size
        if grown != size or writing:
            size, since = grown, now
        elif now - since > SETTLE_S:
            return
        if now > deadline:
            why = unfinished or "is being written"
            raise MlforgeError(f"{path} is not a whole parquet file yet: {why}")
        time.sleep(_LOOK_EVERY_S)


def _arrival(project: Project, feature: str, path: Path | None, error: str | None) -> Arrival:
    store, source = project.definitions.store, project.definitions.source(feature)
    books, latest = store.books(feature), store.latest(feature)
    version = str(latest.version) if latest else None
    place = source.path_of(path) if path else None
    problem = error
    if books.hold:
        problem = f"held: {books.hold}"
    elif place is not None and place in books.quarantine:
        reason = without_owners(books.quarantine[place].reason, feature, place)
        problem = f"quarantined: {reason}"
    elif latest is None and problem is None:
        problem = "no version yet: its source holds no usable file"
    interval = latest.spec.interval if latest else None
    ends = [
        time_model.row_point(record.times.end, interval)
        for record in (latest.sources if latest else ())
        if interval and record.times and (place is None or record.path == place)
    ]
    later = max(ends, default=0)
    return Arrival(feature, version, problem, to_iso(later) if later > clock.now() else None)


def _too_late(project: Project, features: list[str]) -> str:
    late = f"not refreshed in time: {', '.join(features)}"
    return "; ".join([late, *_resting(project, features), *_suspects(project)])


def _resting(project: Project, features: list[str]) -> Iterator[str]:
    now = project.work_queue.now()
    for ticket in project.work_queue.read(features):
        if ticket.rests(now):
            until = to_iso(ticket.rests_until)
            yield f"{ticket.feature} rests until {until}, as publish_every says; `mlforge retry {ticket.feature}` does not wait for that"


def _suspects(project: Project) -> Iterator[str]:
    workers = JobQueue(project.redis, project.scope).workers()
    if not any(worker.is_ours for worker in workers):
        yield "no worker listens: run `mlforge worker`, or `mlforge up` for everything"
    else:
        yield "`mlforge status` shows what the workers are at"
