"""Refresh: bring a feature's offline store to the present state of its source.

sources -> partials -> changes -> decision -> rows -> publish. Publishing comes last: a retry repeats
work, never loses it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from importlib.metadata import version as installed
from pathlib import Path

import polars as pl
import structlog

from mlforge.build.categorizer import Decision, decide
from mlforge.build.diff import compare_rows, tables
from mlforge.build.policy import data_change, mode_of, too_much_lost
from mlforge.build.result import BuildResult, Options
from mlforge.build.table import Table, TableWriter
from mlforge.core import clock
from mlforge.core.manifest import Manifest
from mlforge.core.schema import Schema, same_columns
from mlforge.core.values import Version
from mlforge.engines import Engine
from mlforge.engines.events import events_of, lay_tiles
from mlforge.errors import IntegrityError, MlforgeError, SourceError, VersionConflict
from mlforge.features.feature import Feature
from mlforge.frames import polars_schema
from mlforge.ingest.pipeline import Intake, ingest
from mlforge.ingest.unchanged import of_version
from mlforge.sources.source import Listing, Source
from mlforge.store import Books, Pointer, Store
from mlforge.store.changes import EventDiff, diff_versions, same_rows
from mlforge.store.integrity import intact

log = structlog.get_logger("mlforge.build")
_ATTEMPTS = 5


def refresh(
    feature: Feature, source: Source, store: Store, engine: Engine, options: Options
) -> BuildResult:
    """Publish what the source holds now, if it differs from what is served.

    Raises a MlforgeError when nothing can be built; quarantined files do not make it fail.
    """
    started = time.perf_counter()
    bound = log.bind(feature=feature.name)
    if options.version is not None:
        Version.parse(options.version)
    with store.lock(feature.name, repair=options.publish):
        result = _tried(_Refresh(feature, source, store, engine, options), bound)
    result = replace(result, seconds=time.perf_counter() - started, engine=engine.name)
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
    """Again if another publisher was faster, and once more from the sources if what is stored is damaged."""
    for attempt in range(_ATTEMPTS):
        try:
            with intact(work.feature.name):
                return work.run()
        except VersionConflict:
            if work.options.version is not None or attempt == _ATTEMPTS - 1:
                raise
            bound.info("another publisher was faster", attempt=attempt)
        except IntegrityError as error:
            if work.options.full:
                raise
            bound.warning(
                "stored events cannot be read: building from the sources", error=str(error)
            )
            work = replace(work, options=replace(work.options, full=True))
    raise AssertionError("the last attempt returns or raises")


def candidate_of(
    feature: Feature, source: Source, intake: Intake, schema: Schema, engine: Engine
) -> Manifest:
    """The version that the intake would make, before it has a number and rows."""
    return Manifest(
        spec=feature.spec,
        events=schema,
        columns=feature.spec.output(schema),
        code_hash=feature.code_hash,
        partials=intake.partials,
        engine=engine.name,
        rowwise=intake.rowwise,
        why=intake.why,
        sources=intake.records,
        source=source.text,
        mlforge_version=installed("mlforge"),
    )


@dataclass(frozen=True)
class _Refresh:
    feature: Feature
    source: Source
    store: Store
    engine: Engine
    options: Options

    def run(self) -> BuildResult:
        name, store, options = self.feature.name, self.store, self.options
        pointer, books = store.pointer(name), store.books(name)
        latest = store.manifest(name, pointer.version) if pointer else None
        if books.hold and not options.attended:
            return self._unchanged(latest, "held", held=books.hold)
        # Files that are as they were have the very same stats in the listing, and are told at a glance.
        at_rest = of_version(latest, store.seen(name)).stats if latest and latest.rowwise else None
        listing = self.source.scan(at_rest)
        if not listing.exists:
            return self._nothing(latest, f"the source {self.source.root} is not there")
        intake = ingest(
            self.feature,
            listing,
            store,
            latest,
            options.max_file_memory,
            afresh=options.full,
            careful=options.careful,
        )
        books = self._noted(books, listing, intake)
        if intake.schema is None and intake.errors:
            raise _nothing_usable(name, intake)
        schema = intake.schema or (latest.events if latest else None)
        if schema is None:
            return self._nothing(latest, f"{self.source.root} holds no parquet file yet")
        candidate = candidate_of(self.feature, self.source, intake, schema, self.engine)
        changes = self._changes(latest, candidate)
        lost = too_much_lost(latest, candidate, changes, options.hold_above)
        if lost and not options.attended:
            hold = f"{lost}; 'mlforge approve {name}' or a build goes on without them"
            self._write_books(books, replace(books, hold=hold))
            return self._unchanged(latest, "held", intake, held=hold)
        data = data_change(latest, candidate, changes)
        explicit = Version.parse(options.version) if options.version else None
        highest = max(store.versions(name), default=None)
        decision = decide(latest, candidate, data, highest, explicit)
        if decision.version is None:
            result = self._unchanged(latest, decision.reason, intake)
        else:
            result = self._publish(pointer, latest, candidate, decision, changes, intake)
        # Last: a build that fails leaves a held feature held.
        self._write_books(books, replace(books, hold=None))
        return result

    def _changes(self, latest: Manifest | None, candidate: Manifest) -> EventDiff | None:
        """What changed in the events; None where the two cannot be compared row by row."""
        if latest is None or not same_columns(latest.events, candidate.events):
            return None
        if (latest.spec.keys, latest.spec.timestamp) != (
            candidate.spec.keys,
            candidate.spec.timestamp,
        ):
            return None
        if same_rows(latest.partials, candidate.partials):
            return EventDiff(0, 0, _no_entities(candidate), None)
        try:
            return diff_versions(self.store, latest, candidate)
        except IntegrityError:
            if not self.options.full:
                raise
            return None  # what it was made of is gone: the source alone says what is

    def _publish(
        self,
        pointer: Pointer | None,
        latest: Manifest | None,
        candidate: Manifest,
        decision: Decision,
        changes: EventDiff | None,
        intake: Intake,
    ) -> BuildResult:
        name, store = self.feature.name, self.store
        version = decision.version
        assert version is not None
        mode, why = mode_of(latest, candidate, changes, self.options)
        if self.options.publish:
            lay_tiles(store, candidate, None if mode == "full" else changes)
        with store.stage(name) as staged:
            writer = TableWriter(
                self.engine, events_of(store, candidate), staged, self.options.layout
            )
            table = _write(writer, mode, latest, changes, store)
            candidate = replace(
                candidate, parts=table.parts, parent=latest.version if latest else None
            )
            if latest is not None and decision.reason == "logic_changed":
                decision = _with_values_compared(decision, store, latest, candidate, staged)
            manifest = candidate.published(version, decision.summary, clock.now())
            if self.options.publish:
                store.publish(staged, manifest, pointer)
        return BuildResult(
            feature=name,
            version=str(version),
            bump=decision.bump,
            reason=decision.reason,
            details=decision.details,
            rows=manifest.row_count,
            path=store.data(name, version) if self.options.publish else None,
            changed=True,
            mode=mode,
            mode_reason=why,
            rows_changed=changes.rows if changes else sum(p.rows for p in candidate.partials),
            entities=changes.entities.height if changes else 0,
            rows_recomputed=table.recomputed,
            files_read=intake.files_read,
            quarantined=tuple(intake.quarantine.values()),
            warnings=intake.warnings,
            rows_dropped=manifest.dropped,
            planned=not self.options.publish,
            manifest=manifest,
        )

    def _noted(self, books: Books, listing: Listing, intake: Intake) -> Books:
        """Keep the books: what is set aside, what is ignored, what the files looked like."""
        now = replace(
            books,
            quarantine=dict(intake.quarantine),
            ignored={ignored.path: ignored.reason for ignored in listing.ignored},
            description=self.feature.description,
            tags=self.feature.tags,
        )
        self._write_books(books, now)
        if self.options.publish and intake.seen != self.store.seen(self.feature.name):
            self.store.write_seen(self.feature.name, intake.seen)
        for path, bad in intake.quarantine.items():
            if books.quarantine.get(path) != bad:
                log.warning("quarantined", feature=self.feature.name, path=path, reason=bad.reason)
        return now

    def _write_books(self, before: Books, now: Books) -> None:
        if self.options.publish and now != before:
            self.store.write_books(self.feature.name, now)

    def _nothing(self, latest: Manifest | None, why: str) -> BuildResult:
        """There is no source to build from: nothing changes."""
        if self.options.version is not None:
            raise SourceError(
                f"{self.feature.name}: no version {self.options.version} can be made: {why}"
            )
        return self._unchanged(latest, "source_missing" if latest else "waiting", warnings=(why,))

    def _unchanged(
        self,
        latest: Manifest | None,
        reason: str,
        intake: Intake | None = None,
        warnings: tuple[str, ...] = (),
        held: str | None = None,
    ) -> BuildResult:
        version = latest.version if latest else None
        return BuildResult(
            feature=self.feature.name,
            version=str(version) if version else None,
            reason=reason,
            rows=latest.row_count if latest else 0,
            path=self.store.data(self.feature.name, version) if version else None,
            planned=not self.options.publish,
            held=held,
            rows_dropped=latest.dropped if latest else {},
            manifest=latest,
            files_read=intake.files_read if intake else 0,
            quarantined=tuple(
                intake.quarantine.values()
                if intake
                else self.store.books(self.feature.name).quarantine.values()
            ),
            warnings=(*warnings, *(intake.warnings if intake else ())),
        )


def _write(
    writer: TableWriter, mode: str, latest: Manifest | None, changes: EventDiff | None, store: Store
) -> Table:
    if mode == "full" or latest is None or latest.version is None or changes is None:
        return writer.full()
    folder = store.data(latest.name, latest.version).parent
    if changes.rows == 0:
        return writer.linked(latest.parts, folder)
    return writer.changed(changes, latest.parts, folder)


def _with_values_compared(
    decision: Decision, store: Store, latest: Manifest, candidate: Manifest, staged: Path
) -> Decision:
    """Say how many rows a change of logic made differ: often none."""
    after = pl.scan_parquet([staged / part.file for part in candidate.parts], glob=False)
    rows = compare_rows(tables(store, latest), after, latest, candidate)
    told = f"{rows.total} rows differ" if rows.total else "all values stay the same"
    evidence = {**decision.evidence, "rows_differ": rows.total}
    return replace(decision, details=(*decision.details, told), evidence=evidence)


def _nothing_usable(name: str, intake: Intake) -> MlforgeError:
    first = intake.errors[0]
    if len(intake.errors) == 1:
        return first
    return type(first)(
        f"{first} (and {len(intake.errors) - 1} more files of {name} cannot be used)"
    )


def _no_entities(manifest: Manifest) -> pl.DataFrame:
    return polars_schema.empty(
        column for column in manifest.events if column.name in manifest.spec.keys
    )
