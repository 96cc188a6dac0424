"""The state of a project as text for people."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from mlforge.cli.output import lines_for, minute, number
from mlforge.cli.style import Styled
from mlforge.cli.table import table
from mlforge.core import clock
from mlforge.core.text import plural, printable, some_of
from mlforge.core.values import SECOND_US, from_iso
from mlforge.errors import without_owners
from worker.monitor.feature_status import FeatureStatus
from worker.monitor.look import STORE_AWAY
from worker.monitor.service_status import ServiceStatus
from worker.monitor.status import Status
from worker.state.event_log import Distribution

_STYLES = {
    "wrong": "red",
    "unreadable": "red",
    "incomplete": "yellow",
    "ready": "green",
    "working": "green",
    "queued": "green",
    "pushing": "green",
    "waiting": "dim",
    "held": "red",
    "parked": "red",
    "failing": "yellow",
    "quarantined": "yellow",
    "stale": "yellow",
}

_FRESHNESS = "ms p50/99"
_REASONS = 10
"""How many reasons are told of files that are set aside or ignored: each of many files may have one of its own."""


def render(status: Status) -> str:
    """The status as text for people."""
    rows = [
        (
            feature.feature,
            Styled(feature.state, _STYLES[feature.state]),
            _version(feature),
            number(feature.rows),
            minute(feature.as_of),
            _milliseconds(feature.freshness),
            _proven(feature),
        )
        for feature in status.features
    ]
    headers = (
        "feature",
        "state",
        "version",
        "rows",
        "as of (UTC)",
        _FRESHNESS,
        "proven ago",
    )
    ours = [worker for worker in status.workers if worker.is_ours]
    busy = sum(worker.state == "busy" for worker in ours)
    notes = [
        f"queue: {status.queued} waiting; workers: {len(ours)}, {busy} busy",
        *(f"warning: {warning}" for warning in status.warnings),
        *(line for feature in status.features for line in _notes(feature)),
        *_files(status),
    ]
    shown = (line for note in notes for line in lines_for(sys.stdout, printable(note)))
    services = ["", _services(status.services)] if status.services else []
    return "\n".join([table(headers, rows, right=("rows", _FRESHNESS)), *services, "", *shown])


def _services(services: Sequence[ServiceStatus]) -> str:
    rows = [
        (
            service.service,
            Styled(service.state, _STYLES[service.state]),
            ", ".join(f"{name} {version or '-'}" for name, version in service.served.items()),
            service.why,
        )
        for service in services
    ]
    return table(("service", "state", "online", "why"), rows)


def _notes(feature: FeatureStatus) -> Iterator[str]:
    name = feature.feature
    audit = feature.audit
    if audit and audit.mismatches:
        yield (
            f"{name}: WRONG: an audit of {audit.version} found {number(audit.mismatches)} values or rows that "
            f"are not what the files give; `mlforge audit {name} --all` says which, `mlforge build "
            f"--features {name} --full` makes a version anew"
        )
        yield from (f"{name}: {message}" for message in audit.first[:3])
    if feature.held:
        yield f"{name}: held: {feature.held}"
    if feature.held_now:
        yield f"{name}: now: {feature.held_now}"
    if feature.state == "parked":
        yield f"{name}: given up until a file or the code changes, or `mlforge retry {name}`: {feature.error}"
    elif feature.error:
        since = f"; so since {feature.failing_since}" if feature.failing_since else ""
        again = f"again at {feature.retry_at}" if feature.retry_at else "tried again now"
        yield f"{name}: {feature.error}{since}; {again}"
    elif feature.failing_since:  # a drop has come since the last attempt
        yield f"{name}: no refresh has gone well since {feature.failing_since}; tried again now"
    if feature.upstream:
        yield f"{name}: {feature.upstream}"
    if feature.source_missing:
        yield f"{name}: its source is not there (yet)"
    if feature.lag and feature.state in ("pushing", "incomplete"):
        yield f"{name}: {feature.lag}"
    # A store that cannot be read at all is told once, as a warning.
    yield from (f"{name}: {problem}" for problem in feature.unreadable if problem != STORE_AWAY)


def _files(status: Status) -> Iterator[str]:
    """A line for the files that are set aside or ignored for one reason, with all features that this concerns; of many reasons the first."""
    features: dict[tuple[str, str, str], list[str]] = {}
    for feature in status.features:
        for kind, files in (("quarantined", feature.quarantine), ("ignored", feature.ignored)):
            for path, reason in files.items():
                group = (kind, path, without_owners(reason, feature.feature, path))
                features.setdefault(group, []).append(feature.feature)
    paths: dict[tuple[str, str, str], list[str]] = {}
    for (kind, path, reason), names in features.items():
        paths.setdefault((", ".join(names), kind, reason), []).append(path)
    reasons: dict[tuple[str, str], list[str]] = {}
    for (concerned, kind, reason), several in paths.items():
        reasons.setdefault((concerned, kind), []).append(f"{some_of(several)}: {reason}")
    for (concerned, kind), lines in reasons.items():
        yield from (f"{concerned}: {kind} {line}" for line in lines[:_REASONS])
        if len(lines) > _REASONS:
            rest = plural(len(lines) - _REASONS, "more reason")
            yield f"{concerned}: {kind} files for {rest}; --json has them all"


def _ago(iso: str) -> str:
    """The time since an instant, in its largest unit."""
    past = max(0, clock.now() - (from_iso(iso) or 0)) // SECOND_US
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if past >= length:
            return f"{past // length} {unit}"
    return f"{past} s"


def _proven(feature: FeatureStatus) -> str | None:
    """The time since the last proof, behind its version if another is served; None without a proof."""
    audit = feature.audit
    if audit is None or audit.proven_at is None:
        return None
    other = f"{audit.proven_version}, " if audit.proven_version != feature.version else ""
    return f"{other}{_ago(audit.proven_at)}"


def _version(feature: FeatureStatus) -> str | None:
    """The version that is served, and the one that is online where that is another."""
    if feature.version is None or feature.online_version == feature.version:
        return feature.version
    return f"{feature.version}, online {feature.online_version or 'none'}"


def _milliseconds(freshness: Distribution | None) -> str | None:
    if freshness is None:
        return None
    return f"{freshness.p50:,.0f}/{freshness.p99:,.0f}"
