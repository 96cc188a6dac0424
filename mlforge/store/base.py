"""The contract of an offline store: immutable versions, the partials they consist of, and books.

A store never computes. It stages what others write, makes it visible in one step, and hands it
out again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import polars as pl

from mlforge.core.manifest import Manifest, Part, Partial
from mlforge.core.values import Version
from mlforge.errors import (
    ColumnNotFound,
    FeatureNotFound,
    IntegrityError,
    StoreError,
    VersionNotFound,
)
from mlforge.store.file_tasks import FileScanTask, PartialLocation, PartialWrite, TileWrite
from mlforge.store.integrity import DAMAGE
from mlforge.store.records import Audit, Books, FileState, StoreIdentity
from mlforge.store.transaction import Pointer, Snapshot, Transaction


class Store(ABC):
    """The contract of every backend. Versions are never overwritten; readers never see half of one."""

    @abstractmethod
    def identity(self) -> StoreIdentity | None:
        """The store's identity, None before its first write; nothing is written.

        It stays when the store is moved or restored. Raises IntegrityError if it cannot be understood.
        """

    @abstractmethod
    def establish(self) -> StoreIdentity:
        """The store's identity, made now if there is none: of racing creators one wins, and all get its.

        Whoever writes to a feature has done so by taking its `lock`. Raises as `identity`, and StoreError
        where the store cannot be written to.
        """

    @abstractmethod
    def features(self) -> list[str]:
        """Names of the features that have a published version, sorted."""

    @abstractmethod
    def versions(self, name: str) -> list[Version]:
        """Whole versions, ascending; none for an unknown feature."""

    @abstractmethod
    def pointer(self, name: str) -> Pointer | None:
        """The pointer to what is served, None before the first version."""

    @abstractmethod
    def manifest(self, name: str, version: Version) -> Manifest:
        """A version's manifest; VersionNotFound if there is none."""

    @abstractmethod
    def location(self, name: str, version: Version) -> str:
        """Where a version's table lies, for people and tools: the path or URL of a parquet file, or of a folder of them."""

    @abstractmethod
    def files(self, name: str, version: Version, parts: Sequence[Part] | None = None) -> list[str]:
        """Paths or URLs of the parquet files of a version's table, in the order of time; of some parts only, if given.

        Any reader of parquet takes them. Raises VersionNotFound, FeatureNotFound.
        """

    @abstractmethod
    def locate(self, name: str, hashes: Iterable[str]) -> list[PartialLocation]:
        """The place of each of these partials, in their order; of one that is not stored, where it would lie."""

    @abstractmethod
    def plan_files(self, name: str, partials: Sequence[Partial]) -> Sequence[FileScanTask]:
        """Scan tasks for these partials; one that is given twice is read twice."""

    @abstractmethod
    def keep(
        self,
        name: str,
        partials: Sequence[Partial],
        columns: Collection[str],
        time: str,
        since: int,
    ) -> None:
        """Keep in memory these columns of what the partials hold from an instant on, and nothing else of the feature.

        What is read stays the same; it only is read faster. time: the column of time.
        """

    @abstractmethod
    def find_partial(self, name: str, hash_: str) -> Partial | None:
        """A stored partial's description, None if it is not stored."""

    @abstractmethod
    def write_partials(
        self, name: str, made: Sequence[PartialWrite], sorted_by: str | None = None
    ) -> None:
        """Store partials; doing so again changes nothing. They are durable once a version names them.

        sorted_by: the column of time, by which those that come to lie together are sorted.
        """

    @abstractmethod
    def partials(self, name: str) -> set[str]:
        """Hashes of the partials that are stored."""

    @abstractmethod
    def check_partials(self, name: str, hashes: Iterable[str]) -> dict[str, str]:
        """Faults of stored partials' bytes, in words, by hash; empty if there are none."""

    @abstractmethod
    def remove_partials(
        self, name: str, hashes: Iterable[str], sorted_by: str | None = None, above: float = 0
    ) -> list[str]:
        """Delete partials that no version names; returns those that went.

        above: those that lie with others may stay while they are not more than this share of them.
        """

    @abstractmethod
    def compact(self, name: str, partials: Sequence[Partial], sorted_by: str | None = None) -> None:
        """Gather small ones of these partials into few files if that is worth it: they are read in fewer steps.

        Takes the lock itself. Readers who have located them before can go on for some minutes.
        """

    @abstractmethod
    def tiles(self, name: str, kind: str) -> Mapping[str, str]:
        """Files of tiles of a kind, by the file of partials that they follow from; not yet checked."""

    @abstractmethod
    def tile_notes(self, name: str, tiles: str, of: str) -> Mapping[str, Any] | None:
        """Notes that a file of tiles was written with.

        None where it is missing or damaged, or made of other bytes than `of`, a file of partials, has now.
        """

    @abstractmethod
    def write_tiles(self, name: str, kind: str, writes: Iterable[TileWrite]) -> None:
        """Store tiles, which follow from files of partials and may be lost at any time.

        Tiles of files that are gone are deleted, and in time those of other kinds. Raises StoreError where
        they cannot be written.
        """

    @abstractmethod
    def is_whole(self, name: str, file: str) -> bool:
        """Whether a file of partials is there with all the bytes that it was written with."""

    @abstractmethod
    def lease(self, name: str, version: Version) -> AbstractContextManager[None]:
        """Keep a version, and the partials that it names, from being removed while the block runs.

        The right to read will do. Raises VersionNotFound if the version is gone by now.
        """

    @abstractmethod
    def remove(self, name: str, version: Version) -> None:
        """Delete a version that is not served; files that others share stay.

        Raises VersionInUse while somebody has a lease of it.
        """

    @abstractmethod
    def check_manifest(self, manifest: Manifest) -> list[str]:
        """Faults of a version's document and of its table's bytes, in words; empty if all is well."""

    @abstractmethod
    def transaction(self, snapshot: Snapshot) -> AbstractContextManager[Transaction]:
        """A version in the making, to follow the snapshot's; what is not committed in the block is gone after it."""

    @abstractmethod
    def serve(self, name: str, version: Version) -> Pointer:
        """Serve an existing version and raise the generation."""

    @abstractmethod
    def books(self, name: str) -> Books:
        """The feature's books, empty ones where there are none."""

    @abstractmethod
    def write_books(self, name: str, books: Books) -> None:
        """Replace the feature's books."""

    @abstractmethod
    def file_states(self, name: str) -> Mapping[str, FileState]:
        """Source files as the last refresh saw them, by path."""

    @abstractmethod
    def write_file_states(self, name: str, file_states: Mapping[str, FileState]) -> None:
        """Replace the states of source files."""

    @abstractmethod
    def audit(self, name: str) -> Audit | None:
        """The last audit; None if there was none, or its note cannot be read."""

    @abstractmethod
    def write_audit(self, name: str, audit: Audit) -> None:
        """Replace the last audit's result."""

    @abstractmethod
    def draft(self) -> AbstractContextManager[Store]:
        """The store as it would be, for plans: it reads as this one does and writes nothing to it.

        Partials and tables that are written to it lie elsewhere until the block ends; the right to read will do.
        """

    @abstractmethod
    def lock(self, name: str) -> AbstractContextManager[None]:
        """A lock that one process holds at a time: whoever writes to a feature holds it, and finds it in order.

        Readers need none, and forks of the holder do not have it. Should two hold it, a commit still lets only
        one of them win. Raises StoreBusy, which names the holder, if it is not free in time.
        """

    @abstractmethod
    def regenerate_index(self) -> list[str]:
        """Write the index of all features anew from their versions; returns the features listed."""

    @abstractmethod
    def index(self) -> dict[str, dict[str, Any]]:
        """A line on each feature's served version, by name; `regenerate_index` mends a stale one."""

    # What follows is the same for every backend.

    @contextmanager
    def open(self, name: str) -> Iterator[Snapshot]:
        """A feature's state, read once; no other writer changes it until the block ends."""
        with self.lock(name):
            pointer = self.pointer(name)
            yield Snapshot(
                name=name,
                pointer=pointer,
                latest=self.manifest(name, pointer.version) if pointer else None,
                versions=tuple(self.versions(name)),
                books=self.books(name),
                file_states=self.file_states(name),
            )

    def scan_table(self, manifest: Manifest) -> pl.LazyFrame:
        """The rows of a published version's table, lazily, sorted by timestamp, then keys; collecting raises what polars does."""
        assert manifest.version is not None
        files = self.files(manifest.name, manifest.version, manifest.parts)
        return pl.scan_parquet(files, glob=False)

    def latest(self, name: str) -> Manifest | None:
        """The served version's manifest, None before the first."""
        pointer = self.pointer(name)
        return None if pointer is None else self.manifest(name, pointer.version)

    def list_versions(self, name: str) -> list[str]:
        """Versions as texts, ascending; FeatureNotFound if there is none."""
        versions = self.versions(name)
        if not versions:
            raise self._not_found(name)
        return [str(version) for version in versions]

    def resolve(self, name: str, version: str | None = None) -> Manifest:
        """The manifest of a version, by default of the served one."""
        if version is not None:
            return self.manifest(name, Version.parse(version))
        latest = self.latest(name)
        if latest is None:
            raise self._not_found(name)
        return latest

    def read_metadata(self, name: str, version: str | None = None) -> Manifest:
        """The manifest of a version, by default of the served one."""
        return self.resolve(name, version)

    def read(
        self,
        name: str,
        version: str | None = None,
        columns: Sequence[str] | str | None = None,
    ) -> pl.DataFrame:
        """A version's rows, sorted by timestamp, then keys; by default the served version's.

        Raises FeatureNotFound, VersionNotFound or ColumnNotFound, naming what there is, and
        IntegrityError if the version's files cannot be read.
        """
        manifest = self.resolve(name, version)
        assert manifest.version is not None
        present = [column.name for column in manifest.columns]
        names = (columns,) if isinstance(columns, str) else columns
        chosen = present if names is None else list(dict.fromkeys(names))
        for missing in set(chosen) - set(present):
            raise ColumnNotFound.among(f"{name} {manifest.version}", missing, present)
        try:
            return self.scan_table(manifest).select(chosen).collect()
        except DAMAGE as error:
            if manifest.version not in self.versions(name):
                raise self._no_version(name, manifest.version) from error
            raise IntegrityError(
                f"{name} {manifest.version} cannot be read ({type(error).__name__}); "
                "'mlforge verify' says what is wrong with it"
            ) from error

    def _not_found(self, name: str) -> StoreError:
        known = ", ".join(self.features()) or "none yet; run 'mlforge build'"
        return FeatureNotFound(f"the store has no feature {name!r}; there are: {known}")

    def _no_version(self, name: str, version: Version) -> VersionNotFound:
        versions = ", ".join(str(v) for v in self.versions(name)[-10:]) or "none"
        return VersionNotFound(f"{name} has no version {version}; there are: {versions}")
