"""The fate of a candidate: how its events differ from the served version's, whether it is held, and its number."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mlforge.build.broken_locks import DefaultsChange, lock_hold
from mlforge.build.categorizer import Decision, decide, rolled_forward
from mlforge.build.loss import loss_of
from mlforge.build.policy import data_change
from mlforge.build.result import Options
from mlforge.core.manifest import ROLLED_BACK, Manifest
from mlforge.core.schema import same_columns
from mlforge.core.values import Version
from mlforge.errors import IntegrityError, StoreError
from mlforge.frames import polars_schema
from mlforge.frames.entity_times import EntityTimes
from mlforge.ingest.intake import Intake
from mlforge.services.description import Document
from mlforge.store import Snapshot, Store
from mlforge.store.changes import EventDiff, diff_versions, same_rows

_TOLD = 20
"""How many faults of a table its successor tells of."""


@dataclass(frozen=True, slots=True)
class Fate:
    """The fate of a candidate.

    diff: how its events differ from the served version's; None where the two cannot be compared row by row. hold: why a person must
    look first, empty where nobody must. decision: on its number; None where it is held.
    """

    diff: EventDiff | None
    hold: str
    decision: Decision | None


def fate_of(
    store: Store,
    snapshot: Snapshot,
    candidate: Manifest,
    intake: Intake,
    defaults: Document,
    options: Options,
) -> Fate:
    """The fate of a candidate that an intake makes. defaults: those of the feature's definition, described.

    Raises IntegrityError where stored events cannot be read and the refresh is not a full one.
    """
    diff = events_diff(store, snapshot.latest, candidate, afresh=options.full)
    if not options.attended:
        hold = _hold_of(store, snapshot, candidate, intake, diff, options.hold_above, defaults)
        if hold is not None:
            return Fate(diff, hold, None)
    decision = _decided(store, snapshot, candidate, diff, options)
    evidence = {**decision.evidence, **intake.evidence}
    return Fate(diff, "", replace(decision, evidence=evidence))


def events_diff(
    store: Store, latest: Manifest | None, candidate: Manifest, *, afresh: bool
) -> EventDiff | None:
    """The events that changed; None where the two versions cannot be compared row by row.

    afresh: do without the latest version's events where they are gone: the source alone says what is. Else
    IntegrityError is raised.
    """
    if latest is None or not same_columns(latest.events, candidate.events):
        return None
    old, new = latest.spec, candidate.spec
    if (old.keys, old.timestamp) != (new.keys, new.timestamp):
        return None
    if same_rows(latest.partials, candidate.partials):
        no_entities = polars_schema.empty(new.entities(candidate.events))
        return EventDiff(0, 0, EntityTimes(no_entities))
    try:
        return diff_versions(store, latest, candidate)
    except IntegrityError:
        if not afresh:
            raise
        return None


def _hold_of(
    store: Store,
    snapshot: Snapshot,
    candidate: Manifest,
    intake: Intake,
    diff: EventDiff | None,
    hold_above: float,
    defaults: Document,
) -> str | None:
    """The reasons to hold a candidate that nobody attends to, as one text; None where there is none.

    Both are told where there are two, since one approval goes past both.
    """
    outvoted = intake.outvoted.reason if intake.outvoted else None
    loss = loss_of(snapshot.latest, candidate, diff, _set_aside(intake), outvoted)
    is_lost = loss is not None and loss.is_above(hold_above)
    change = DefaultsChange(snapshot.books.defaults, defaults)
    reasons = (
        loss.sentence(candidate.name) if loss and is_lost else None,
        lock_hold(store, snapshot.latest, candidate, change),
    )
    return ". Also, ".join(filter(None, reasons)) or None


def _set_aside(intake: Intake) -> dict[str, str]:
    """The hash of the content of each file that is set aside, by path; empty where it was not read."""
    states = intake.file_states
    return {p: states[p].hash if p in states else "" for p in intake.quarantine}


def _decided(
    store: Store,
    snapshot: Snapshot,
    candidate: Manifest,
    diff: EventDiff | None,
    options: Options,
) -> Decision:
    """The decision on the next version: its need follows from the served version, its number from the highest."""
    latest = snapshot.latest
    explicit = None if options.version is None else Version.parse(options.version)
    highest = snapshot.highest
    data = data_change(latest, candidate, diff)
    decision = decide(latest, candidate, data, highest, explicit)
    if options.full and latest is not None and decision.version is None:
        decision = _restored(store, latest, decision, highest)
    if latest is None or latest.version == highest or decision.version is None:
        return decision
    if explicit is None:
        decision = _after_rollback(store, snapshot, candidate, decision, options)
    return replace(decision, evidence={**decision.evidence, ROLLED_BACK: str(highest)})


def _restored(
    store: Store, latest: Manifest, decision: Decision, highest: Version | None
) -> Decision:
    """The decision to make a damaged table anew, under the next number; the given one where every byte is as it was published."""
    faults = store.check_manifest(latest)
    if not faults or highest is None:
        return decision
    evidence = {"faults": faults[:_TOLD], "damaged": str(latest.version)}
    return Decision(highest.bumped("patch"), "patch", "table_restored", (faults[0],), evidence)


def _after_rollback(
    store: Store,
    snapshot: Snapshot,
    candidate: Manifest,
    decision: Decision,
    options: Options,
) -> Decision:
    """The decision with the bump from the version that was rolled back from, so that no change counts twice."""
    assert snapshot.highest is not None
    try:
        above = store.manifest(snapshot.name, snapshot.highest)
        diff = events_diff(store, above, candidate, afresh=options.full)
        data = data_change(above, candidate, diff)
    except StoreError:
        return decision  # the version that was rolled back from cannot be read
    return rolled_forward(decision, above, candidate, data)
