"""Features of training sets, as the document beside a set has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mlforge.core.manifest import Manifest
from mlforge.core.values import Version
from mlforge.retrieval.reading import FeatureUse
from mlforge.retrieval.references import Reference


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
            tuple((column.name, use.answer_name(column.name)) for column in use.chosen),
            manifest.content_hash,
            manifest.rows_hash,
            manifest.code_hash,
            manifest.config_hash,
            manifest.schema_hash,
            manifest.source,
            tuple((source.path, source.hash) for source in manifest.sources),
            {c.name: use.defaults[c.name] for c in use.chosen if c.name in use.defaults},
        )

    def renamed(self, names: Mapping[str, str]) -> UsedFeature:
        """The same with the feature's present name, by its former ones; its columns keep their names."""
        name = self.reference.name
        return replace(self, reference=replace(self.reference, name=names.get(name, name)))

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
