"""`_metadata/manifest.json`: a line on each feature's served version, for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from mlforge.core.manifest import Manifest, config_of
from mlforge.core.values import to_iso
from mlforge.errors import IntegrityError, StoreError, UnsupportedStore
from mlforge.store.local import io
from mlforge.store.local.lock import exclusive
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


def update(store: Path, manifest: Manifest, served: Callable[[], Iterable[Manifest]]) -> None:
    """Replace the line of a feature; one that is damaged is made anew of the versions `served`."""
    with exclusively(store):
        try:
            entries = read(store)
        except UnsupportedStore:
            return  # another mlforge's is left alone until somebody asks for a new one
        except IntegrityError:
            entries = lines_of(served())
        _write(store, {**entries, **lines_of([manifest])})


def remove(store: Path, name: str) -> None:
    """Take away the line of a feature; an index that cannot be read is left to `regenerate`."""
    with exclusively(store), suppress(StoreError):
        entries = read(store)
        if entries.pop(name, None) is not None:
            _write(store, entries)


def write(store: Path, served: Iterable[Manifest]) -> list[str]:
    """Make it anew of the versions that are served; returns the features listed, sorted."""
    entries = lines_of(served)
    _write(store, entries)
    return sorted(entries)


def version_of(store: Path, name: str) -> str | None:
    """The version that the line of a feature names; None where there is no line that can be read."""
    with suppress(StoreError):
        return read(store).get(name, {}).get("version")
    return None


def exclusively(store: Path) -> AbstractContextManager[None]:
    """Nobody else writes the index or the store's identity until the block ends."""
    return exclusive(store / ".indexing")


def _write(store: Path, entries: Mapping[str, Any]) -> None:
    """Replace the index; it can be rebuilt, so the write is not synced to disk."""
    path = _path(store)
    with io.storage_errors(path):
        path.parent.mkdir(exist_ok=True)
        for litter in path.parent.glob(".*.json.*"):
            litter.unlink(missing_ok=True)
    index = {"format": _FORMAT, "features": dict(sorted(entries.items()))}
    io.write_json(path, index, durable=False)


def lines_of(manifests: Iterable[Manifest]) -> dict[str, dict[str, Any]]:
    """The line of each feature, by its name."""
    return {
        manifest.name: {
            "version": str(manifest.version),
            "row_count": manifest.row_count,
            **{
                key: config_of(manifest.spec)[key]
                for key in ("entity_keys", "timestamp", "interval")
            },
            "updated_at": to_iso(manifest.created_at),
            "content_hash": manifest.content_hash,
            **({"made_from": manifest.source} if manifest.upstream else {}),
        }
        for manifest in manifests
    }


def _path(store: Path) -> Path:
    return no_link(store / "_metadata") / "manifest.json"
