"""`_metadata/manifest.json`: a line on each feature's served version, for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlforge.core.manifest import Manifest, config_of
from mlforge.core.values import to_iso
from mlforge.errors import UnsupportedStore
from mlforge.store.local import io
from mlforge.store.local.paths import no_link, well_formed

_FORMAT = 1


def read(store: Path) -> dict[str, dict[str, Any]]:
    """The lines by feature; UnsupportedStore if another mlforge wrote them."""
    path = _path(store)
    document = io.read_json(path)
    if document is None:
        return {}
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise UnsupportedStore(
            f"{path} was written by another mlforge; 'mlforge manifest --regenerate' makes it anew"
        )
    with well_formed(path):
        return {name: {**entry} for name, entry in document["features"].items()}


def write(store: Path, entries: Mapping[str, Any]) -> None:
    """Replace it; it can be made anew, so it need not survive a power failure."""
    path = _path(store)
    with io.storage_errors(path):
        path.parent.mkdir(exist_ok=True)
        for litter in path.parent.glob(".*.json.*"):
            litter.unlink(missing_ok=True)
    index = {"format": _FORMAT, "features": dict(sorted(entries.items()))}
    io.write_json(path, index, durable=False)


def entry(manifest: Manifest) -> dict[str, Any]:
    """A feature's line."""
    return {
        "version": str(manifest.version),
        "row_count": manifest.row_count,
        **{key: config_of(manifest.spec)[key] for key in ("entity_keys", "timestamp", "interval")},
        "updated_at": to_iso(manifest.created_at),
        "content_hash": manifest.content_hash,
    }


def _path(store: Path) -> Path:
    return no_link(store / "_metadata") / "manifest.json"
