"""Refresh: bring a feature's offline store to the present state of its source.

snapshot -> listing -> intake -> diff -> decision -> table -> commit. Publishing comes last: a retry
repeats work, never loses it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace

import structlog

from mlforge.build.answer_names import check_answer_names
from mlforge.build.candidate import candidate_of
from mlforge.build.categorizer import Decision
from mlforge.build.deciding import fate_of
from mlforge.build.defaults import noted_defaults
from mlforge.build.diff import compare_rows, tables
from mlforge.build.drifting import Judgement, judged
from mlforge.build.gathering import gathered_once
from mlforge.build.intake_by_tasks.planning import IntakePlan
from mlforge.build.intake_by_tasks.shared import SharedIntake
from mlforge.build.keeping import keeper_of
from mlforge.build.looking import looking
from mlforge.build.outcomes import Change, Outcomes
from mlforge.build.policy import mode_of
from mlforge.build.result import BuildResult, Options
from mlforge.build.sealing import sealed_source, sealing_of
from mlforge.build.table import Table, TableWriter
from mlforge.build.usable import check_whole, nothing_usable, still_there
from mlforge.core import clock
from mlforge.core.logs import get_logger
from mlforge.core.manifest import Manifest
from mlforge.core.steps import Steps
from mlforge.core.values import Version
from mlforge.engines import Engine, Events
from mlforge.engines.evaluation import frontier
from mlforge.engines.events import cache_tiles, events_of
from mlforge.engines.tiles.ahead import TilesAhead
from mlforge.errors import (
    IntegrityError,
    VersionConflict,
)
from mlforge.features.feature import Feature
from mlforge.ingest.elsewhere import nowhere
from mlforge.ingest.file_states import is_ample
from mlforge.ingest.function_process import FunctionProcess
from mlforge.ingest.intake import Intake
from mlforge.ingest.pipeline import ingest
from mlforge.sources.listing import Listing
from mlforge.sources.row_source import RowSource
from mlforge.sources.source_reading import SourceReading
from mlforge.store import Books, Snapshot, Store, Transaction
from mlforge.store.integrity import intact
from mlforge.store.records import Sealed

log = get_logger("mlforge.build")
_ATTEMPTS = 5


def refresh(
    feature: Feature,
    source: RowSource,
    store: Store,
    engine: Engine,
    options: Options,
    reading: SourceReading | None = None,
) -> BuildResult:
    """Publish a version of the source's present content, if it differs from the served version.

    reading: through which other features of the source have read its files. Raises a MlforgeError when nothing
    can be built; quarantined files do not make it fail.
    """
    steps = Steps()
    bound = log.bind(feature=feature.name)
    if options.version is not None:
        Version.parse(options.version)
    with nullcontext(store) if options.publish else store.draft() as chosen:
        ahead = TilesAhead(feature.spec)
        work = _Refresh(feature, source, chosen, engine, options.with_run_id, ahead, reading, steps)
        result = _tried(work, bound)
    steps.end("publish" if result.changed else "build")
    result = replace(result, steps=steps.seconds, engine=engine.name)
    bound.info(
        "planned" if result.planned else "published" if result.changed else "not published",
        version=result.version,
        bump=result.bump,
        reason=result.reason,
        held=result.held,
        mode=result.mode,
        why=result.mode_reason,
        rows_changed=result.rows_changed,
        rows_recomputed=result.rows_recomputed,
        quarantined=len(result.quarantined),
        rows_dropped=sum(result.rows_dropped.values()),
        ms=round(result.seconds * 1000, 1),
    )
    return result


def _tried(work: _Refresh, bound: structlog.typing.FilteringBoundLogger) -> BuildResult:
    """Run a refresh again if another publisher was faster, or files are mended, and from the sources if they cannot be."""
    is_mended = False
    for attempt in range(_ATTEMPTS):
        try:
            with intact(work.feature.name):
                return work.run()
        except VersionConflict:
            if work.options.version is not None or attempt == _ATTEMPTS - 1:
                raise
            bound.info("another publisher was faster", attempt=attempt)
        except IntegrityError as error:
            if attempt == _ATTEMPTS - 1:
                raise
            if not is_mended and work.store.mend(work.feature.name):
                is_mended = True
                continue
            if work.options.full:
                raise
            bound.warning(
                "stored events cannot be read: building from the sources", error=str(error)
            )
            alone = replace(work.options, full=True, companions=tuple)  # a run of this feature
            work = replace(work, options=alone.with_run_id)
    raise AssertionError("the last attempt returns or raises")


@dataclass(frozen=True)
class _Refresh:
    feature: Feature
    source: RowSource
    store: Store
    engine: Engine
    options: Options
    ahead: TilesAhead
    reading: SourceReading | None
    steps: Steps

    @property
    def outcomes(self) -> Outcomes:
        return Outcomes(self.feature.name, self.store, self.options)

    def run(self) -> BuildResult:
        name, store, options = self.feature.name, self.store, self.options
        with store.open(name) as snapshot, still_there(store, snapshot):
            if options.end_forgetting is None or name not in store.forgotten().unfinished:
                return self._follow(snapshot)
        with suppress(IntegrityError) if options.full else nullcontext():  # it stays to be ended
            options.end_forgetting()
        with store.open(name) as snapshot, still_there(store, snapshot):
            return self._follow(snapshot)

    def _follow(self, snapshot: Snapshot) -> BuildResult:
        """The version that follows a snapshot, if one does."""
        if snapshot.books.hold and snapshot.books.by_person and not self.options.attended:
            return self.outcomes.unchanged(snapshot, "held", held=snapshot.books.hold)
        source = sealed_source(self.source, snapshot, is_believed=not self.options.full)
        with looking(self.feature, source, snapshot, self.options) as listing:
            if not listing.exists:
                return self.outcomes.without_source(snapshot, self.source.absence(listing))
            intake = self._ingest(listing, snapshot)
        intake = replace(intake, warnings=(*listing.notes, *intake.warnings))
        return self._follow_intake(snapshot, listing, intake)

    def _follow_intake(self, snapshot: Snapshot, listing: Listing, intake: Intake) -> BuildResult:
        snapshot = self._noted(snapshot, listing, intake)
        if listing.version:
            check_whole(snapshot, listing, intake)
        self.steps.end("read")
        if intake.schema is None and intake.errors:
            raise nothing_usable(snapshot.name, intake)
        schema = intake.schema or (snapshot.latest.events if snapshot.latest else None)
        if schema is None:
            return self.outcomes.without_source(
                snapshot, f"{self.source.text} holds no parquet file yet"
            )
        made_from = listing.version if self.feature.upstream else self.source.text
        candidate = candidate_of(
            self.feature, made_from, intake, schema, self.engine, snapshot.latest
        )
        check_answer_names(self.store, candidate, snapshot.latest, self.options.others)
        defaults = noted_defaults(self.feature)
        fate = fate_of(self.store, snapshot, candidate, intake, defaults, self.options)
        if fate.decision is None:
            return self._held(snapshot, fate.hold, intake)
        freed = replace(snapshot.books.freed(), defaults=defaults)
        if freed.drift:
            unjudged = Judgement(self.feature.table_rules)
            freed = replace(freed, drift=unjudged.noted(freed.drift, None))
        if fate.decision.version is not None:
            mode, why = mode_of(snapshot.latest, candidate, fate.diff, self.options)
            change = Change(candidate, fate.decision, fate.diff, intake, mode, why)
            return self._publish(snapshot, change, freed)
        self._write_books(snapshot, freed)
        return self.outcomes.unchanged(snapshot, fate.decision.reason, intake)

    def _ingest(self, listing: Listing, snapshot: Snapshot) -> Intake:
        options = self.options
        careful = options.attended or options.careful
        opened = FunctionProcess.opened(options.function_command, at_once=careful)
        with opened as process, self._telling():
            shared = self._shared(listing, snapshot, process)
            intake = ingest(
                self.feature,
                listing,
                self.store,
                snapshot.latest,
                self.reading or SourceReading(options.max_file_memory, keep_bytes=0),
                afresh=options.full,
                careful=options.careful,
                process=process,
                elsewhere=shared.outcomes if shared else nowhere,
            )
        if shared is None:
            return intake
        warnings = (*shared.warnings, *intake.warnings)
        return replace(intake, warnings=warnings, is_shared=bool(shared.tasks))

    def _telling(self) -> AbstractContextManager[None]:
        """Have tiles built of events that are being written, where decoding leaves memory for it."""
        if self.options.publish and is_ample(self.options.max_file_memory):
            return self.store.telling(self.feature.name, self.ahead.take)
        return nullcontext()

    def _shared(
        self, listing: Listing, snapshot: Snapshot, process: FunctionProcess | None
    ) -> SharedIntake | None:
        """Whoever takes part in a large intake; None for nobody."""
        options = self.options
        if options.sharing is None or options.careful:
            return None
        plan = IntakePlan(
            options.sharing,
            self.feature,
            self.source,
            self.store,
            self.engine,
            listing,
            snapshot.latest,
            options.max_file_memory,
        )
        return SharedIntake(plan, options.group_bytes, process, options.companions)

    def _publish(self, snapshot: Snapshot, change: Change, books: Books) -> BuildResult:
        """Write the rows of a change and serve its version; or stop before that, and return what it would do."""
        latest, candidate = snapshot.latest, change.candidate
        if self.options.publish:
            diff = None if change.mode == "full" else change.diff
            cache_tiles(self.store, candidate, diff, self.ahead)
        with self.store.transaction(snapshot) as tx:
            tx.foresee(candidate)
            events = events_of(self.store, candidate)
            table = self._table(tx, events, latest, change)
            candidate = replace(
                candidate, parts=table.parts, parent=latest.version if latest else None
            )
            drift = judged(self.feature.table_rules, self.store, tx, latest, candidate)
            hold = None if self.options.attended else drift.hold(snapshot.name)
            if hold:
                return self._held(snapshot, hold, change.intake)
            decision = self._with_evidence(change.decision, latest, candidate, tx)
            assert decision.version is not None
            now = clock.now()
            candidate = replace(candidate, frontier=frontier(candidate, events, now))
            manifest = candidate.published(decision.version, decision.summary, now)
            self.steps.end("build")
            if drift.indexes:
                books = replace(books, drift=drift.noted(books.drift, decision.version))
            tx.commit(manifest, books)  # to a draft, where nothing is to be published
        change = replace(change, decision=decision)
        return self.outcomes.published(latest, change, manifest, table, drift.warnings())

    def _table(
        self, tx: Transaction, events: Events, latest: Manifest | None, change: Change
    ) -> Table:
        """The rows of a change, written to a transaction."""
        options, diff, gathered = self.options, change.diff, None
        if options.on_gathered and latest and diff and change.mode == "incremental":
            gathered = gathered_once(self.store, latest, change.candidate, diff)
        writer = TableWriter(
            self.engine,
            events,
            tx,
            options.layout,
            distribution=options.sharing,
            gathered=gathered,
            on_gathered=options.on_gathered,
        )
        return writer.write(change.mode, latest.parts if latest else (), diff)

    def _with_evidence(
        self, decision: Decision, latest: Manifest | None, candidate: Manifest, tx: Transaction
    ) -> Decision:
        """The decision; for a change of logic, with the number of rows that differ, which is often 0."""
        if latest is None or decision.reason != "logic_changed":
            return decision
        rows = compare_rows(tables(self.store, latest), tx.scan_table(), latest, candidate)
        difference = f"{rows.total} rows differ" if rows.total else "all values stay the same"
        evidence = {**decision.evidence, "rows_differ": rows.total}
        return replace(decision, details=(*decision.details, difference), evidence=evidence)

    def _noted(self, snapshot: Snapshot, listing: Listing, intake: Intake) -> Snapshot:
        """The snapshot with new books, which name quarantined and ignored files, and with new file states."""
        before, until = snapshot.books, listing.sealed_until
        now = replace(
            before,
            quarantine=dict(intake.quarantine),
            ignored={ignored.path: ignored.reason for ignored in listing.ignored},
            description=self.feature.description,
            tags=self.feature.tags,
            sealed=Sealed(until, sealing_of(self.source)) if until else None,
            keeper=keeper_of(self.feature, self.store, before, self.options.keeper),
        )
        self._write_books(snapshot, now)
        if intake.file_states != snapshot.file_states:
            self.store.write_file_states(snapshot.name, intake.file_states)
        if intake.is_shared:  # nothing that its tasks have left is needed any more
            self.store.task_files(snapshot.name).clear()
        for path, bad in intake.quarantine.items():
            if before.quarantine.get(path) != bad:
                log.warning("quarantined", feature=snapshot.name, path=path, reason=bad.reason)
        return replace(snapshot, books=now)

    def _write_books(self, snapshot: Snapshot, now: Books) -> None:
        if now != snapshot.books:
            self.store.write_books(snapshot.name, now)

    def _held(self, snapshot: Snapshot, reason: str, intake: Intake) -> BuildResult:
        """Nothing is published until a person says so, or the reason has gone."""
        self._write_books(snapshot, snapshot.books.held(reason))
        return self.outcomes.unchanged(snapshot, "held", intake, held=reason)
