"""The codec of `.meta.json`: manifests as JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from mlforge.core.expression.columns import Derived
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.manifest import (
    ChangeSummary,
    Manifest,
    Part,
    Partial,
    SourceRecord,
    TableRecord,
    VersionSummary,
    config_of,
)
from mlforge.core.metrics import MetricColumn
from mlforge.core.nested import nested
from mlforge.core.time_model import Window, length_named
from mlforge.core.values import Duration, Version, from_iso, to_iso
from mlforge.errors import IntegrityError, UnsupportedStore
from mlforge.store.partial_json import (
    column_to_json,
    decoding,
    each_partial_from_json,
    each_source_from_json,
    events_of,
    partial_to_json,
    safe_name,
    schema_from_json,
    source_to_json,
    times_from_json,
    times_to_json,
)

FORMAT = 2
"""The newest format. A version that says nothing that the release before could not read is of format 1."""
_OF_FORMAT_1 = frozenset({"count", "sum", "mean", "min", "max", "std", "median"})
# Names that a document may lead to: nothing outside its own folder.
_PART = re.compile(r"data\.parquet(/[0-9A-Za-z][0-9A-Za-z._-]*)?")


def to_json(manifest: Manifest) -> dict[str, Any]:
    """The document, as `.meta.json` holds it."""
    return {
        **head(manifest),
        "partials": [partial_to_json(partial, manifest.events) for partial in manifest.partials],
        "sources": [source_to_json(record) for record in manifest.sources],
    }


def head(manifest: Manifest) -> dict[str, Any]:
    """The document without the lists that grow with the number of files."""
    created = to_iso(manifest.created_at)
    return {
        "format": format_of(manifest),
        "name": manifest.name,
        "version": _text(manifest.version),
        "content_hash": manifest.content_hash,
        "schema_hash": manifest.schema_hash,
        "config_hash": manifest.config_hash,
        "code_hash": manifest.code_hash,
        "rows_hash": manifest.rows_hash,
        "created_at": created,
        "updated_at": created,
        "row_count": manifest.row_count,
        "watermark": to_iso(manifest.watermark),
        **({"frontier": [to_iso(t) for t in manifest.frontier]} if manifest.frontier else {}),
        **config_of(manifest.spec),
        "columns": [column_to_json(column) for column in manifest.columns],
        "event_columns": [column_to_json(column) for column in manifest.events],
        "engine": manifest.engine,
        "rowwise": manifest.rowwise,
        "rowwise_reason": manifest.why,
        "source": manifest.source,
        **({"tables": _tables_json(manifest.tables)} if manifest.tables else {}),
        **({"table_sources": _texts(manifest.table_sources)} if manifest.table_sources else {}),
        "parent": _text(manifest.parent),
        "change_summary": None
        if manifest.change is None
        else {
            "bump_type": manifest.change.bump_type,
            "reason": manifest.change.reason,
            "details": list(manifest.change.details),
            "evidence": dict(manifest.change.evidence),
        },
        "rows_dropped": manifest.dropped,
        "parts": [
            {"file": p.file, "rows": p.rows, **times_to_json(p.times), "hash": p.hash}
            for p in manifest.parts
        ],
        "mlforge_version": manifest.mlforge_version,
    }


def format_of(manifest: Manifest) -> int:
    """The format of a version: older releases refuse a newer one by name, instead of overlooking what it says."""
    spec = manifest.spec
    is_new = (
        not spec.keys
        or spec.conditions
        or spec.derived
        or not all(window.is_fixed for window in spec.windows)
        or not _OF_FORMAT_1.issuperset(column.aggregation for column in spec.columns)
        or any(nested(column.dtype) for column in manifest.events)
    )
    return FORMAT if is_new else 1


def from_json(document: Any, where: str, lists: Lists | None = None) -> Manifest:
    """The manifest of a document; raises UnsupportedStore for another format, IntegrityError for a damaged document.

    lists: the document's long lists, where they are stored apart from it.
    """
    check_format(document, where)
    with decoding(where):
        return _decode(document, lists or Lists.of(document))


def summary(document: Any, where: str) -> VersionSummary:
    """The summary of a version, without a look at its long lists; raises as `from_json`."""
    check_format(document, where)
    with decoding(where):
        return VersionSummary(
            version=Version.parse(document["version"]),
            created_at=from_iso(document["created_at"]) or 0,
            change=_change(document["change_summary"]),
            row_count=document["row_count"],
            parent=_version_or_none(document["parent"]),
        )


def check_format(document: Any, where: str) -> None:
    """Refuse documents of a newer mlforge or of one without versions, and everything that is no manifest."""
    if not isinstance(document, Mapping):
        raise IntegrityError(f"{where} is damaged; restore it from a backup, or rebuild")
    number = document.get("format")
    if number is None and "last_updated" in document:
        raise UnsupportedStore(
            f"{where} is of the flat layout of v0.4; rebuild with 'mlforge build' and then run 'mlforge manifest --regenerate'"
        )
    if not isinstance(number, int) or not 1 <= number <= FORMAT:
        raise UnsupportedStore(
            f"{where} has format {number!r}, this mlforge reads up to {FORMAT}; it was written by "
            f"mlforge {document.get('mlforge_version', 'of another kind')}: upgrade to that release"
        )


@dataclass(frozen=True, slots=True)
class Lists:
    """The lists of a manifest: partials and source files."""

    partials: Sequence[Partial]
    sources: Sequence[SourceRecord]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """The lists that are in the document."""
        events = events_of(document)
        partials = each_partial_from_json(document["partials"], events)
        return cls(partials, each_source_from_json(document["sources"]))


def _decode(document: Mapping[str, Any], lists: Lists) -> Manifest:
    interval = document["interval"]
    spec = FeatureSpec(
        name=document["name"],
        keys=tuple(document["entity_keys"]),
        timestamp=document["timestamp"],
        interval=None if interval is None else Duration.parse(interval),
        columns=tuple(_metric(metric) for metric in document["metrics"]),
        online_clock=document["online_clock"],
        derived=tuple(
            Derived(column["name"], column["expression"]) for column in document.get("derive", ())
        ),
    )
    return Manifest(
        spec=spec,
        events=events_of(document),
        columns=schema_from_json(document["columns"]),
        code_hash=document["code_hash"],
        partials=tuple(lists.partials),
        engine=document["engine"],
        rowwise=document["rowwise"],
        version=Version.parse(document["version"]),
        sources=tuple(lists.sources),
        parts=tuple(
            Part(safe_name(p["file"], _PART), p["rows"], times_from_json(p), p["hash"])
            for p in document["parts"]
        ),
        change=_change(document["change_summary"]),
        parent=_version_or_none(document["parent"]),
        created_at=from_iso(document["created_at"]) or 0,
        source=document["source"],
        why=document["rowwise_reason"],
        mlforge_version=document["mlforge_version"],
        frontier=tuple(from_iso(text) or 0 for text in document.get("frontier", ())),
        tables=_tables(document.get("tables", {})),
        table_sources={n: tuple(t) for n, t in document.get("table_sources", {}).items()},
    )


def _change(document: Mapping[str, Any]) -> ChangeSummary:
    return ChangeSummary(
        document["bump_type"], document["reason"], tuple(document["details"]), document["evidence"]
    )


def _version_or_none(text: str | None) -> Version | None:
    return None if text is None else Version.parse(text)


def _metric(document: Mapping[str, Any]) -> MetricColumn:
    offset = document["offset"]
    window = Window(
        length_named(document["window"]),
        None if offset is None else Duration.parse(offset),
        document["closed"],
    )
    return MetricColumn(document["column"], document["aggregation"], window, document.get("where"))


def _tables_json(tables: Mapping[str, Sequence[TableRecord]]) -> dict[str, list[dict[str, Any]]]:
    return {
        name: [
            {"path": f.path, "size": f.size, "mtime": to_iso(f.mtime), "hash": f.hash}
            for f in files
        ]
        for name, files in tables.items()
    }


def _texts(sources: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    return {name: list(texts) for name, texts in sources.items()}


def _tables(document: Mapping[str, Any]) -> dict[str, tuple[TableRecord, ...]]:
    return {
        name: tuple(
            TableRecord(f["path"], f["size"], from_iso(f["mtime"]) or 0, f["hash"]) for f in files
        )
        for name, files in document.items()
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)
