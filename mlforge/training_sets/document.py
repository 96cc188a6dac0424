"""The document beside a training set: what it was made from, down to versions, files and hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlforge.core.schema import Column, Schema
from mlforge.core.values import from_iso, to_iso
from mlforge.errors import IntegrityError
from mlforge.services.versions import renamed_service
from mlforge.training_sets.event_spines import UsedSpine
from mlforge.training_sets.used_features import UsedFeature
from mlforge.training_sets.used_labels import UsedLabel

DOCUMENT = "training_set.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class SetPart:
    """A parquet file of a training set: its name, its rows, and the sha256 of its bytes."""

    file: str
    rows: int
    hash: str


@dataclass(frozen=True, slots=True)
class SetDocument:
    """Everything that is known of a training set beside its rows.

    id: its own name, under which stores keep its versions. store: the identity of the store. spine_hash: over the
    spine's rows in their order. spine, columns: the columns of the spine, and those behind them. service: the
    service as a document, None where features were named. created_at, known_at: UTC microseconds. spine_events: the
    feature of whose events the spine was made, if it was.
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
    labels: tuple[UsedLabel, ...] = ()
    spine_events: UsedSpine | None = None
    known_at: int | None = None

    @property
    def rows(self) -> int:
        """The number of rows."""
        return sum(part.rows for part in self.parts)

    @property
    def rows_hash(self) -> str:
        """Over the bytes of the set's files in their order, in hexadecimal: sets of one hash have the same rows."""
        return hashlib.sha256("".join(part.hash for part in self.parts).encode()).hexdigest()

    def defaults_of(self, used: UsedFeature) -> dict[str, Any]:
        """The described defaults of a feature's columns in the set, by column: the service's win over the feature's."""
        labels = {label for feature in self.features for _, label in feature.columns}
        defaults = dict(used.defaults)
        of_service = {} if self.service is None else self.service.get("defaults", {})
        for name, value in of_service.items():
            for column, label in used.columns:
                if label == name or (name not in labels and column == name):
                    defaults[column] = value
        return defaults

    def renamed(self, names: Mapping[str, str]) -> SetDocument:
        """The same with features' present names, by their former ones; its columns keep their names."""
        if not names:
            return self
        events, service = self.spine_events, self.service
        labels = (replace(each, feature=each.feature.renamed(names)) for each in self.labels)
        return replace(
            self,
            features=tuple(feature.renamed(names) for feature in self.features),
            labels=tuple(labels),
            spine_events=events and replace(events, feature=events.feature.renamed(names)),
            service=service and renamed_service(service, names),
        )

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
                **({} if self.known_at is None else {"known_at": to_iso(self.known_at)}),
            },
            "features": [feature.to_json() for feature in self.features],
            **({"labels": [label.to_json() for label in self.labels]} if self.labels else {}),
            "spine": {
                "rows": self.rows,
                "hash": self.spine_hash,
                "files": list(self.spine_files),
                "columns": _columns_json(self.spine),
                **({} if self.spine_events is None else {"events_of": self.spine_events.to_json()}),
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
                tuple(map(UsedLabel.from_json, document.get("labels", ()))),
                UsedSpine.from_json(spine["events_of"]) if "events_of" in spine else None,
                from_iso(request.get("known_at")),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(
                f"{where} is damaged ({error}); make the training set again"
            ) from error


def _columns_json(columns: Sequence[Column]) -> list[dict[str, str]]:
    return [{"name": column.name, "dtype": column.dtype} for column in columns]


def _columns(documents: Sequence[Mapping[str, str]]) -> Schema:
    return tuple(Column(document["name"], document["dtype"]) for document in documents)
