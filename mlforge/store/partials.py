"""Events as a store keeps them, in partials and in tiles built from those: a part of the contract of a store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import polars as pl

from mlforge.core.manifest import Manifest, Partial
from mlforge.core.signatures import named_methods
from mlforge.store.file_tasks import FileScanTask, PartialLocation, PartialWrite, TileWrite, Told
from mlforge.store.resident import Resident


@named_methods
class PartialStorage(ABC):
    """The methods of a store that keep partials, and tiles as a cache of what was computed from them."""

    @property
    def fetches_files(self) -> bool:
        """Whether files are fetched from elsewhere to be planned, so that readers plan none that they need not read."""
        return False

    @abstractmethod
    def locate(self, name: str, hashes: Iterable[str]) -> list[PartialLocation]:
        """The location of each partial, in the order of the hashes; a partial not yet stored gets its future location."""

    @abstractmethod
    def plan_files(self, name: str, partials: Sequence[Partial]) -> Sequence[FileScanTask]:
        """Scan tasks that together read these partials; a partial listed twice is read twice."""

    @abstractmethod
    def keep(self, manifest: Manifest, since: int | None) -> None:
        """Have the events of a version from an instant on in memory, in place of what was there of the feature.

        Of a timed feature with metrics, the columns that these need. Scans return the same rows as before, only faster.
        since: UTC microseconds; None to keep nothing.
        """

    def shares(self, manifest: Manifest, since: int) -> bool:
        """Whether `keep` finds these events in memory, kept of another feature, so that they take no further room."""
        return False

    def resident(self, manifest: Manifest) -> Resident | None:
        """Events that are in memory and may be a version's, kept of any; None where there are none."""
        return None

    def resident_since(self, manifest: Manifest, since: int) -> Resident | None:
        """Events that are in memory and reach back to an instant, with all columns that a version needs, kept of any feature; None where there are none."""
        resident = self.resident(manifest)
        return resident if resident is not None and resident.reaches(manifest, since) else None

    @abstractmethod
    def find_partial(self, name: str, hash_: str) -> Partial | None:
        """The description of the partial with this hash, None if it is not stored."""

    @abstractmethod
    def write_partials(
        self, name: str, writes: Sequence[PartialWrite], sorted_by: str | None = None
    ) -> None:
        """Store partials; storing one again changes nothing. Partials are durable once a version names them.

        sorted_by: the time column, by which partials that share a file are sorted. Raises StoreError
        where the store cannot be written to.
        """

    def telling(self, name: str, told: Told) -> AbstractContextManager[None]:
        """Within the block, tell of files of many partials before they are written: what follows from their rows need not read them.

        The store decides of which; a thread that writes may tell. Call with the feature's lock held.
        """
        return nullcontext()

    def begin_partials(
        self, name: str, writes: Sequence[PartialWrite], sorted_by: str | None = None
    ) -> None:
        """Begin to store partials, which can be read from now on; call with the feature's lock held.

        They are stored when a version is published, and when the lock is given back: either raises what `write_partials` does.
        """
        self.write_partials(name, writes, sorted_by)

    def hold(self, name: str, partial: Partial, rows: pl.DataFrame) -> None:  # noqa: B027 - may be left out: it only saves reading
        """Have scans find the stored events of a partial, which the caller has read, in memory until a version is published or the lock is given back.

        Call with the feature's lock held.
        """

    @abstractmethod
    def partials(self, name: str) -> Set[str]:
        """Hashes of all stored partials of the feature, as they are now."""

    def partials_by_look(self, name: str) -> Set[str]:
        """As `partials`, but each may be looked for only once it is asked for, as of very many a refresh asks for a few."""
        return self.partials(name)

    def missing_partials(
        self, name: str, partials: Sequence[Partial], stored: Set[str]
    ) -> Set[str]:
        """Hashes of those among some partials that are not stored. stored: the answer of `partials`, or of `partials_by_look`."""
        return {partial.hash for partial in partials} - stored

    def kept_partials(self, name: str) -> Set[str]:
        """Hashes of all partials of which there is a copy anywhere, whether a version names them or not."""
        return self.partials(name)

    @abstractmethod
    def check_partials(self, name: str, hashes: Iterable[str]) -> dict[str, str]:
        """Faults in the bytes of these partials, in words, by hash; empty if all are whole."""

    @abstractmethod
    def remove_partials(
        self, name: str, hashes: Iterable[str], sorted_by: str | None = None, above: float = 0
    ) -> list[str]:
        """Delete partials that no version names; returns the hashes of the deleted ones.

        above: in a file of several partials, unwanted partials may stay while their share (0 to 1) is at most this.
        """

    @abstractmethod
    def compact(self, name: str, partials: Sequence[Partial], sorted_by: str | None = None) -> None:
        """Merge small files of these partials into few larger ones where that pays, so that a scan opens fewer files.

        Takes the lock itself. Replaced files stay for some minutes, for readers that have located them.
        """

    @abstractmethod
    def tiles(self, name: str, kind: str) -> Mapping[str, str]:
        """Tile files of a kind, by the partial file that each was built from; they are not checked yet."""

    @abstractmethod
    def tile_notes(self, name: str, tiles: str, of: str) -> Mapping[str, Any] | None:
        """The notes that were stored with a tile file.

        None where the tile file is missing or damaged, or was built from other bytes than the partial file `of` has now.
        """

    @abstractmethod
    def write_tiles(self, name: str, kind: str, writes: Iterable[TileWrite]) -> None:
        """Store tiles: a cache built from partial files, which may be deleted at any time.

        Tiles of deleted partial files are deleted, and after a while tiles of other kinds. Raises StoreError
        where the store cannot be written to.
        """

    def keep_tiles(self, name: str, kinds: Collection[str]) -> None:  # noqa: B027 - may be left out: tiles are only a cache
        """Delete tiles of other kinds once they are older than the grace period for readers, while nobody reads a version.

        What stays goes at a later call.
        """

    @abstractmethod
    def is_whole(self, name: str, file: str) -> bool:
        """Whether a partial file exists and has all the bytes that were written to it."""
