"""`_metadata/manifest.json`: a line on each feature's served version, for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from mlforge.core.logs import get_logger
from mlforge.core.manifest import Manifest, config_of
from mlforge.core.values import Version, to_iso
from mlforge.errors import IntegrityError, StoreError, UnsupportedStore
from mlforge.store.local import io
from mlforge.store.local.file_memo import FileMemo
from mlforge.store.local.lock import exclusive
from mlforge.store.local.paths import no_link, well_formed

log = get_logger("mlforge.store")
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
        return {name: _line(entry) for name, entry in document["features"].items()}


def _line(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A feature's line; raises KeyError or TypeError for one that lacks something, or is another thing."""
    texts = entry["version"], entry["content_hash"], entry.get("made_from", "")
    if not all(isinstance(text, str) for text in texts) or not isinstance(entry["row_count"], int):
        raise TypeError("a line has other values")
    return {**entry}


class Lines:
    """The lines of a store's index, which follow the versions that its process publishes: each at once, or those of a block together."""

    def __init__(self, store: Path, served: Callable[[], Iterable[Manifest]]) -> None:
        """served: the versions of all features that are served, for an index that is damaged."""
        self._store, self._served = store, served
        self._later: dict[str, None] | None = None
        self._memo = FileMemo[dict[str, dict[str, Any]]]()

    def update(self, manifests: Iterable[Manifest]) -> None:
        """Replace the lines of some features; an index that is damaged is made anew."""
        with exclusively(self._store):
            try:
                entries = read(self._store)
            except UnsupportedStore:
                return  # another mlforge's is left alone until somebody asks for a new one
            except IntegrityError:
                entries = lines_of(self._served())
            _write(self._store, {**entries, **lines_of(manifests)})

    def follow(self, manifest: Manifest, *, is_first: bool) -> None:
        """Replace a feature's line, now or at the end of the block; the first one now, as it tells which versions of others are in use."""
        if self._later is None or is_first or manifest.upstream is not None:
            self.update([manifest])
        else:
            self._later[manifest.name] = None

    def tell(self, name: str, version: Version) -> bool:
        """Whether a feature's line names a version, or will at the end of the block; False where there is no line that can be read."""
        if self._later is not None and name in self._later:
            return True
        with suppress(StoreError, OSError):
            return bool(self._entries().get(name, {}).get("version") == str(version))
        return False

    def _entries(self) -> dict[str, dict[str, Any]]:
        """As `read`, once while the file stays as it is: each refresh of a feature asks."""
        return self._memo.of(_path(self._store), lambda: read(self._store)) or {}

    @contextmanager
    def later(self, latest: Callable[[str], Manifest | None]) -> Iterator[None]:
        """Within the block, have lines wait for its end, when each feature's `latest` version counts."""
        waiting: dict[str, None] = {}
        self._later = waiting
        try:
            yield
        finally:
            self._later = None
            if waiting:
                with _mended_later():
                    self.update([served for name in waiting if (served := latest(name))])


@contextmanager
def _mended_later() -> Iterator[None]:
    """Log what keeps lines from being written: whoever next writes a feature mends its line, and the versions are there."""
    try:
        yield
    except StoreError as error:
        log.warning("index not written", error=str(error))


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
