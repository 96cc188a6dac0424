"""The document beside a training set: what it was made from, down to versions, files and hashes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlforge.core.manifest import Manifest
from mlforge.core.schema import Column, Schema
from mlforge.core.values import Version, from_iso, to_iso
from mlforge.errors import IntegrityError
from mlforge.retrieval.reading import FeatureUse
from mlforge.retrieval.references import Reference

DOCUMENT = "training_set.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class SetPart:
    """A parquet file of a training set: its name, its rows, and the sha256 of its bytes."""

    file: str
    rows: int
    hash: str


@dataclass(frozen=True, slots=True)
class UsedFeature:
    """A feature as a training set has it.

    reference: how it was asked for; without a version where the served one was meant. columns: pairs of a column of
    the feature and its name in the set. files: the source files behind the version, with the hashes of their bytes.
    defaults: of the feature, for its columns in the set, as JSON has them.
    """

    reference: Reference
    version: Version
    prefix: str
    columns: tuple[tuple[str, str], ...]
    content_hash: str
    rows_hash: str
    code_hash: str
    config_hash: str
    schema_hash: str
    source: str
    files: tuple[tuple[str, str], ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, use: FeatureUse) -> UsedFeature:
        """The feature as a reading has it."""
        manifest: Manifest = use.manifest
        assert manifest.version is not None
        return cls(
            use.reference,
            manifest.version,
            use.prefix,
            tuple((column.name, use.label(column.name)) for column in use.chosen),
            manifest.content_hash,
            manifest.rows_hash,
            manifest.code_hash,
            manifest.config_hash,
            manifest.schema_hash,
            manifest.source,
            tuple((source.path, source.hash) for source in manifest.sources),
            {c.name: use.defaults[c.name] for c in use.chosen if c.name in use.defaults},
        )

    def to_json(self) -> dict[str, Any]:
        """The document."""
        reference = self.reference
        return {
            "name": reference.name,
            "version": str(self.version),
            "by_version": reference.version is not None,
            "chosen": list(reference.columns),
            "prefix": self.prefix,
            "as": reference.prefix,
            "keys": dict(reference.renamed),
            "columns": dict(self.columns),
            "content_hash": self.content_hash,
            "rows_hash": self.rows_hash,
            "code_hash": self.code_hash,
            "config_hash": self.config_hash,
            "schema_hash": self.schema_hash,
            "source": self.source,
            "files": dict(self.files),
            **({"defaults": dict(self.defaults)} if self.defaults else {}),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> UsedFeature:
        """Read the document."""
        version = Version.parse(document["version"])
        reference = Reference(
            document["name"],
            version if document["by_version"] else None,
            tuple(document["chosen"]),
            document["as"],
            tuple(document["keys"].items()),
        )
        return cls(
            reference,
            version,
            document["prefix"],
            tuple(document["columns"].items()),
            document["content_hash"],
            document["rows_hash"],
            document["code_hash"],
            document["config_hash"],
            document["schema_hash"],
            document["source"],
            tuple(document["files"].items()),
            document.get("defaults", {}),
        )


@dataclass(frozen=True, slots=True)
class SetDocument:
    """Everything that is known of a training set beside its rows.

    id: its own name, under which stores keep its versions. store: the identity of the store. spine_hash: over the
    spine's rows in their order. spine, columns: the columns of the spine, and those behind them. service: the
    service as a document, None where features were named. created_at: UTC microseconds.
    """

    id: str
    created_at: int
    mlforge_version: str
    store: str
    engine: str
    timestamp: str | None
    features: tuple[UsedFeature, ...]
    spine: Schema
    spine_hash: str
    spine_files: tuple[str, ...]
    columns: Schema
    parts: tuple[SetPart, ...]
    service: Mapping[str, Any] | None = None

    @property
    def rows(self) -> int:
        """The number of rows."""
        return sum(part.rows for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """The document, as the folder holds it."""
        return {
            "format": FORMAT,
            "id": self.id,
            "created_at": to_iso(self.created_at),
            "mlforge_version": self.mlforge_version,
            "store": self.store,
            "request": {
                "service": self.service,
                "timestamp": self.timestamp,
                "engine": self.engine,
            },
            "features": [feature.to_json() for feature in self.features],
            "spine": {
                "rows": self.rows,
                "hash": self.spine_hash,
                "files": list(self.spine_files),
                "columns": _columns_json(self.spine),
            },
            "columns": _columns_json(self.columns),
            "parts": [{"file": p.file, "rows": p.rows, "hash": p.hash} for p in self.parts],
        }

    def to_text(self) -> str:
        """The document as text, the same for equal documents."""
        return json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_text(cls, text: str, where: str) -> SetDocument:
        """Read the document; IntegrityError for one that is damaged or of another format."""
        try:
            document = json.loads(text)
            if document["format"] != FORMAT:
                raise IntegrityError(
                    f"{where} has format {document['format']}, and this release reads {FORMAT}; take the release "
                    f"that wrote it, {document.get('mlforge_version')}"
                )
            spine, request = document["spine"], document["request"]
            created_at = from_iso(document["created_at"])
            if created_at is None:
                raise ValueError("it says no time")
            return cls(
                document["id"],
                created_at,
                document["mlforge_version"],
                document["store"],
                request["engine"],
                request["timestamp"],
                tuple(map(UsedFeature.from_json, document["features"])),
                _columns(spine["columns"]),
                spine["hash"],
                tuple(spine["files"]),
                _columns(document["columns"]),
                tuple(SetPart(p["file"], p["rows"], p["hash"]) for p in document["parts"]),
                request["service"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(
                f"{where} is damaged ({error}); make the training set again"
            ) from error


def _columns_json(columns: Sequence[Column]) -> list[dict[str, str]]:
    return [{"name": column.name, "dtype": column.dtype} for column in columns]


def _columns(documents: Sequence[Mapping[str, str]]) -> Schema:
    return tuple(Column(document["name"], document["dtype"]) for document in documents)
