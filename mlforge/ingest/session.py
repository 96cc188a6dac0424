"""What the files of a source hold: each content read once, each content's events computed once.

A file's content is known by its stat; a content's events are known by their memo key. So only
new contents cost anything, and a bad file is tried again only when it or the code changes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from operator import attrgetter

import polars as pl

from mlforge.core import clock
from mlforge.core.list_diff import lacking
from mlforge.core.manifest import Manifest, Partial, SourceRecord
from mlforge.core.schema import Schema
from mlforge.errors import (
    ColumnNotFound,
    DataError,
    FunctionError,
    MlforgeError,
    SourceError,
    ValidationError,
)
from mlforge.features.feature import Feature
from mlforge.features.row_wise import prove
from mlforge.frames import normalize, validate
from mlforge.ingest import partials, unchanged
from mlforge.ingest.unchanged import Found, UnchangedFiles
from mlforge.sources import source
from mlforge.sources.parquet_reader import BeingWritten, NotReadNow
from mlforge.sources.source import Listing, SourceFile
from mlforge.store import Quarantined, Seen, Store

_hash_of, _hash_and_rows = attrgetter("hash"), attrgetter("hash", "rows")
# A file whose change time is younger than this when it is read may change again within the same tick
# of the file system's clock, unseen in its stat: its content is hashed anew at the next refresh.
_SETTLED_NS = 50_000_000
# So many bytes of events are held back at most, to be written together.
_WRITTEN_AT = 32_000_000
# What a file may be set aside for; a full disk or a wrong definition is no file's fault.
FAULTS = (SourceError, FunctionError, DataError, ValidationError)


@dataclass(frozen=True)
class Intake:
    """What a source gives a feature now."""

    rowwise: bool
    why: str
    schema: Schema | None
    partials: tuple[Partial, ...]
    records: tuple[SourceRecord, ...]
    quarantine: Mapping[str, Quarantined] = field(default_factory=dict)
    errors: tuple[MlforgeError, ...] = ()
    seen: Mapping[str, Seen] = field(default_factory=dict)
    files_read: int = 0
    warnings: tuple[str, ...] = ()


class NotProvenError(Exception):
    """A turn in the flow, never seen outside: the function must see the whole source."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Desk:
    """One pass over a listing: what is known, what was read, what was set aside."""

    def __init__(
        self,
        feature: Feature,
        listing: Listing,
        store: Store,
        latest: Manifest | None,
        max_bytes: int | None,
        *,
        afresh: bool,
        careful: bool = False,
    ) -> None:
        self.feature, self.listing, self.store, self.latest = feature, listing, store, latest
        self.max_bytes, self.careful = max_bytes, careful
        rules = [[column, *map(str, rules)] for column, rules in feature.validators.items()]
        self.prefix = partials.memo_prefix(feature.code_hash, feature.spec, rules)
        self.on_disk = set() if afresh else store.partials(feature.name)
        self.made: dict[str, Partial] = {}
        self.unwritten: list[tuple[Partial, pl.DataFrame]] = []
        self.unwritten_bytes = 0
        self.seen_before = store.seen(feature.name)
        self.seen: dict[str, Seen] = {}
        self.set_aside_before = store.books(feature.name).quarantine
        self.set_aside: dict[str, Quarantined] = {}
        self.errors: list[MlforgeError] = []
        self.warnings: list[str] = []
        self.files_read = 0
        self.proven: set[tuple[tuple[str, pl.DataType], ...]] = set()

    def key(self, content: str) -> str:
        """The memo key of a content under this feature."""
        return partials.memo_key(self.prefix, content)

    @cached_property
    def known(self) -> dict[str, Partial]:
        """The latest version's partials."""
        return {partial.hash: partial for partial in self.latest.partials} if self.latest else {}

    @cached_property
    def rows(self) -> dict[str, int]:
        """The rows of contents seen before."""
        return dict(map(_hash_and_rows, self.seen_before.values()))

    def whole_key(self, contents: Iterable[str]) -> str:
        """The memo key of the whole source; that nobody asked for a proof shows in it."""
        asked = ["incremental=False"] if self.feature.incremental is False else []
        return self.key(partials.whole_content([*contents, *asked]))

    def verdict(self, path: str) -> str:
        """What a file's being set aside depends on; empty if it was not even read."""
        seen = self.seen.get(path)
        return f"{self.key(seen.hash)} {self.max_bytes}" if seen else ""

    def content(self, file: SourceFile) -> str:
        """The hash of the file's bytes; they are read only if its stat is new."""
        seen = self.seen_before.get(file.path)
        if seen is None or seen[:4] != file.stat:
            begun = time.time_ns()
            content = source.content_hash(file.absolute)
            self.see(file, content, self.rows.get(content, 0), begun)
        else:
            self.seen[file.path] = seen
        return self.seen[file.path].hash

    def see(self, file: SourceFile, content: str, rows: int, begun: int) -> None:
        """Note a file's stat and content, unless the stat may not yet tell the next change.

        begun: when reading it began; what is written later must show in the stat.
        """
        stat = file.stat
        settled = begun - stat.ctime_ns > _SETTLED_NS
        self.seen[file.path] = Seen(
            stat.size, stat.mtime_ns if settled else -1, stat.ctime_ns, stat.inode, content, rows
        )

    def at_rest(self) -> UnchangedFiles:
        """What the latest version says of files that are as they were: a short way, for most are.

        All records of a version come from one feature as it was then.
        """
        records = self.latest.sources if self.latest and self.latest.rowwise else ()
        if self.latest is None or not records or self.key(records[0].hash) != records[0].partial:
            return UnchangedFiles()
        found = unchanged.of_version(self.latest, self.seen_before).among(self.listing.stats)
        if lost := set(lacking(map(_hash_of, self.latest.partials), self.on_disk)):
            found = found.whose(lambda partial: partial.hash not in lost)
        self.seen = dict(self.seen_before)
        for path in lacking(self.seen_before, found.stats):
            del self.seen[path]
        return found

    def read(self, file: SourceFile) -> pl.DataFrame:
        """The file's rows; what it held is noted with its stat."""
        begun = time.time_ns()
        read = source.read(file, self.max_bytes, in_own_process=self.careful)
        self.files_read += 1
        self.see(file, read.hash, read.frame.height, begun)
        return read.frame

    def stored(self, key: str) -> Partial | None:
        """A partial that this or another refresh has computed before."""
        if key in self.made or key not in self.on_disk:
            return self.made.get(key)
        return self.known.get(key) or self.store.find_partial(self.feature.name, key)

    def keep(self, partial: Partial, frame: pl.DataFrame) -> None:
        """Store a partial, with others: many small ones are written in one go."""
        self.made[partial.hash] = partial
        self.unwritten.append((partial, frame))
        self.unwritten_bytes += int(frame.estimated_size())
        if self.unwritten_bytes >= _WRITTEN_AT:
            self.write()

    def write(self) -> None:
        """Store what is kept in memory."""
        made, self.unwritten, self.unwritten_bytes = self.unwritten, [], 0
        if made:
            self.store.write_partials(self.feature.name, made, self.feature.spec.timestamp)

    def compute(self, key: str, frame: pl.DataFrame, where: str, *, alone: bool) -> Partial:
        """Apply the function, validate, normalise and store; `alone`: only if the rows may be split."""
        feature = self.feature
        rows = self.apply(frame, where, alone=alone)
        try:
            report = validate.check(feature.validators, rows, f"{feature.name}: {where}")
            if report.failed:
                raise ValidationError(f"{feature.name}: {where}: {report.text()}")
            made = normalize.normalise(feature.spec, report.kept, f"{feature.name}: {where}")
        except ColumnNotFound as error:
            raise ColumnNotFound(f"{error}{self.hint()}") from error
        if report.failures:
            self.warnings.append(f"{where}: {report.text()}")
        dropped = {
            **asdict(made.dropped),
            **({"validators": report.dropped} if report.dropped else {}),
        }
        partial = partials.describe(key, made.frame, feature.spec, dropped)
        if partial.times is not None:
            late = normalize.future_warning(
                partial.times.end, clock.now(), where, made.naive, str(feature.spec.timestamp)
            )
            self.warnings.extend([late] if late else [])
        self.keep(partial, partials.stored(made.frame))
        return partial

    def apply(self, frame: pl.DataFrame, where: str, *, alone: bool) -> pl.DataFrame:
        """The function's rows. What is proven of the lazy plan is what runs."""
        feature = self.feature
        lazy = alone and feature.incremental is None
        doubt = self.doubt(frame) if lazy else None
        try:
            rows = feature.function(frame if doubt or not lazy else frame.lazy())
            rows = rows.collect() if isinstance(rows, pl.LazyFrame) else rows
        except pl.exceptions.ColumnNotFoundError as error:
            raise self.no_column(_first_line(error), frame) from error
        except MemoryError:
            raise  # the machine is short of it: no fault of a file that would be set aside for it
        except (Exception, SystemExit, pl.exceptions.PanicException) as error:
            raise FunctionError(
                f"{feature.name}: its function failed on {where}: {type(error).__name__}: {_first_line(error)}"
            ) from error
        if doubt:
            # The function takes this file, so it is the function that is not row-wise, not the file that is bad.
            raise NotProvenError(doubt)
        if not isinstance(rows, pl.DataFrame):
            raise FunctionError(
                f"{feature.name}: its function returned {type(rows).__name__}; it must return a polars DataFrame or LazyFrame"
            )
        return rows

    def doubt(self, frame: pl.DataFrame) -> str | None:
        """Why the function is not proven to treat each row of such a frame alone; None if it is."""
        shape = tuple(frame.schema.items())
        if shape in self.proven:
            return None
        proof = prove(self.feature.function, frame.schema)
        if proof.holds:
            self.proven.add(shape)
        return None if proof.holds else proof.reason

    def no_column(self, missing: str, frame: pl.DataFrame) -> MlforgeError:
        """A column that the function asks for is not in the file; perhaps it is in the path."""
        return ColumnNotFound(
            f"{self.feature.name}: its function asks for a column that is not there ({missing}); "
            f"the source has {', '.join(sorted(frame.columns))}{self.hint()}"
        )

    def hint(self) -> str:
        """Which columns stand in the folders' names only."""
        hive = ", ".join(sorted(self.listing.hive))
        return (
            f"; folders' names hold {hive}, files do not: write it into the files" if hive else ""
        )

    def reject(self, file: SourceFile, error: MlforgeError) -> None:
        """Set a file aside, in the books alone; one that has gone since it was listed is no file."""
        if isinstance(error, NotReadNow) and not file.absolute.exists():
            self.seen.pop(file.path, None)
            return
        if isinstance(error, BeingWritten) and not self.good(file.path):
            self.seen.pop(file.path, None)  # it has not come yet
            self.warnings.append(str(error))
            return
        memo = "" if isinstance(error, NotReadNow) else self.verdict(file.path)
        before = self.set_aside_before.get(file.path)
        since = before.since if before and before.memo == memo else clock.now()
        self.set_aside[file.path] = Quarantined(file.path, str(error), memo, since)
        self.errors.append(error)

    def good(self, path: str) -> str:
        """The hash of the last content of a path that was not set aside, empty if there was none."""
        if self.seen_before:
            before = self.seen_before.get(path)
            return before.good if before else ""
        sources = self.latest.sources if self.latest else ()  # what was seen is lost
        return next((record.hash for record in sources if record.path == path), "")

    def record(self, file: SourceFile, rows: int, partial: Partial, *, alone: bool) -> SourceRecord:
        """The lineage of one file."""
        return SourceRecord(
            path=file.path,
            size=file.stat.size,
            mtime=file.stat.mtime_ns // 1000,
            hash=self.seen[file.path].hash,
            rows=rows,
            times=partial.times if alone else None,
            partial=partial.hash,
        )

    def intake(
        self,
        found: Sequence[Found],
        why: str,
        schema: Schema | None,
        *,
        rowwise: bool,
        at_rest: UnchangedFiles,
    ) -> Intake:
        """Close the pass: files at rest, and what was found of the others."""
        self.write()
        for path in lacking(self.seen, at_rest.stats):
            good = self.good(path) if path in self.set_aside else self.seen[path].hash
            self.seen[path] = self.seen[path]._replace(good=good)
        records, used = joined = at_rest.joined(found)
        if rowwise:
            unchanged.keep(records, self.seen, at_rest.grown(found, joined, self.seen))
        return Intake(
            rowwise=rowwise,
            why=why,
            schema=schema,
            partials=used if rowwise else used[:1],
            records=records,
            quarantine=self.set_aside,
            errors=tuple(self.errors),
            seen=self.seen,
            files_read=self.files_read,
            warnings=tuple(self.warnings),
        )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")
