"""Damaged files of a machine's cache: found by their checksums, and deleted, as the bucket has what they held."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlforge.core.disk import hash_file
from mlforge.store import mapped_rows
from mlforge.store.local import io
from mlforge.store.local.paths import entries_of
from mlforge.store.local.sealed_file import is_sealed
from mlforge.store.objects import keys
from mlforge.store.objects.cache import FeatureCache

_SEALED = (keys.PARTIALS, "_packs", "_tiles")
_SUFFIXES = (".parquet", mapped_rows.SUFFIX)


def mend(cache: FeatureCache) -> list[Path]:
    """Delete the files whose bytes are not what was written; returns their paths. Reads each file of the feature."""
    damaged = [path for path in _files(cache.path) if not _is_whole(path)]
    for path in damaged:
        with io.storage_errors(path):
            path.unlink(missing_ok=True)
    return damaged


def _files(folder: Path) -> Iterator[Path]:
    for name in (keys.PARTS, *_SEALED):
        for entry in entries_of(folder / name):
            if entry.name.endswith(_SUFFIXES) and not entry.name.startswith("."):
                yield Path(entry.path)


def _is_whole(path: Path) -> bool:
    try:
        if path.parent.name == keys.PARTS:
            return hash_file(path) == path.stem
        if path.suffix == mapped_rows.SUFFIX:
            return mapped_rows.mapped_notes(path) is not None
        return is_sealed(path)
    except FileNotFoundError:
        return True  # it went meanwhile
    except (OSError, ValueError):
        return False
