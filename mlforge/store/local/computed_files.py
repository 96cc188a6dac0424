"""Tiles and profiles: computed of events and tables, kept as files in a feature's folder, and gone at any time without harm."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from mlforge.core.signatures import named_methods
from mlforge.store.file_tasks import TileWrite, Told
from mlforge.store.local.feature_folder import FeatureFolder
from mlforge.store.local.sealed_file import is_sealed
from mlforge.store.partials import PartialStorage
from mlforge.store.version_storage import VersionStorage


@named_methods
class ComputedFiles(PartialStorage, VersionStorage):
    """The part of a store that keeps tiles and profiles on the machine, whatever it keeps elsewhere."""

    @abstractmethod
    def _feature(self, name: str) -> FeatureFolder:
        """The folder of a feature, whether it is there or not."""

    def _made(self, name: str) -> FeatureFolder:
        """The folder of a feature, made where the backend has to."""
        return self._feature(name)

    def telling(self, name: str, told: Told) -> AbstractContextManager[None]:
        """Tell of packs."""
        return self._feature(name).partial_store.live.telling(told)

    def tiles(self, name: str, kind: str) -> Mapping[str, str]:
        """List `_tiles`."""
        return self._feature(name).tiles.find(kind)

    def tile_notes(self, name: str, tiles: str, of: str) -> Mapping[str, Any] | None:
        """Read them from the file's own metadata, once while it stays as it is."""
        return _written(self._feature(name)).tiles.notes(tiles, of)

    def write_tiles(self, name: str, kind: str, writes: Iterable[TileWrite]) -> None:
        """Write files of `_tiles`, each whole or not at all."""
        _written(self._made(name)).tiles.write(kind, writes)

    def keep_tiles(self, name: str, kinds: Collection[str]) -> None:
        """Delete other files of `_tiles`."""
        self._feature(name).keep_tiles(kinds)

    def is_whole(self, name: str, file: str) -> bool:
        """Compare the file with the checksum within it."""
        _written(self._feature(name))
        with suppress(OSError):
            return is_sealed(Path(file))
        return False

    def profiles(self, name: str, hashes: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
        """Read files of `_profiles`."""
        return self._feature(name).profiles.read(hashes)

    def write_profiles(self, name: str, documents: Mapping[str, Mapping[str, Any]]) -> None:
        """Write files of `_profiles`, each whole or not at all."""
        self._made(name).profiles.write(documents)

    def keep_profiles(self, name: str, hashes: Collection[str]) -> None:
        """Delete the other files of `_profiles`."""
        self._feature(name).profiles.keep_only(hashes)


def _written(feature: FeatureFolder) -> FeatureFolder:
    """The feature's folder, once no file of a partial is being written."""
    feature.partial_store.behind.wait()
    return feature
