"""Audit: whether stored and served values equal the values computed from the raw files.

For a sample of entities, or all, the values of the served version are computed anew from the source
files by `mlforge.core.reference`, and compared with the rows of data.parquet, with training values and with
the rows online. No engine and no stored event has a part in the expected values. The files must be
those that the version was made from: each is known by its hash.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from mlforge.core import clock, reference
from mlforge.core.expression.columns import RowDerivation
from mlforge.core.logs import get_logger
from mlforge.core.manifest import Manifest, config_of
from mlforge.core.reference import Cell, History, Row
from mlforge.core.values import FIRST_INSTANT, LAST_INSTANT, from_us
from mlforge.errors import IntegrityError, MlforgeError, OnlineError, StoreUnavailable
from mlforge.features.feature import Feature
from mlforge.frames import polars_schema
from mlforge.ingest.side_tables import SideTables
from mlforge.maintenance.raw_events import RawFile, RawReader
from mlforge.maintenance.sampling import (
    SOME,
    Entity,
    Sample,
    Share,
    by_entity,
    entity_text,
    rows_of,
)
from mlforge.online import OnlineStore
from mlforge.sources.damage import DAMAGE
from mlforge.sources.row_source import RowSource
from mlforge.sources.source_reading import SourceReading
from mlforge.store import Store
from mlforge.store.records import Audit

log = get_logger(__name__)

_ROWS, _INSTANTS = 50, 8
"""Of each sampled entity: stored rows whose values are compared, and instants of training values."""
_TOLD = 20
_STRANGERS = "rows of entities that the files do not have"
"""Stands for a suspect where no entity can be named: the next audit looks at all of them."""
_ASKED = 1_000  # entities in one question to the online store
TrainingRows = Callable[[pl.DataFrame, Sequence[tuple[str, str]], Store, str], pl.DataFrame]
"""The rows of training of a spine: of features, each with its version, of a store, by an engine."""


def audit(
    feature: Feature,
    source: RowSource,
    store: Store,
    training: TrainingRows,
    online: OnlineStore | None = None,
    share: Share = SOME,
    max_bytes: int | None = None,
) -> Audit:
    """Compare the served version with the raw files; the result is stored beside the version, if the store takes it.

    training: how training data are read (`retrieval.training.stored_values`), for they are audited, too.
    Entities that an earlier audit found wrong are audited again, whatever the seed. An entity with
    events in a file whose content no longer exists is counted as unproven.
    Raises MlforgeError if there is nothing to audit: no version, or a version made by other code.
    """
    began = time.perf_counter()
    manifest = store.resolve(feature.name)
    _check_same(feature, manifest)
    listings = {name: table.scan() for name, table in source.tables}
    tables = SideTables.of(feature, listings, SourceReading(max_bytes))
    if not tables.gave(feature, manifest, store):
        raise MlforgeError(
            f"{feature.name}: its tables changed since {manifest.version} was made; "
            f"'mlforge build --features {feature.name}' takes them in"
        )
    before = store.audit(feature.name)
    if before and _STRANGERS in before.suspects:
        share = replace(share, entities=None)

    reader = RawReader(feature, source, store, manifest, max_bytes, tables)

    def held_against(files: Iterable[RawFile]) -> _Audit:
        work = _Audit(feature, store, training, online, share, manifest, reader)
        work.run(files, before)
        return work

    work = held_against(RawFile(s.path, s.hash, s.partial) for s in manifest.sources)
    if work.gone:
        # Files that were compacted or written anew with the same rows make no version: if what is there
        # now gives the same values, that proves them too. If not, it tells nothing of this version.
        now = held_against(
            RawFile(path, state.hash, None)
            for path, state in store.file_states(feature.name).items()
            if state.hash == state.good  # else it is set aside
        )
        if not now.gone and not now.mismatches:
            work = now
    report = work.report(time.perf_counter() - began).following(before)
    try:
        store.write_audit(feature.name, report)
    except StoreUnavailable as error:
        log.warning("the audit's result is not kept", feature=feature.name, error=str(error))
    return report


def _check_same(feature: Feature, manifest: Manifest) -> None:
    same = config_of(feature.spec) == config_of(manifest.spec)
    if not same or feature.code_hash != manifest.code_hash:
        raise MlforgeError(
            f"{feature.name} {manifest.version} was made by other code than the definitions hold; "
            f"'mlforge build --features {feature.name}' makes a version of these"
        )


@dataclass
class _Audit:
    feature: Feature
    store: Store
    training: TrainingRows
    online: OnlineStore | None
    share: Share
    manifest: Manifest
    reader: RawReader
    values: int = 0
    compared: int = 0
    unproven: int = 0
    gone: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    mismatches: int = 0
    messages: list[str] = field(default_factory=list)
    suspects: dict[str, None] = field(default_factory=dict)

    def run(self, files: Iterable[RawFile], before: Audit | None) -> None:
        """Sample, compute anew, compare."""
        spec, manifest = self.feature.spec, self.manifest
        names = [c.name for c in spec.plain.values(manifest.events)]
        suspects = before.suspects if before else ()
        sample = Sample.of(spec.keys, self._stored(), self.share, suspects)
        raw = self.reader.read(files, sample)
        events, unknown = raw.by_entity, raw.unknown
        self.gone = raw.gone
        stored = by_entity(self._stored(sample), spec.keys)
        histories = {
            entity: History.of(spec, names, events.get(entity, ()))
            for entity in sorted({*events, *stored}, key=str)
        }
        known = {entity: h for entity, h in histories.items() if entity not in unknown}
        self.unproven = len({*unknown, *histories}) - len(known)
        self.compared = len(known)
        for entity, history in known.items():
            self._offline(entity, history, stored.get(entity, []))
        self._training(known)
        self._served(known, whole=self.share.entities is None and not unknown)
        if before is not None:
            self._still(before, unknown)

    def _still(self, before: Audit, unknown: Iterable[Entity]) -> None:
        """Entities that were wrong before and could not be looked at now are still an alarm."""
        unseen = {entity_text(entity) for entity in unknown}
        online_again = not self.skipped or bool(before.skipped)
        for suspect in before.suspects:
            if suspect == _STRANGERS:
                seen = not self.skipped and not unseen
            else:
                seen = suspect not in unseen and online_again
            if not seen and suspect not in self.suspects:
                self.suspects[suspect] = None
                self.mismatches += 1
                shown = suspect.replace("\x1f", ", ") or "the whole source"
                self.messages.append(
                    f"{shown}: was wrong in the audit before, and cannot be proven now"
                )

    def report(self, seconds: float) -> Audit:
        """The result as the store keeps it."""
        return Audit(
            version=str(self.manifest.version),
            at=clock.now(),
            entities=self.compared,
            values=self.values,
            unproven=self.unproven,
            gone=tuple(self.gone),
            skipped=tuple(self.skipped),
            mismatches=self.mismatches,
            first=tuple(self.messages),
            suspects=tuple(self.suspects),
            all=self.share.entities is None,
            seconds=round(seconds, 3),
        )

    # The three kinds of values: stored, computed for training, served.

    def _stored(self, sample: Sample | None = None) -> pl.DataFrame:
        """The sampled rows of data.parquet; without a sample all its distinct keys."""
        manifest, keys = self.manifest, list(self.feature.spec.keys)
        try:
            table = self.store.scan_table(manifest)
            rows = table.select(keys).unique() if sample is None else sample.of_lazy(table)
            return rows.collect()
        except DAMAGE as error:
            raise IntegrityError(
                f"{manifest.name} {manifest.version} cannot be read ({type(error).__name__}); "
                "'mlforge verify' says what is wrong with it"
            ) from error

    def _offline(self, entity: Entity, history: History, rows: list[Row]) -> None:
        spec = self.feature.spec
        if not spec.columns:
            time = [spec.timestamp] if spec.timestamp else []
            stored = History.of(spec, history.names, rows).rows
            if len(stored) != len(history.rows):
                self._wrong(
                    entity, f"{len(stored)} rows are stored, the files give {len(history.rows)}"
                )
            for row, expected in zip(stored, history.rows, strict=False):
                cells = {name: Cell(expected.get(name)) for name in (*time, *history.names)}
                self._compare(entity, "offline", row.get(spec.timestamp or ""), row, cells)
            return
        assert spec.timestamp is not None
        points, by_point = history.points(), {row[spec.timestamp]: row for row in rows}
        if sorted(row[spec.timestamp] for row in rows) != points:
            odd = sorted({*points} ^ {*by_point})
            where = f", first at {_shown_time(odd[0])}" if odd else ""
            self._wrong(entity, f"{len(rows)} rows are stored, the files give {len(points)}{where}")
        for point in self._chosen(entity, [point for point in points if point in by_point], _ROWS):
            self._compare(entity, "offline", point, by_point[point], history.value(point))

    def _training(self, histories: Mapping[Entity, History]) -> None:
        """Values at instants where something may change: events, ends of windows, and beside them."""
        spec = self.feature.spec
        questions: list[tuple[Entity, int | None]] = []
        for entity, history in histories.items():
            if spec.timestamp is None:
                questions.append((entity, None))
                continue
            edges = [edge for edge in history.edges() if FIRST_INSTANT <= edge <= LAST_INSTANT]
            questions += [(entity, t) for t in self._chosen(entity, edges, _INSTANTS, always=False)]
        if not questions:
            return
        dtypes = polars_schema.polars_schema(c for c in self.manifest.events if c.name in spec.keys)
        spine = pl.DataFrame(height=len(questions)).with_columns(
            pl.Series(key, [entity[i] for entity, _ in questions], dtype=dtypes[key])
            for i, key in enumerate(spec.keys)
        )
        if spec.timestamp is not None:
            instants = pl.Series(spec.timestamp, [t for _, t in questions], dtype=pl.Int64)
            spine = spine.with_columns(instants.cast(polars_schema.UTC_INSTANT))
        pinned = (spec.name, str(self.manifest.version))
        training_rows = self.training(spine, [pinned], self.store, self.manifest.engine)
        for (entity, t), row in zip(questions, rows_of(training_rows), strict=True):
            cells = histories[entity].value(t)
            names = (*cells, *(column.name for column in spec.derived))
            values = {name: row[f"{spec.name}__{name}"] for name in names}
            self._compare(entity, "training", t, values, cells)

    def _served(self, histories: Mapping[Entity, History], whole: bool) -> None:
        """Check rows online as of the instant in their books; skipped while another version is online."""
        name, keys = self.feature.name, self.feature.spec.keys
        if self.online is None:
            self.skipped.append("online: there is no online store at hand")
            return
        entities = list(histories)
        try:
            for start in range(0, max(len(entities), 1), _ASKED):
                some = entities[start : start + _ASKED]
                named = [dict(zip(keys, entity, strict=True)) for entity in some]
                [(books, rows)] = self.online.fetch([(name, named)])
                target = books.target if books else None
                if (
                    books is None
                    or target is None
                    or books.pending
                    or (
                        (target.version, target.content)
                        != (str(self.manifest.version), self.manifest.rows_hash)
                    )
                ):
                    self.skipped.append("online: another version, or none, is there just now")
                    return
                for entity, row in zip(some, rows, strict=True):
                    self._online(entity, histories[entity], target.as_of, row)
            if whole:
                self._strangers(histories)
        except OnlineError as error:
            self.skipped.append(f"online: {error}")

    def _online(
        self,
        entity: Entity,
        history: History,
        as_of: int | None,
        row: Row | None,
    ) -> None:
        lives = history.lives(as_of)
        if row is None or not lives:
            self.values += 1
            if lives or row is not None:
                fault = (
                    "is not there" if lives else "is there, though no window of it holds an event"
                )
                self._wrong(entity, f"its row online {fault}, as of {_shown_time(as_of)}")
            return
        values = {name: reference.plain(value) for name, value in row.items()}
        self._compare(entity, "online", as_of, values, history.value(as_of))

    def _strangers(self, histories: Mapping[Entity, History]) -> None:
        """Rows online of entities that the files do not have."""
        from mlforge.frames.encoding import key_hash

        assert self.online is not None
        keys = self.feature.spec.keys
        hashes = {key_hash(dict(zip(keys, entity, strict=True))) for entity in histories}
        unknown_rows = self.online.count_other_rows(self.feature.name, hashes)
        if unknown_rows:
            self.mismatches += unknown_rows
            self.suspects[_STRANGERS] = None
            self.messages.append(
                f"{unknown_rows:,} rows online are of entities that the files do not have"
            )

    # Comparing, and telling what differs.

    def _compare(
        self, entity: Entity, where: str, t: int | None, row: Row, cells: Mapping[str, Cell]
    ) -> None:
        at = "" if t is None else f" at {_shown_time(t)}"
        for name, cell in cells.items():
            self.values += 1
            if not reference.agree(row.get(name), cell):
                self._wrong(
                    entity,
                    f"{where} {name}{at} is {row.get(name)!r}, the files give {cell.value!r}",
                )
        self._compare_derived(entity, where, t, row)

    def _compare_derived(self, entity: Entity, where: str, t: int | None, row: Row) -> None:
        """Derived columns follow from the row's other values, which are compared with the files."""
        spec = self.feature.spec
        present = [column.name for column in spec.derived if column.name in row]
        if not present:
            return
        at = "" if t is None else f" at {_shown_time(t)}"
        keyed = {**row, **dict(zip(spec.keys, entity, strict=True))}
        for name, expected in self._derived(keyed, t).items():
            if name in present:
                self.values += 1
                if row[name] != expected:
                    self._wrong(entity, f"{where} {name}{at} is {row[name]!r}, not {expected!r}")

    def _derived(self, row: Row, t: int | None) -> Row:
        """All derived columns of a row, instants in microseconds."""
        spec, events = self.feature.spec, self.manifest.events
        columns = spec.derivation(events)
        derive = RowDerivation(columns, spec.readable(events), [c.name for c in columns])
        return {name: reference.plain(value) for name, value in derive(row, t).items()}

    def _wrong(self, entity: Entity, what: str) -> None:
        self.mismatches += 1
        shown = ", ".join(
            f"{key}={value}" for key, value in zip(self.feature.spec.keys, entity, strict=True)
        )
        if len(self.messages) < _TOLD:
            self.messages.append(f"{shown or 'the whole source'}: {what}")
        if len(self.suspects) < _TOLD:
            self.suspects[entity_text(entity)] = None

    def _chosen(
        self, entity: Entity, points: Sequence[int], most: int, always: bool = True
    ) -> list[int]:
        """All the points of an audit of everything, else some that the seed chooses."""
        if len(points) <= most or (always and self.share.entities is None):
            return list(points)
        chance = random.Random(f"{self.share.seed} {entity_text(entity)}")
        return sorted(chance.sample(points, most))


def _shown_time(us: int | None) -> str:
    return "no time" if us is None else from_us(us).isoformat().replace("+00:00", "Z")
