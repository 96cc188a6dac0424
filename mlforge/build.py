"""Refresh: bring a feature's offline store to the present state of its source.

sources -> partials -> changes -> decision -> rows -> publish. Publishing comes last: a retry repeats
work, never loses it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version as installed
from pathlib import Path

import polars as pl
import structlog

from mlforge import clock, frames, partials
from mlforge.engines import Engine, Events
from mlforge.errors import VersionConflict
from mlforge.features import Feature
from mlforge.intake import Intake, take_in
from mlforge.manifest import Manifest, Partial
from mlforge.partials import Changes
from mlforge.rows import Layout, Table, TableWriter
from mlforge.schema import Schema
from mlforge.sources import Listing, Source
from mlforge.store import Books, Pointer, Quarantined, Store
from mlforge.values import Version
from mlforge.versioning import DataChange, Decision, decide

log = structlog.get_logger("mlforge.build")
_ATTEMPTS = 5


@dataclass(frozen=True)
class Options:
    """How a refresh is to be done.

    attended: a person asked for it, so nothing is held back. version: publish under this number in any
    case. full: evaluate everything, also what has not changed. hold_above: the share of files or rows
    that an unattended refresh may lose before it is held. cost_share: the share of changed events
    above which a full rebuild is cheaper than an incremental one. max_file_memory: bytes that one file
    may take in memory; a larger one is set aside.
    """

    attended: bool = True
    version: str | None = None
    full: bool = False
    hold_above: float = 0.5
    cost_share: float = 0.3
    max_file_memory: int = 4 << 30
    layout: Layout = field(default_factory=Layout)


@dataclass(frozen=True)
class BuildResult:
    """What a refresh did for one feature."""

    feature: str
    version: str | None = None
    bump: str | None = None
    reason: str = "unchanged"
    details: tuple[str, ...] = ()
    rows: int = 0
    path: Path | None = None
    changed: bool = False
    mode: str = "none"
    mode_reason: str = ""
    rows_changed: int = 0
    entities: int = 0
    rows_recomputed: int = 0
    files_read: int = 0
    quarantined: tuple[Quarantined, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    engine: str = ""


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
    result = replace(result, seconds=time.perf_counter() - started, engine=engine.name)
    bound.info(
        "published" if result.changed else "not published",
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


def events_of(store: Store, manifest: Manifest, of: Sequence[Partial] | None = None) -> Events:
    """A manifest's events, or some of its partials."""
    chosen = manifest.partials if of is None else of
    return Events(
        manifest.spec,
        manifest.events,
        tuple((p, store.partial(manifest.name, p.hash)) for p in chosen),
    )


def changes_between(store: Store, before: Manifest, after: Manifest) -> Changes:
    """The events that differ between two versions of one schema and keys."""
    went, came = partials.replaced(before.partials, after.partials)
    return partials.compare(
        events_of(store, after, went).scan(), events_of(store, after, came).scan(), after.spec
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
        lost = _lost(latest, intake, self.options)
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
        data = _data_change(latest, candidate, changes)
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
        return changes_between(self.store, latest, candidate)

    def _publish(
        self,
        pointer: Pointer | None,
        latest: Manifest | None,
        candidate: Manifest,
        decision: Decision,
        changes: Changes | None,
    ) -> BuildResult:
        name, store = self.feature.name, self.store
        assert decision.version is not None
        assert self.intake is not None
        mode, why = self._mode(latest, candidate, changes)
        with store.stage(name) as staged:
            writer = TableWriter(
                self.engine, events_of(store, candidate), staged, self.options.layout
            )
            table = _write(writer, mode, latest, changes, store)
            numbered = candidate.published(decision.version, decision.summary, clock.now())
            manifest = replace(
                numbered, parts=table.parts, parent=latest.version if latest else None
            )
            store.publish(staged, manifest, pointer)
        if store.books(name).hold:
            store.write_books(name, replace(store.books(name), hold=None))
        return BuildResult(
            feature=name,
            version=str(decision.version),
            bump=decision.bump,
            reason=decision.reason,
            details=decision.details,
            rows=manifest.row_count,
            path=store.data(name, decision.version),
            changed=True,
            mode=mode,
            mode_reason=why,
            rows_changed=changes.rows if changes else sum(p.rows for p in candidate.partials),
            entities=changes.entities.height if changes else 0,
            rows_recomputed=table.recomputed,
            files_read=self.intake.files_read,
            quarantined=tuple(self.intake.quarantine.values()),
            warnings=self.intake.warnings,
        )

    def _mode(
        self, latest: Manifest | None, candidate: Manifest, changes: Changes | None
    ) -> tuple[str, str]:
        """Full or incremental, and why; the rows are the same."""
        if self.options.full:
            return "full", "asked for"
        if latest is None:
            return "full", "first build"
        if changes is None:
            return "full", "the function's columns, keys or timestamp changed"
        if (
            latest.spec.columns != candidate.spec.columns
            or latest.spec.interval != candidate.spec.interval
        ):
            return "full", "metrics or interval changed"
        if changes.rows == 0:
            return "incremental", "no event changed"
        if not candidate.rowwise:
            return (
                "full",
                f"the function is not taken for row-wise: {self.intake.why if self.intake else ''}",
            )
        total = sum(partial.rows for partial in candidate.partials)
        if changes.rows > self.options.cost_share * total:
            return "full", f"{changes.rows} of {total} events changed"
        return "incremental", f"{changes.rows} of {total} events changed"

    def _note(self, books: Books, listing: Listing, intake: Intake, hold: str | None) -> Books:
        """Keep the books: what is set aside, what is ignored, what the files looked like."""
        self.intake = intake
        name = self.feature.name
        now = replace(
            books,
            quarantine=dict(intake.quarantine),
            ignored={ignored.path: ignored.reason for ignored in listing.ignored},
            hold=hold or books.hold,
            description=self.feature.description,
            tags=self.feature.tags,
        )
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


def _data_change(
    latest: Manifest | None, candidate: Manifest, changes: Changes | None
) -> DataChange:
    before = {record.path: record.hash for record in latest.sources} if latest else {}
    after = {record.path: record.hash for record in candidate.sources}
    return DataChange(
        rows=changes.rows if changes else sum(p.rows for p in candidate.partials),
        entities=changes.entities.height if changes else 0,
        files_added=tuple(path for path in after if path not in before),
        files_removed=tuple(path for path in before if path not in after),
        files_replaced=tuple(
            path for path in after if path in before and before[path] != after[path]
        ),
    )


def _lost(latest: Manifest | None, intake: Intake, options: Options) -> str | None:
    """What an unattended refresh would lose, if that is too much."""
    if latest is None:
        return None
    for what, before, after in (
        ("files", len(latest.sources), len(intake.records)),
        ("events", sum(p.rows for p in latest.partials), sum(p.rows for p in intake.partials)),
    ):
        if before and (before - after) / before > options.hold_above:
            return f"{before - after} of {before} {what} are gone; run 'mlforge approve {latest.name}' or build it"
    return None


def _nothing_usable(name: str, intake: Intake) -> Exception:
    first = intake.errors[0]
    if len(intake.errors) == 1:
        return first
    return type(first)(
        f"{first} (and {len(intake.errors) - 1} more files of {name} cannot be used)"
    )


def _no_entities(manifest: Manifest) -> pl.DataFrame:
    return frames.empty(column for column in manifest.events if column.name in manifest.spec.keys)
