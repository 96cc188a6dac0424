"""What a version says about itself (`.meta.json`), and its codec."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

from mlforge.errors import IntegrityError, MlforgeError, UnsupportedStore
from mlforge.metrics import MetricColumn
from mlforge.schema import Column, Schema, shared
from mlforge.spec import FeatureSpec
from mlforge.timemodel import Window
from mlforge.values import Duration, TimeRange, Version, from_iso, to_iso

FORMAT = 1
MODULUS = 1 << 128  # of the digests of multisets of rows
# Names that a document may lead to: nothing outside its own folder.
_PART = re.compile(r"data\.parquet(/[0-9A-Za-z][0-9A-Za-z._-]*)?")
_HASH = re.compile(r"[0-9A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Partial:
    """The events that one source file, or a whole source, gives a feature; stored under `hash`.

    `digest` is a hash of the multiset of its rows: digests of partials add up to that of a version.
    """

    hash: str
    rows: int
    times: TimeRange | None
    schema: Schema
    dropped: Mapping[str, int]
    digest: int


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """One source file as a version saw it."""

    path: str
    size: int
    mtime: int
    hash: str
    rows: int
    times: TimeRange | None
    partial: str


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a version's data: rows of a time range, none of which another part holds."""

    file: str
    rows: int
    times: TimeRange | None
    hash: str


@dataclass(frozen=True, slots=True)
class ChangeSummary:
    """Why a version was made: the bump, the reason, the names concerned, and the evidence."""

    bump_type: str
    reason: str
    details: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """One immutable version: what it means, what it was made from, what it holds."""

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

    @property
    def name(self) -> str:
        """The feature's name."""
        return self.spec.name

    @property
    def row_count(self) -> int:
        """Rows of the version's table."""
        return sum(part.rows for part in self.parts)

    @cached_property
    def watermark(self) -> int | None:
        """The greatest event time among the partials."""
        return max([partial.times.end for partial in self.partials if partial.times], default=None)

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
        digest = sum([partial.digest for partial in self.partials]) % MODULUS
        meaning = {k: v for k, v in config_of(self.spec).items() if k != "online_clock"}
        return _hash([self.schema_hash, meaning, f"{digest:032x}"])

    @cached_property
    def dropped(self) -> dict[str, int]:
        """Rows left out, by reason."""
        total: Counter[str] = Counter()
        for partial in self.partials:
            if partial.dropped:
                total.update(partial.dropped)
        return {reason: count for reason, count in sorted(total.items()) if count}

    def published(self, version: Version, change: ChangeSummary, at: int) -> Manifest:
        """This candidate as the version that it becomes."""
        return replace(self, version=version, change=change, created_at=at)

    def to_json(self) -> dict[str, Any]:
        """The document, as `.meta.json` holds it."""
        return {
            **self.head(),
            "partials": [partial_to_json(partial, self.events) for partial in self.partials],
            "sources": [source_entry(record) for record in self.sources],
        }

    def head(self) -> dict[str, Any]:
        """The document without the lists that grow with the number of files."""
        created = to_iso(self.created_at)
        return {
            "format": FORMAT,
            "name": self.name,
            "version": _text(self.version),
            "content_hash": self.content_hash,
            "schema_hash": self.schema_hash,
            "config_hash": self.config_hash,
            "code_hash": self.code_hash,
            "rows_hash": self.rows_hash,
            "created_at": created,
            "updated_at": created,
            "row_count": self.row_count,
            "watermark": to_iso(self.watermark),
            **config_of(self.spec),
            "columns": [_column_json(column) for column in self.columns],
            "event_columns": [_column_json(column) for column in self.events],
            "engine": self.engine,
            "rowwise": self.rowwise,
            "rowwise_reason": self.why,
            "source": self.source,
            "parent": _text(self.parent),
            "change_summary": None
            if self.change is None
            else {
                "bump_type": self.change.bump_type,
                "reason": self.change.reason,
                "details": list(self.change.details),
                "evidence": dict(self.change.evidence),
            },
            "rows_dropped": self.dropped,
            "parts": [
                {"file": p.file, "rows": p.rows, **_times_json(p.times), "hash": p.hash}
                for p in self.parts
            ],
            "mlforge_version": self.mlforge_version,
        }

    @classmethod
    def from_json(cls, document: Any, where: str, lists: Lists | None = None) -> Manifest:
        """Read a document; another format is refused by name, a torn one is an IntegrityError.

        lists: where those of the document are not in it.
        """
        check_format(document, where)
        try:
            return _decode(document, lists or Lists.of(document))
        except (KeyError, TypeError, ValueError, AttributeError, MlforgeError) as error:
            raise IntegrityError(
                f"{where} is damaged ({type(error).__name__}: {error}); restore it from a backup, or rebuild"
            ) from error


def config_of(spec: FeatureSpec) -> dict[str, Any]:
    """Keys, timestamp, interval, metrics and online clock: what the config hash covers."""
    return {
        "entity_keys": list(spec.keys),
        "timestamp": spec.timestamp,
        "interval": None if spec.interval is None else str(spec.interval),
        "online_clock": spec.online_clock,
        "metrics": [
            {
                "column": metric.column,
                "aggregation": metric.aggregation,
                "window": str(metric.window.width),
                "offset": None if metric.window.offset is None else str(metric.window.offset),
                "closed": metric.window.closed,
            }
            for metric in spec.columns
        ],
    }


def check_format(document: Any, where: str) -> None:
    """Refuse documents of a newer mlforge, those from before versions, and what is none."""
    if not isinstance(document, Mapping):
        raise IntegrityError(f"{where} is damaged; restore it from a backup, or rebuild")
    found = document.get("format")
    if found is None and "last_updated" in document:
        raise UnsupportedStore(
            f"{where} is of the flat layout of v0.4; rebuild with 'mlforge build' and then run 'mlforge manifest --regenerate'"
        )
    if not isinstance(found, int) or not 1 <= found <= FORMAT:
        raise UnsupportedStore(
            f"{where} has format {found!r}, this mlforge reads up to {FORMAT}; it was written by "
            f"mlforge {document.get('mlforge_version', 'of another kind')}: upgrade to that release"
        )


def partial_to_json(partial: Partial, events: Schema = ()) -> dict[str, Any]:
    """A partial's description; its schema is left out where it is that of the events around it."""
    own = (
        {}
        if events and partial.schema == events
        else {"schema": [_column_json(c) for c in partial.schema]}
    )
    return {
        "hash": partial.hash,
        "rows": partial.rows,
        **_times_json(partial.times),
        "dropped": dict(partial.dropped),
        "digest": f"{partial.digest:032x}",
        **own,
    }


def partials_to_json(partials: Sequence[Partial]) -> list[Any]:
    """Descriptions of partials of one schema, in few bytes."""
    schema = [_column_json(column) for column in partials[0].schema]
    return [
        schema,
        [
            [p.hash, p.rows, [p.times.start, p.times.end] if p.times else None, p.digest, p.dropped]
            for p in partials
        ],
    ]


def partials_from_json(document: Sequence[Any]) -> list[Partial]:
    """Read what `partials_to_json` wrote."""
    columns, entries = document
    schema = _schema(columns)
    return [
        Partial(
            hash=_safe(name, _HASH),
            rows=rows,
            times=TimeRange(*times) if times else None,
            schema=schema,
            dropped=dropped,
            digest=digest,
        )
        for name, rows, times, digest, dropped in entries
    ]


def partial_from_json(document: Mapping[str, Any], events: Schema = ()) -> Partial:
    """Read what `partial_to_json` wrote."""
    schema = _schema(document["schema"]) if "schema" in document else events
    return Partial(
        hash=_safe(document["hash"], _HASH),
        rows=document["rows"],
        times=_times(document),
        schema=schema,
        dropped=document["dropped"],
        digest=int(document["digest"], 16),
    )


def events_of(document: Mapping[str, Any]) -> Schema:
    """The columns of a document's events."""
    return _schema(document["event_columns"])


def source_entry(record: SourceRecord) -> dict[str, Any]:
    """A file in a manifest's list."""
    return {
        "path": record.path,
        "size": record.size,
        "mtime": to_iso(record.mtime),
        "hash": record.hash,
        "rows": record.rows,
        **_times_json(record.times),
        "partial": record.partial,
    }


def source_from_json(entry: Mapping[str, Any]) -> SourceRecord:
    """Read what `source_entry` wrote."""
    return SourceRecord(
        entry["path"],
        entry["size"],
        from_iso(entry["mtime"]) or 0,
        entry["hash"],
        entry["rows"],
        _times(entry),
        entry["partial"],
    )


@dataclass(frozen=True, slots=True)
class Lists:
    """What a manifest lists: partials and source files."""

    partials: Sequence[Partial]
    sources: Sequence[SourceRecord]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """The lists that are in the document."""
        events = events_of(document)
        partials = [partial_from_json(entry, events) for entry in document["partials"]]
        return cls(partials, [source_from_json(entry) for entry in document["sources"]])


def _decode(document: Mapping[str, Any], lists: Lists) -> Manifest:
    interval = document["interval"]
    spec = FeatureSpec(
        name=document["name"],
        keys=tuple(document["entity_keys"]),
        timestamp=document["timestamp"],
        interval=None if interval is None else Duration.parse(interval),
        columns=tuple(_metric(metric) for metric in document["metrics"]),
        online_clock=document["online_clock"],
    )
    change = document["change_summary"]
    return Manifest(
        spec=spec,
        events=events_of(document),
        columns=_schema(document["columns"]),
        code_hash=document["code_hash"],
        partials=tuple(lists.partials),
        engine=document["engine"],
        rowwise=document["rowwise"],
        version=Version.parse(document["version"]),
        sources=tuple(lists.sources),
        parts=tuple(
            Part(_safe(p["file"], _PART), p["rows"], _times(p), p["hash"])
            for p in document["parts"]
        ),
        change=ChangeSummary(
            change["bump_type"], change["reason"], tuple(change["details"]), change["evidence"]
        ),
        parent=None if document["parent"] is None else Version.parse(document["parent"]),
        created_at=from_iso(document["created_at"]) or 0,
        source=document["source"],
        why=document["rowwise_reason"],
        mlforge_version=document["mlforge_version"],
    )


def _metric(document: Mapping[str, Any]) -> MetricColumn:
    offset = document["offset"]
    window = Window(
        Duration.parse(document["window"]),
        None if offset is None else Duration.parse(offset),
        document["closed"],
    )
    return MetricColumn(document["column"], document["aggregation"], window)


def _column_json(column: Column) -> dict[str, str]:
    aggregate = {"aggregation": column.aggregation, "window": column.window}
    return {"name": column.name, "dtype": column.dtype, **{k: v for k, v in aggregate.items() if v}}


def _schema(document: Sequence[Mapping[str, Any]]) -> Schema:
    return shared(tuple(_column(column) for column in document))


def _column(document: Mapping[str, Any]) -> Column:
    return Column(
        document["name"], document["dtype"], document.get("aggregation"), document.get("window")
    )


def _times_json(times: TimeRange | None) -> dict[str, str | None]:
    return {
        "min_time": to_iso(times.start if times else None),
        "max_time": to_iso(times.end if times else None),
    }


def _times(document: Mapping[str, Any]) -> TimeRange | None:
    start, end = from_iso(document["min_time"]), from_iso(document["max_time"])
    return None if start is None or end is None else TimeRange(start, end)


def _safe(name: str, allowed: re.Pattern[str]) -> str:
    if allowed.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not the name of a file of a version")
    return name


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _hash(value: Sequence[Any] | Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
