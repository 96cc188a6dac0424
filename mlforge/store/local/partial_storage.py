"""Partials, tiles and profiles in a feature's folder, as the store's contract names them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from itertools import takewhile

import polars as pl

from mlforge.core.manifest import Manifest, Partial
from mlforge.core.signatures import named_methods
from mlforge.store.file_tasks import FileScanTask, PartialLocation, PartialWrite
from mlforge.store.local import upkeep
from mlforge.store.local.computed_files import ComputedFiles
from mlforge.store.local.feature_folder import FeatureFolder
from mlforge.store.local.inventory import StoredHashes
from mlforge.store.resident import Resident


@named_methods
class LocalPartials(ComputedFiles):
    """The part of a local store that keeps events, and what was computed of them."""

    _features: dict[str, FeatureFolder]

    def locate(self, name: str, hashes: Iterable[str]) -> list[PartialLocation]:
        """`_partials/<hash>.parquet`, or rows of a pack."""
        return self._feature(name).partial_store.locate(hashes)

    def plan_files(self, name: str, partials: Sequence[Partial]) -> Sequence[FileScanTask]:
        """A task a file, or a task for the packs that are read whole."""
        return self._feature(name).partial_store.plan_files(partials)

    def keep(self, manifest: Manifest, since: int | None) -> None:
        """Read them once for all later reads of this store's, unless they are in memory as another feature's."""
        feature = self._feature(manifest.name)
        feature.recent_parts.retain(manifest.parts)
        feature.partial_store.keep(manifest, since, self._kept_before(manifest.name))

    def shares(self, manifest: Manifest, since: int) -> bool:
        """Look at the events of features that were asked for earlier, so that of two that share them one counts."""
        return any(kept.serves(manifest, since) for kept in self._kept_before(manifest.name))

    def _kept_before(self, name: str) -> Iterator[Resident]:
        earlier = takewhile(lambda other: other[0] != name, [*self._features.items()])
        kept = (feature.partial_store.resident for _, feature in earlier)
        return (resident for resident in kept if resident is not None)

    def resident(self, manifest: Manifest) -> Resident | None:
        """The events that `keep` read of the feature, else of another one that makes the same of the same files."""
        store = self._feature(manifest.name).partial_store
        own = store.resident
        # Made for another feature, it may hold other events than this one's newest.
        if own is not None and (not store.is_shared or own.is_of(manifest)):
            return own
        return next((each for each in self._kept_of_any() if each.is_of(manifest)), None)

    def resident_since(self, manifest: Manifest, since: int) -> Resident | None:
        """Look at the events that `keep` read of any feature."""
        return next((each for each in self._kept_of_any() if each.reaches(manifest, since)), None)

    def _kept_of_any(self) -> Iterator[Resident]:
        kept = (feature.partial_store.resident for feature in [*self._features.values()])
        return (resident for resident in kept if resident is not None)

    def find_partial(self, name: str, hash_: str) -> Partial | None:
        """Read the description that a file carries in its own metadata."""
        return self._feature(name).partial_store.find(hash_)

    def write_partials(
        self, name: str, writes: Sequence[PartialWrite], sorted_by: str | None = None
    ) -> None:
        """Write each under its hash, or many small ones in a pack, whole or not at all."""
        self._feature(name).partial_store.write(writes, sorted_by)

    def begin_partials(
        self, name: str, writes: Sequence[PartialWrite], sorted_by: str | None = None
    ) -> None:
        """Have threads write those that get a file of their own."""
        self._feature(name).partial_store.begin_writing(writes, sorted_by)

    def hold(self, name: str, partial: Partial, rows: pl.DataFrame) -> None:
        """Beside those whose files are being written."""
        self._feature(name).partial_store.hold(partial, rows)

    def partials(self, name: str) -> Set[str]:
        """Hashes of the partials in `_partials` and in packs."""
        return self._feature(name).partial_store.hashes()

    def partials_by_look(self, name: str) -> Set[str]:
        """List `_partials` only where many are asked for."""
        return self._feature(name).partial_store.look().hashes

    def missing_partials(
        self, name: str, partials: Sequence[Partial], stored: Set[str]
    ) -> Set[str]:
        """Look for those alone that are in no pack of which all partials are among them."""
        if not isinstance(stored, StoredHashes):
            return super().missing_partials(name, partials, stored)
        return self._feature(name).partial_store.missing(partials, stored.inventory)

    def check_partials(self, name: str, hashes: Iterable[str]) -> dict[str, str]:
        """Compare files with the checksums within them."""
        return self._feature(name).partial_store.faults(hashes)

    def remove_partials(
        self, name: str, hashes: Iterable[str], sorted_by: str | None = None, above: float = 0
    ) -> list[str]:
        """Delete files, and write packs anew without them."""
        gone = upkeep.remove(self._feature(name).partial_store, hashes, sorted_by, above)
        self._feature(name).tiles.sweep()
        return gone

    def compact(self, name: str, partials: Sequence[Partial], sorted_by: str | None = None) -> None:
        """Write packs and name them in `CURRENT`; files that they take the place of go at a later call."""
        upkeep.tidy(self._feature(name), partials, sorted_by, lambda: self.lock(name))
