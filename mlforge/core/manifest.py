"""The manifest of a version: the partials it consists of, the parts of its table, why it was made."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from mlforge.core import time_model
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.schema import Schema
from mlforge.core.text import plural
from mlforge.core.values import FEATURE, TimeRange, Version

MODULUS = 1 << 128  # of the digests of multisets of rows


# Tuples: very many are made of each manifest that is read, each in a third of the time that a dataclass takes.
class Partial(NamedTuple):
    """The events of a feature from one source file, or from a whole source; stored under `hash`.

    `digest` is a hash of the multiset of its rows: digests of partials add up to that of a version.
    """

    hash: str
    rows: int
    times: TimeRange | None
    schema: Schema
    dropped: Mapping[str, int]
    digest: int


class SourceRecord(NamedTuple):
    """A source file as a version saw it."""

    path: str
    size: int
    mtime: int
    hash: str
    rows: int
    times: TimeRange | None
    partial: str


@dataclass(frozen=True, slots=True)
class TableRecord:
    """A file of a table that the feature's function was given, as a version saw it."""

    path: str
    size: int
    mtime: int
    hash: str


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a version's table: the rows of a time range, which overlaps no other part's."""

    file: str
    rows: int
    times: TimeRange | None
    hash: str


ROLLED_BACK = "rolled_back_from"
"""The evidence that a version followed a rollback: the highest version by then, which was not served."""


@dataclass(frozen=True, slots=True)
class ChangeSummary:
    """Why a version was made: the bump, the reason, the names concerned, and the evidence."""

    bump_type: str
    reason: str
    details: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """A version without the lists that grow with the number of its files."""

    version: Version
    created_at: int
    change: ChangeSummary | None
    row_count: int
    parent: Version | None


@dataclass(frozen=True, slots=True)
class PartialSums:
    """Partials added up. digest: of all their rows. newest: the greatest event time, in UTC microseconds; None without events."""

    rows: int
    digest: int
    newest: int | None
    dropped: Mapping[str, int]

    @classmethod
    def of(cls, partials: Sequence[Partial]) -> PartialSums:
        """The sums of these partials."""
        newest = max([partial.times.end for partial in partials if partial.times], default=None)
        dropped: Counter[str] = Counter()
        for partial in partials:
            if partial.dropped:
                dropped.update(partial.dropped)
        rows = sum([partial.rows for partial in partials])
        return cls(rows, digest_of(partials), newest, _sorted(dropped))

    def after(self, went: Sequence[Partial], came: Sequence[Partial]) -> PartialSums | None:
        """The sums once some partials have gone and others have come; None where that does not follow from these."""
        gone, new = PartialSums.of(went), PartialSums.of(came)
        if gone.newest is not None and gone.newest == self.newest:
            return None
        dropped = Counter(self.dropped)
        dropped.update(new.dropped)
        dropped.subtract(gone.dropped)
        newest = max((n for n in (self.newest, new.newest) if n is not None), default=None)
        digest = (self.digest + new.digest - gone.digest) % MODULUS
        rows = self.rows + new.rows - gone.rows
        return PartialSums(rows, digest, newest, _sorted(dropped))


def digest_of(partials: Sequence[Partial]) -> int:
    """The digest of all rows of these partials, whatever their order."""
    return sum([partial.digest for partial in partials]) % MODULUS


def _sorted(dropped: Mapping[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in sorted(dropped.items()) if count}


@dataclass(frozen=True)
class Manifest:
    """An immutable version: its spec, its inputs and its contents."""

    spec: FeatureSpec
    events: Schema
    columns: Schema
    code_hash: str
    partials: tuple[Partial, ...]
    engine: str
    rowwise: bool
    version: Version | None = None
    sources: tuple[SourceRecord, ...] = ()
    parts: tuple[Part, ...] = ()
    change: ChangeSummary | None = None
    parent: Version | None = None
    created_at: int = 0
    source: str = ""
    why: str = ""
    mlforge_version: str = ""
    frontier: tuple[int, ...] = ()
    """Where some events lay ahead of the clock: the newest that did not, then the instants of those ahead."""
    tables: Mapping[str, tuple[TableRecord, ...]] = field(default_factory=dict)
    """The files of the function's further arguments, by their names."""
    table_sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Where the definition says that those files lie; empty where a release before made the version."""
    known_sums: tuple[Sequence[Partial], PartialSums] | None = field(
        default=None, repr=False, compare=False
    )
    """Partials, and what they add up to: of these very ones, where it followed from the version before."""

    def __repr__(self) -> str:
        """The feature and version, and how large it is; not its files and partials, of which there may be thousands."""
        size = f"{plural(self.row_count, 'row')}, {plural(len(self.columns), 'column')}"
        return f"Manifest({self.name!r} {self.version or 'without a version'}: {size}, of {plural(len(self.sources), 'file')})"

    @property
    def name(self) -> str:
        """The feature's name."""
        return self.spec.name

    @property
    def row_count(self) -> int:
        """Rows of the version's table."""
        return sum(part.rows for part in self.parts)

    @property
    def upstream(self) -> tuple[str, Version] | None:
        """The feature and version whose rows this version was made from; None of one made from files."""
        name, _, version = self.source.removeprefix(FEATURE).partition("@")
        return (name, Version.parse(version)) if self.source.startswith(FEATURE) else None

    @cached_property
    def watermark(self) -> int | None:
        """The greatest event time up to the version's creation, in UTC microseconds; None without events."""
        if self.frontier:
            return max((time for time in self.frontier if time <= self.created_at), default=None)
        return self.sums.newest

    @cached_property
    def sums(self) -> PartialSums:
        """The partials added up."""
        if self.known_sums is not None and self.known_sums[0] is self.partials:
            return self.known_sums[1]
        return PartialSums.of(self.partials)

    def reached(self, now: int) -> int | None:
        """The greatest event time that is not after `now`, else `now`; None without events."""
        if self.frontier:
            return max((time for time in self.frontier if time <= now), default=now)
        return None if self.watermark is None else min(self.watermark, now)

    def as_of(self, now: int) -> int | None:
        """The instant whose values should be online at `now`; None without a timestamp or events."""
        spec = self.spec
        if spec.timestamp is None:
            return None
        return time_model.as_of(
            self.reached(now), now, spec.windows, spec.interval, spec.online_clock
        )

    @property
    def summary(self) -> VersionSummary:
        """The version's summary."""
        assert self.version is not None
        return VersionSummary(
            self.version, self.created_at, self.change, self.row_count, self.parent
        )

    @property
    def schema_hash(self) -> str:
        """Over the names and dtypes of the columns."""
        return _hash([[column.name, column.dtype] for column in self.columns])

    @property
    def config_hash(self) -> str:
        """Over keys, timestamp, interval, metrics and online clock."""
        return _hash(config_of(self.spec))

    @property
    def content_hash(self) -> str:
        """Over the hashes of the parts."""
        return _hash([part.hash for part in self.parts])

    @cached_property
    def rows_hash(self) -> str:
        """Over what the rows mean: the multiset of events and the way they are evaluated.

        It does not depend on the order of rows or files, on the engine or on the parts, so two
        histories that mean the same have the same one.
        """
        meaning = {k: v for k, v in config_of(self.spec).items() if k != "online_clock"}
        return _hash([self.schema_hash, meaning, f"{self.sums.digest:032x}"])

    @property
    def dropped(self) -> Mapping[str, int]:
        """Rows left out, by reason."""
        return self.sums.dropped

    def published(self, version: Version, change: ChangeSummary, at: int) -> Manifest:
        """This candidate as the version that it becomes."""
        return replace(self, version=version, change=change, created_at=at)


def config_of(spec: FeatureSpec) -> dict[str, Any]:
    """Keys, timestamp, interval, metrics, derived columns and online clock: what the config hash covers."""
    derived = [{"name": c.name, "expression": c.expression} for c in spec.derived]
    return {
        "entity_keys": list(spec.keys),
        "timestamp": spec.timestamp,
        "interval": None if spec.interval is None else str(spec.interval),
        "online_clock": spec.online_clock,
        "metrics": [
            {
                "column": metric.column,
                "aggregation": metric.aggregation,
                "window": metric.window.name,
                "offset": None if metric.window.offset is None else str(metric.window.offset),
                "closed": metric.window.closed,
                **({"where": metric.where} if metric.where else {}),
            }
            for metric in spec.columns
        ],
        **({"derive": derived} if derived else {}),
    }


def _hash(value: Sequence[Any] | Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
