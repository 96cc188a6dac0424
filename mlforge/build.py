"""Refresh: bring a feature's offline store to the present state of its source.

sources -> partials -> changes -> decision -> rows -> publish. Publishing comes last: a retry repeats
work, never loses it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from importlib.metadata import version as installed
from pathlib import Path

import polars as pl
import structlog

from mlforge import clock, frames, partials
from mlforge.choices import data_change, mode_of, too_much_lost
from mlforge.comparison import compare_rows, tables
from mlforge.engines import Engine
from mlforge.errors import IntegrityError, VersionConflict
from mlforge.features import Feature
from mlforge.intake import Intake, take_in
from mlforge.manifest import Manifest
from mlforge.outcomes import BuildResult, Options
from mlforge.partials import Changes
from mlforge.rows import Table, TableWriter
from mlforge.schema import Schema
from mlforge.sources import Listing, Source
from mlforge.state import changes_between, events_of
from mlforge.store import Books, Pointer, Store
from mlforge.values import Version
from mlforge.versioning import Decision, decide

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
    with store.lock(feature.name):
        for attempt in range(_ATTEMPTS):
            try:
                result = _Refresh(feature, source, store, engine, options).run()
                break
            except VersionConflict:
                if options.version is not None or attempt == _ATTEMPTS - 1:
                    raise
                bound.info("another publisher was faster", attempt=attempt)
            except (pl.exceptions.ComputeError, pl.exceptions.PanicException) as error:
                raise IntegrityError(
                    f"{feature.name}: what is stored cannot be read; 'mlforge verify' says what is "
                    "damaged: delete a damaged partial, and build again"
                ) from error
    result = replace(result, seconds=time.perf_counter() - started, engine=engine.name)
    bound.info(
        "planned" if result.planned else "published" if result.changed else "not published",
        version=result.version,
        bump=result.bump,
        reason=result.reason,
        mode=result.mode,
        why=result.mode_reason,
        rows_changed=result.rows_changed,
        rows_recomputed=result.rows_recomputed,
        quarantined=len(result.quarantined),
        ms=round(result.seconds * 1000, 1),
    )
    return result


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
        sources=intake.records,
        source=source.text,
        mlforge_version=installed("mlforge"),
    )


@dataclass
class _Refresh:
    feature: Feature
    source: Source
    store: Store
    engine: Engine
    options: Options
    intake: Intake | None = field(default=None, init=False)

    def run(self) -> BuildResult:
        name, store = self.feature.name, self.store
        pointer, books = store.pointer(name), store.books(name)
        latest = store.manifest(name, pointer.version) if pointer else None
        if books.hold and not self.options.attended:
            return self._unchanged(latest, f"held: {books.hold}")
        listing = self.source.scan()
        if not listing.exists:
            reason = f"the source {self.source.root} is not there"
            return self._unchanged(
                latest, "source_missing" if latest else "waiting", warnings=(reason,)
            )
        intake = take_in(self.feature, listing, store, latest, self.options.max_file_memory)
        lost = too_much_lost(latest, intake, self.options)
        hold = None if self.options.attended else lost
        books = self._note(books, listing, intake, hold)
        if hold:
            return self._unchanged(latest, f"held: {hold}", intake)
        schema = intake.schema or (latest.events if latest else None)
        if intake.schema is None and intake.errors:
            raise _nothing_usable(name, intake)
        if schema is None:
            return self._unchanged(
                None, "waiting", intake, warnings=(f"{self.source.root} holds no parquet file yet",)
            )
        candidate = candidate_of(self.feature, self.source, intake, schema, self.engine)
        changes = self._changes(latest, candidate)
        data = data_change(latest, candidate, changes)
        explicit = Version.parse(self.options.version) if self.options.version else None
        decision = decide(
            latest, candidate, data, max(store.versions(name), default=None), explicit
        )
        if decision.version is None:
            return self._unchanged(latest, decision.reason, intake)
        return self._publish(pointer, latest, candidate, decision, changes)

    def _changes(self, latest: Manifest | None, candidate: Manifest) -> Changes | None:
        """What changed in the events; None where the two cannot be compared row by row."""
        if latest is None or latest.events != candidate.events:
            return None
        if (latest.spec.keys, latest.spec.timestamp) != (
            candidate.spec.keys,
            candidate.spec.timestamp,
        ):
            return None
        if partials.same_rows(latest.partials, candidate.partials):
            return Changes(0, _no_entities(candidate), None)
        try:
            return changes_between(self.store, latest, candidate)
        except (OSError, pl.exceptions.ComputeError, pl.exceptions.PanicException) as error:
            log.warning("stored events cannot be read", feature=candidate.name, error=str(error))
            return None

    def _publish(
        self,
        pointer: Pointer | None,
        latest: Manifest | None,
        candidate: Manifest,
        decision: Decision,
        changes: Changes | None,
    ) -> BuildResult:
        name, store = self.feature.name, self.store
        version = decision.version
        assert version is not None
        assert self.intake is not None
        why_whole = "" if self.intake.rowwise else self.intake.why
        mode, why = mode_of(latest, candidate, changes, why_whole, self.options)
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
            files_read=self.intake.files_read,
            quarantined=tuple(self.intake.quarantine.values()),
            warnings=self.intake.warnings,
            planned=not self.options.publish,
            manifest=manifest,
        )

    def _note(self, books: Books, listing: Listing, intake: Intake, hold: str | None) -> Books:
        """Keep the books: what is set aside, what is ignored, what the files looked like."""
        self.intake = intake
        name = self.feature.name
        now = replace(
            books,
            quarantine=dict(intake.quarantine),
            ignored={ignored.path: ignored.reason for ignored in listing.ignored},
            hold=hold or (None if self.options.attended else books.hold),
            description=self.feature.description,
            tags=self.feature.tags,
        )
        if not self.options.publish:
            return books
        if now != books:
            self.store.write_books(name, now)
        if intake.seen != self.store.seen(name):
            self.store.write_seen(name, intake.seen)
        for path, bad in intake.quarantine.items():
            if path not in books.quarantine or books.quarantine[path] != bad:
                log.warning("quarantined", feature=name, path=path, reason=bad.reason)
        return now

    def _unchanged(
        self,
        latest: Manifest | None,
        reason: str,
        intake: Intake | None = None,
        warnings: tuple[str, ...] = (),
    ) -> BuildResult:
        version = latest.version if latest else None
        return BuildResult(
            feature=self.feature.name,
            version=str(version) if version else None,
            reason=reason,
            rows=latest.row_count if latest else 0,
            path=self.store.data(self.feature.name, version) if version else None,
            planned=not self.options.publish,
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
    writer: TableWriter, mode: str, latest: Manifest | None, changes: Changes | None, store: Store
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


def _nothing_usable(name: str, intake: Intake) -> Exception:
    first = intake.errors[0]
    if len(intake.errors) == 1:
        return first
    return type(first)(
        f"{first} (and {len(intake.errors) - 1} more files of {name} cannot be used)"
    )


def _no_entities(manifest: Manifest) -> pl.DataFrame:
    return frames.empty(column for column in manifest.events if column.name in manifest.spec.keys)
