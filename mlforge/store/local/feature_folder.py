"""A feature's folder: where its versions lie, which of them is served, and what lies beside them."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from mlforge.core.manifest import Manifest
from mlforge.core.values import Version
from mlforge.errors import StoreError
from mlforge.store.local import state_files
from mlforge.store.local.lock import exclusive
from mlforge.store.local.manifest_chunks import ManifestChunks
from mlforge.store.local.manifests import ManifestCache, read_manifest
from mlforge.store.local.packs import Packing
from mlforge.store.local.partials import PartialStore
from mlforge.store.local.paths import META, no_link
from mlforge.store.local.tiles import TileFolder
from mlforge.store.transaction import Pointer

_LINEAGE = "_lineage"


@dataclass(frozen=True)
class FeatureFolder:
    """The folder `path` of the feature `name`, with what was read in it and may be used again."""

    name: str
    path: Path
    partial_store: PartialStore
    tiles: TileFolder
    chunks: ManifestChunks
    file_states: state_files.FileStateLog
    manifests: ManifestCache

    @classmethod
    def at(cls, path: Path, packing: Packing, manifests: ManifestCache) -> FeatureFolder:
        """The folder of the feature that it is named after."""
        return cls(
            name=path.name,
            path=path,
            partial_store=PartialStore(path, packing),
            tiles=TileFolder(path, packing.grace_s),
            chunks=ManifestChunks(path / _LINEAGE),
            file_states=state_files.FileStateLog(path),
            manifests=manifests,
        )

    def version(self, version: Version) -> Path:
        """The folder of a version, whether it is there or not; StoreError if it is a link."""
        return no_link(self.path / str(version))

    def versions(self) -> list[Version]:
        """Whole versions, ascending."""
        versions = []
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.path) as entries:
            for entry in entries:
                with suppress(StoreError):
                    version = Version.parse(entry.name)
                    if (self.version(version) / META).is_file():
                        versions.append(version)
        return sorted(versions)

    def pointer(self) -> Pointer | None:
        """The served version and its generation, None before the first."""
        known = state_files.served(self.path)
        return None if known is None else known[0]

    def manifest(self, version: Version) -> Manifest:
        """A version's manifest; FileNotFoundError or NotADirectoryError where there is no such version."""
        path = self.version(version) / META
        self.partial_store.refuse_links()
        known = self.manifests.get(path)
        if known is None:
            known = read_manifest(path, self.name, version, self.chunks)
            self.manifests.keep(path, known)
        return known

    def exclusive(self) -> AbstractContextManager[None]:
        """Nobody else publishes, serves, removes or recovers a version until the block ends."""
        return exclusive(self.path / ".publishing")
