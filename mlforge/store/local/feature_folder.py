"""A feature's folder: where its versions lie, which of them is served, and what lies beside them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlforge.core.manifest import Manifest, VersionSummary
from mlforge.core.values import Version
from mlforge.errors import VersionInUse
from mlforge.store import manifest_json
from mlforge.store.local import state_files
from mlforge.store.local.leases import unshared
from mlforge.store.local.lock import exclusive
from mlforge.store.local.manifest_chunks import ManifestChunks
from mlforge.store.local.manifests import ManifestCache, read_document, read_manifest
from mlforge.store.local.packs import Packing
from mlforge.store.local.partials import PartialStore
from mlforge.store.local.paths import META, no_link
from mlforge.store.local.profiles import ProfileFolder
from mlforge.store.local.recent_parts import RecentParts
from mlforge.store.local.tiles import TileFolder
from mlforge.store.local.version_folders import VersionFolders
from mlforge.store.transaction import Pointer

_LINEAGE = "_lineage"


@dataclass(frozen=True)
class FeatureFolder:
    """The folder `path` of the feature `name`, with what was read in it and may be used again."""

    name: str
    path: Path
    partial_store: PartialStore
    tiles: TileFolder
    profiles: ProfileFolder
    chunks: ManifestChunks
    file_states: state_files.FileStateLog
    manifests: ManifestCache
    folders: VersionFolders
    documents: state_files.Documents
    recent_parts: RecentParts
    present_name: Callable[[str], str]
    """The present name of a feature that has, or had, some name."""

    @classmethod
    def at(
        cls,
        path: Path,
        packing: Packing,
        present_name: Callable[[str], str],
        name: str | None = None,
    ) -> FeatureFolder:
        """The folder of a feature, by default of the one that it is named after; present_name: as the field."""
        return cls(
            name=path.name if name is None else name,
            path=path,
            partial_store=PartialStore(path, packing),
            tiles=TileFolder(path, packing.grace_s),
            profiles=ProfileFolder(path),
            chunks=ManifestChunks(path / _LINEAGE),
            file_states=state_files.FileStateLog(path),
            manifests=ManifestCache(),
            folders=VersionFolders(path),
            documents=state_files.Documents(path),
            recent_parts=RecentParts(),
            present_name=present_name,
        )

    def version(self, version: Version) -> Path:
        """The folder of a version, whether it is there or not; StoreError if it is a link."""
        return no_link(self.path / str(version))

    def versions(self) -> list[Version]:
        """Whole versions, ascending."""
        return list(self.folders.look().versions)

    def pointer(self) -> Pointer | None:
        """The served version and its generation, None before the first."""
        known = self.documents.served()
        return None if known is None else known[0]

    def manifest(self, version: Version) -> Manifest:
        """A version's manifest; FileNotFoundError or NotADirectoryError where there is no such version."""
        path = self.version(version) / META
        self.partial_store.refuse_links()
        try:
            known = self.manifests.get(path)
            if known is None:
                known = read_manifest(path, self.document(version), self.chunks)
                self.manifests.keep(path, known)
        except (FileNotFoundError, NotADirectoryError):
            self.folders.forget(version)
            raise
        return known

    def document(self, version: Version) -> Mapping[str, Any]:
        """The document of a version's manifest, with the feature's present name; raises as `manifest`."""
        return read_document(self.version(version) / META, self.name, version, self.present_name)

    def summaries(self) -> list[VersionSummary]:
        """Summaries of all versions, ascending; one that is removed meanwhile is left out.

        Raises IntegrityError or UnsupportedStore for a document that cannot be understood.
        """
        summaries = []
        for version in self.versions():
            with suppress(FileNotFoundError, NotADirectoryError):
                document = self.document(version)
                path = self.version(version) / META
                summaries.append(manifest_json.summary(document, str(path)))
        return summaries

    def begin_lists(self, manifest: Manifest) -> None:
        """Begin to write the pieces of a manifest's long lists."""
        self.partial_store.behind.begin(partial(self.chunks.write_lists, manifest))

    def keep_tiles(self, kinds: Collection[str]) -> None:
        """Delete tiles of other kinds once the grace period is over, unless somebody reads a version: it may be of a former kind."""
        if (others := self.tiles.of_other_kinds(kinds)) and not self._is_read():
            self.tiles.delete(others)

    def _is_read(self) -> bool:
        """Whether somebody holds a lease of a version."""
        for version in self.versions():
            document = self.version(version) / META
            try:
                with suppress(FileNotFoundError, NotADirectoryError), unshared(document, self.name):
                    pass
            except VersionInUse:
                return True
        return False

    def exclusive(self) -> AbstractContextManager[None]:
        """Nobody else publishes, serves, removes or recovers a version until the block ends."""
        return exclusive(self.path / ".publishing")
