"""The part of a store in a bucket that works on files of the machine: partials, tiles, profiles, as in a local folder."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from mlforge.core.logs import get_logger
from mlforge.core.manifest import Manifest, Partial
from mlforge.core.values import Version
from mlforge.errors import VersionNotFound
from mlforge.store.base import Store
from mlforge.store.file_tasks import FileScanTask, PartialLocation, PartialWrite
from mlforge.store.local import io, upkeep
from mlforge.store.local.computed_files import ComputedFiles
from mlforge.store.local.feature_folder import FeatureFolder
from mlforge.store.local.lock import exclusive
from mlforge.store.local.packs import Packing
from mlforge.store.local.paths import checked
from mlforge.store.objects import mending, removal
from mlforge.store.objects.cache import UNBORN, FeatureCache
from mlforge.store.objects.documents import Documents
from mlforge.store.objects.objects import Objects, each
from mlforge.store.objects.publishing import settle
from mlforge.store.objects.renames import RenamesObject
from mlforge.store.objects.task_files import ObjectTaskFiles
from mlforge.store.resident import Resident, partials_since
from mlforge.store.transaction import Pointer

log = get_logger(__name__)


class CachedStore(ComputedFiles, Store):
    """A store whose events, and all that is computed of them, are read from files of the cache."""

    cache: Path
    packing: Packing
    _objects: Objects
    _documents: Documents
    _renames: RenamesObject
    _caches: dict[tuple[str, str], FeatureCache]
    _grace_us: int

    @property
    def fetches_files(self) -> bool:
        """Whether files are fetched: from the bucket, unless they are at hand."""
        return True

    def locate(self, name: str, hashes: Iterable[str]) -> list[PartialLocation]:
        """Files of the cache, to which the partials are fetched."""
        chosen, cache = list(hashes), self._files(name)
        cache.fetch_partials(chosen)
        return cache.folder.partial_store.locate(chosen)

    def plan_files(self, name: str, partials: Sequence[Partial]) -> Sequence[FileScanTask]:
        """Tasks over files of the cache, to which the partials are fetched."""
        cache = self._files(name)
        cache.fetch_partials(partial.hash for partial in partials)
        return cache.folder.partial_store.plan_files(partials)

    def keep(self, manifest: Manifest, since: int | None) -> None:
        """Read them once for all later reads of this store's."""
        cache = self._files(manifest.name)
        cache.fetch_partials(partial.hash for partial in partials_since(manifest, since))
        cache.folder.partial_store.keep(manifest, since)

    def resident(self, manifest: Manifest) -> Resident | None:
        """The events that `keep` read."""
        return self._files(manifest.name).folder.partial_store.resident

    def find_partial(self, name: str, hash_: str) -> Partial | None:
        """The description in the cache, or in the served version's manifest."""
        return self._feature(name).partial_store.find(hash_) or self._of_served(name).get(hash_)

    def write_partials(
        self, name: str, writes: Sequence[PartialWrite], sorted_by: str | None = None
    ) -> None:
        """Write them to the cache; the version that names them uploads them."""
        cache = self._writable(name)
        cache.folder.partial_store.write(writes, sorted_by)
        cache.written.update(write.partial.hash for write in writes)

    def partials(self, name: str) -> Set[str]:
        """Hashes of the partials in the cache, and of the served version's."""
        return {*self._feature(name).partial_store.hashes(), *self._of_served(name)}

    def _of_served(self, name: str) -> Mapping[str, Partial]:
        pointer = self._pointer_known(name)
        if pointer is None:
            return {}
        with suppress(VersionNotFound):
            return {p.hash: p for p in self.manifest(name, pointer.version).partials}
        return {}

    def check_partials(self, name: str, hashes: Iterable[str]) -> dict[str, str]:
        """Fetch each from the bucket and compare its bytes with the checksum within."""
        named = list(hashes)
        faults = each(self._files(name).partial_fault, named)
        return {h: fault for h, fault in zip(named, faults, strict=True) if fault is not None}

    def remove_partials(
        self, name: str, hashes: Iterable[str], sorted_by: str | None = None, above: float = 0
    ) -> list[str]:
        """Delete them from the cache, and from the bucket all that no version names once the grace period is over."""
        cache = self._writable(name)
        gone = upkeep.remove(cache.folder.partial_store, hashes, sorted_by, above)
        cache.folder.tiles.sweep()
        removal.sweep(cache, self._documents, self._listed(name), self._grace_us)
        session = self._documents.session(name)
        if session is not None:
            settle(cache, self._documents, session, self._listed(name))
        return gone

    def compact(self, name: str, partials: Sequence[Partial], sorted_by: str | None = None) -> None:
        """Pack partials in the cache; the bucket has each in an object of its own."""
        upkeep.tidy(self._feature(name), partials, sorted_by, lambda: self._exclusive(name))

    def task_files(self, name: str) -> ObjectTaskFiles:
        """Objects of the bucket, which are kept at hand in the cache."""
        document = self._documents.read(checked(name))
        return ObjectTaskFiles(self._writable(name), self._documents, document)

    def mend(self, name: str) -> bool:
        """Delete what is damaged in the cache; the bucket has it, and what is missing there."""
        damaged = mending.mend(self._files(name))
        if damaged:
            log.warning(
                "damaged files of the cache are fetched again", feature=name, files=len(damaged)
            )
        return True

    def _exclusive(self, name: str, wait: bool = True) -> AbstractContextManager[None]:
        """The machine's lock on a feature; wait: as `Store.lock`."""
        folder = self.cache / "locks" / checked(name)
        with io.storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return exclusive(folder / ".refreshing", wait=wait)

    def _pointer_known(self, name: str) -> Pointer | None:
        document = self._documents.known(name)
        return document.pointer if document else None

    def _listed(self, name: str) -> list[Version]:
        """Versions that have a manifest in the bucket, ascending; with the served one, if the server lists late."""
        pointer = self._pointer_known(name)
        served = [pointer.version] if pointer else []
        return sorted({*self._files(name).versions(), *served})

    def _files(self, name: str) -> FeatureCache:
        """The files of a feature that are at hand; those of nothing before the feature's first write."""
        document = self._documents.known(checked(name))
        born = document.born if document else UNBORN
        if (name, born) not in self._caches:
            path = self.cache / born / self._documents.likely_folder(name)
            present_name = functools.partial(self._renames.present_name, expected=name)
            folder = FeatureFolder.at(path, self.packing, present_name, name)
            self._caches[name, born] = FeatureCache(self._objects, folder)
        return self._caches[name, born]

    def _feature(self, name: str) -> FeatureFolder:
        return self._files(name).folder

    def _made(self, name: str) -> FeatureFolder:
        return self._writable(name).folder

    def _writable(self, name: str) -> FeatureCache:
        cache = self._files(name)
        with io.storage_errors(cache.path):
            cache.path.mkdir(parents=True, exist_ok=True)
        return cache
