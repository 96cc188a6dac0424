"""An ingestion: a feature, the listing of its source, and the four values that it works with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property, partial

import polars as pl

from mlforge.core.manifest import Manifest, Partial, SourceRecord
from mlforge.core.schema import dtypes
from mlforge.errors import ColumnNotFound, MlforgeError
from mlforge.features.feature import Feature
from mlforge.frames.shared_results import ByIdentity, once
from mlforge.ingest import amended, partials, unchanged
from mlforge.ingest.amended import AmendedFiles
from mlforge.ingest.file_states import FileStates
from mlforge.ingest.fit import Fit
from mlforge.ingest.function_process import FunctionProcess
from mlforge.ingest.intake import FAULTS, Intake, Outvoted
from mlforge.ingest.null_columns import NullColumns
from mlforge.ingest.partial_cache import Needs, PartialCache
from mlforge.ingest.quarantine import AMONG, Quarantine
from mlforge.ingest.side_tables import SideTables
from mlforge.ingest.transform import FileRows, Transform, Transformed
from mlforge.ingest.unchanged import FilePartial, UnchangedFiles
from mlforge.sources.file_bytes import BeingWritten, NotReadNow
from mlforge.sources.listing import Listing
from mlforge.sources.parquet_reader import Content
from mlforge.sources.source_file import SourceFile
from mlforge.sources.source_reading import SourceReading
from mlforge.store import Store


@dataclass(frozen=True)
class Session:
    """A pass over a listing: file states, stored partials, the function, and files set aside."""

    feature: Feature
    listing: Listing
    latest: Manifest | None
    states: FileStates
    cache: PartialCache
    transform: Transform
    quarantine: Quarantine
    amended: AmendedFiles
    max_bytes: int | None
    warnings: list[str] = field(default_factory=list)

    @property
    def is_first(self) -> bool:
        """Whether nothing is known of any file."""
        return self.latest is None and not self.states.before

    @cached_property
    def nulls(self) -> NullColumns:
        """Dtypes of columns without a value; to be asked for once the states of all files are known."""
        return NullColumns(self.states.now)

    @classmethod
    def open(
        cls,
        feature: Feature,
        listing: Listing,
        store: Store,
        latest: Manifest | None,
        reading: SourceReading,
        *,
        afresh: bool,
        careful: bool,
        process: FunctionProcess | None = None,
    ) -> Session:
        """Begin a pass from a snapshot of the feature. Raises MlforgeError for a missing side table."""
        sources, max_bytes = latest.sources if latest else (), reading.max_bytes
        tables = SideTables.of(feature, listing.tables, reading)
        before = store.file_states(feature.name)
        states = FileStates(before, sources, careful=careful, reading=reading)
        return cls(
            feature=feature,
            listing=listing,
            latest=latest,
            states=states,
            cache=PartialCache(
                feature, store, latest, tables.hashes, afresh=afresh, beside=states.is_ample
            ),
            transform=Transform(
                feature, listing.hive, tables, max_bytes, process, store.forgotten()
            ),
            quarantine=Quarantine(store.books(feature.name).quarantine),
            amended=AmendedFiles(store, feature.name),
            max_bytes=max_bytes,
        )

    def ahead(self, files: Sequence[SourceFile]) -> AbstractContextManager[Iterable[SourceFile]]:
        """The files in their order; small ones are read before it is their turn, but for those that were set aside before."""
        new, bad = self.cache.is_new, self.quarantine.before
        return self.states.ahead(files, new, bad, are_first=self.is_first)

    def unread(self, files: Iterable[SourceFile]) -> tuple[SourceFile, ...]:
        """The files among them that are to be decoded, as far as their stats tell.

        A file that was set aside before is not, nor is one that has its size of before: mostly it was only touched.
        """
        return tuple(file for file in files if self._is_unread(file))

    def _is_unread(self, file: SourceFile) -> bool:
        if file.path in self.quarantine.before:
            return False
        state = self.states.before.get(file.path)
        return state is None or state.size != file.stat.size or self.cache.is_new(state.hash)

    def read(self, file: SourceFile) -> Content:
        """The rows of a file that is ingested alone; the events that it had are read meanwhile, where it is large. Raises as `FileStates.read`."""
        if not self.states.is_at_hand(file):
            self._expect(file)
        return self.states.read(file)

    def expect(self, file: SourceFile) -> None:
        """Begin to read the events that a large file had, which is about to be hashed and mostly has others now."""
        if self.states.is_to_be_hashed(file):
            self._expect(file)

    def _expect(self, file: SourceFile) -> None:
        before = self.states.before.get(file.path)
        if before is not None and before.rows >= amended.LEAST_ROWS and self.states.is_ample:
            key = self.cache.key_in_use(self.cache.key(before.good))
            self.amended.expect(file.path, self.cache.find(key))

    def compute(self, key: str, rows: FileRows, *, alone: bool) -> Partial:
        """Transform rows and store their events; `alone`: only if the function treats each row alone.

        A file without rows yields no events, even if its columns do not suit the function or the feature.
        """
        run = partial(self.transform.run, rows, alone=alone)
        try:
            return self.keep(key, rows.where, run, alone=alone)
        except FAULTS:
            if rows.frame.height or not alone:
                raise
            return self.cache.add(*partials.without_rows(key, self.feature.spec))

    def keep(
        self, key: str, where: str, transformed: Callable[[], Transformed], *, alone: bool
    ) -> Partial:
        """Store the events of a file's rows, and note what to warn of.

        transformed: makes the events, unless another feature of the same function, or of one that certainly does the same, has made the
        very same of the file.
        """
        spec, forgotten = self.feature.spec, self.transform.forgotten
        needs = Needs.of(spec)

        def described() -> tuple[pl.DataFrame, Transformed, Partial]:
            made = transformed()
            hashed = self.amended.digest_of(where, made.events)
            described_partial = partials.describe(
                key, made.events, spec, made.dropped, hashed, made.listed
            )
            return made.events, made, described_partial

        def shared_key() -> Hashable:
            of = None if self.feature.code.tells_all else ByIdentity(self.feature.function)
            how = alone, self.feature.incremental, spec.interval, needs.columns, forgotten
            return key, where, of, how

        _, result, described_partial = once("partial", shared_key, described)
        if any(map(needs.refuse, described_partial.schema)):  # another feature's, which takes it
            _, result, described_partial = described()
        self.warnings.extend(result.warnings)
        return self.cache.add(described_partial, result.events)

    def described_together(
        self, keys: Sequence[str], returned: Sequence[pl.DataFrame]
    ) -> tuple[list[Partial], pl.DataFrame] | None:
        """The partials of several files' returned rows, and their events, one file's behind the other's; a thread may ask.

        None where something in a file is to be refused, left out, changed or warned of.
        """
        normal = self.transform.finish_together(returned)
        if normal is None:
            return None
        heights, spec = [frame.height for frame in returned], self.feature.spec
        described = partials.describe_each(keys, normal.frame, heights, spec, normal.listed)
        return described, normal.frame

    def key(self, path: str) -> str:
        """The memo key of a file's content, which includes the dtypes that it takes from other files."""
        return self.cache.key_in_use(self.cache.key(self.nulls.content(self.states.now[path])))

    def repeats(self, path: str) -> str | None:
        """The reason for which a file was set aside before, if the same content and code were tried then."""
        if path not in self.quarantine.before:  # as of most, whose memo need not be made
            return None
        return self.quarantine.repeats(path, self.memo(path))

    def memo(self, path: str, among: str = "") -> str:
        """The hash that a file's being set aside depends on; empty if it was not even read.

        among: the hash of all files together, where a file is set aside because of what others hold.
        """
        state = self.states.now.get(path)
        if state is None:
            return ""
        content = self.nulls.content(state)
        interval = self.feature.spec.interval  # with one, the last times of the calendar do not do
        parts = (
            self.cache.key(content),
            self.max_bytes,
            interval,
            self._asked,
            among and f"{AMONG}{among}",
        )
        return " ".join(map(str, filter(None, parts)))

    @cached_property
    def _asked(self) -> str:
        """A hash of the metrics, which events must fit; empty where there are none."""
        names = [column.name for column in self.feature.spec.columns]
        return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16] if names else ""

    def reject(self, file: SourceFile, error: MlforgeError, among: str = "") -> None:
        """Quarantine a file; a file that vanished after the listing, or has not arrived yet, is skipped instead.

        among: as for `memo`.
        """
        if isinstance(error, NotReadNow) and file.is_gone:
            self.states.forget(file.path)
            return
        if isinstance(error, BeingWritten) and not self.states.last_good(file.path):
            self.states.forget(file.path)
            self.warnings.append(str(error))
            return
        memo = "" if isinstance(error, NotReadNow) else self.memo(file.path, among)
        if not memo:
            self.states.stand_for_good(file.path)
        self.quarantine.add(file.path, error, memo)

    def record(self, file: SourceFile, rows: int, partial: Partial, *, alone: bool) -> SourceRecord:
        """The lineage of one file."""
        return SourceRecord(
            path=file.path,
            size=file.stat.size,
            mtime=file.stat.mtime_ns // 1000,
            hash=self.states.now[file.path].hash,
            rows=rows,
            times=partial.times if alone else None,
            partial=partial.hash,
        )

    def close(
        self,
        pairs: Sequence[FilePartial],
        why: str,
        fitted: Fit | None,
        *,
        rowwise: bool,
        unchanged_files: UnchangedFiles,
        outvoted: Outvoted | None = None,
        unread: Sequence[SourceFile] = (),
    ) -> Intake:
        """Write queued partials, and sum the pass up: the unchanged files with the records of all others.

        Raises ColumnNotFound for a rule about a column that no file has.
        """
        self.cache.finish()
        file_states = self.states.now
        looked_at = self.listing.lacking(file_states, unchanged_files.stats)
        self.states.conclude(looked_at, self.quarantine.now)
        records, used = joined = unchanged_files.joined(pairs)
        if rowwise:
            listed = self.listing.stats
            grown = unchanged_files.grown(pairs, joined, file_states, listed)
            unchanged.keep(records, file_states, grown)
        if fitted is not None:
            self._check_rules(fitted, used)
        return Intake(
            rowwise=rowwise,
            why=why,
            schema=fitted.schema if fitted else None,
            partials=used if rowwise else used[:1],
            records=records,
            quarantine=self.quarantine.now,
            errors=tuple(self.quarantine.errors),
            file_states=file_states,
            files_read=self.states.files_read,
            warnings=tuple(self.warnings),
            evidence=fitted.evidence() if fitted else {},
            outvoted=outvoted,
            tables=self.transform.tables.records,
            unread=tuple(unread),
            has_all=len(file_states) >= len(self.listing.stats),
        )

    def _check_rules(self, fitted: Fit, used: Sequence[Partial]) -> None:
        """Refuse rules about a column that no file with a row has: most likely its name is mistyped."""
        columns = dtypes(fitted.schema)
        for name in self.feature.validators:
            if name not in columns and any(partial.rows for partial in used):
                raise ColumnNotFound.among(f"{self.feature.name}: validators", name, list(columns))
