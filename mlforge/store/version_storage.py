"""Versions as a store keeps them, and what it notes of features: a part of the contract of a store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from mlforge.core.keeper import DefinedNames
from mlforge.core.manifest import Manifest, Part
from mlforge.core.renames import Renames
from mlforge.core.signatures import named_methods
from mlforge.core.values import Version
from mlforge.errors import UnsupportedStore, VersionInUse
from mlforge.store.records import Audit, Books, FileStateMap, StoreIdentity
from mlforge.store.task_files import TaskFiles
from mlforge.store.transaction import Pointer, Snapshot, Transaction


@named_methods
class VersionStorage(ABC):
    """The methods of a store that keep versions, and of each feature its lock, its books and further notes."""

    @abstractmethod
    def identity(self) -> StoreIdentity | None:
        """The store's identity, None before its first write; nothing is written.

        It stays when the store is moved or restored. Raises IntegrityError if it cannot be understood.
        """

    @abstractmethod
    def establish(self) -> StoreIdentity:
        """The store's identity, made now if there is none; creators that race get the winner's.

        Taking a feature's `lock` does this first. Raises as `identity`, and StoreError where the store
        cannot be written to.
        """

    def establish_as(self, identity: StoreIdentity) -> StoreIdentity:
        """The identity of another store, of which this one becomes a copy; it is kept unless there is one already.

        Raises UnsupportedStore where this is another store, and from a backend that takes no identity.
        """
        raise UnsupportedStore(f"{self!r} takes no identity of another store")

    @abstractmethod
    def features(self) -> list[str]:
        """Names of the features that have a published version, sorted."""

    @abstractmethod
    def versions(self, name: str) -> list[Version]:
        """Published versions, ascending; an empty list for an unknown feature."""

    @abstractmethod
    def pointer(self, name: str) -> Pointer | None:
        """The served version and its generation, None before the first version; IntegrityError if unreadable."""

    @abstractmethod
    def manifest(self, name: str, version: Version) -> Manifest:
        """A version's manifest; VersionNotFound if there is no such version, IntegrityError if it is damaged."""

    @abstractmethod
    def location(self, name: str, version: Version) -> str:
        """The path or URL of a version's table, for people and tools: a parquet file, or a folder of parquet files."""

    @abstractmethod
    def files(self, name: str, version: Version, parts: Sequence[Part] | None = None) -> list[str]:
        """Paths or URLs of the parquet files of a version's table, in the order of time; any parquet reader takes them.

        parts: limits the list to the files of these parts. Raises VersionNotFound, FeatureNotFound.
        """

    @abstractmethod
    def profiles(self, name: str, hashes: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
        """Stored profiles of parts as JSON documents, by the parts' hashes; a missing or damaged one is left out."""

    @abstractmethod
    def write_profiles(self, name: str, documents: Mapping[str, Mapping[str, Any]]) -> None:
        """Store profiles by the hashes of their parts: a cache, which may be deleted at any time.

        No lock is needed, as equal hashes have equal profiles. Raises StoreError where the store cannot be written to.
        """

    @abstractmethod
    def keep_profiles(self, name: str, hashes: Collection[str]) -> None:
        """Delete the profiles of all parts but these; StoreError where the store cannot be written to."""

    @abstractmethod
    def lease(self, name: str, version: Version) -> AbstractContextManager[None]:
        """Keep a version and its partials from being removed while the block runs.

        The right to read is enough. Raises VersionNotFound if the version does not exist any more.
        """

    @abstractmethod
    def remove(self, name: str, version: Version) -> None:
        """Delete a version that is not served; files that other versions share stay.

        Raises VersionInUse while a reader holds a lease of it.
        """

    def remove_each(
        self, name: str, versions: Iterable[Version]
    ) -> tuple[list[Version], list[Version]]:
        """Delete versions that are not served; returns those that are gone, and those that stay because they are being read."""
        return removed_each(partial(self.remove, name), versions)

    @abstractmethod
    def check_manifest(self, manifest: Manifest) -> list[str]:
        """Faults in a version's manifest and in the bytes of its table, in words; an empty list if all is well."""

    @abstractmethod
    def transaction(self, snapshot: Snapshot) -> AbstractContextManager[Transaction]:
        """A transaction that can publish the successor of the snapshot's version; uncommitted writes vanish with the block."""

    @abstractmethod
    def serve(self, name: str, version: Version, at_least: int = 0) -> Pointer:
        """Serve an existing version and raise the generation, to `at_least` or above; VersionNotFound if there is no such version."""

    @abstractmethod
    def books(self, name: str) -> Books:
        """The feature's books: hold, pins, quarantine and the like; empty before the first write."""

    @abstractmethod
    def write_books(self, name: str, books: Books) -> None:
        """Replace the feature's books as a whole; call with the feature's lock held."""

    @abstractmethod
    def file_states(self, name: str) -> FileStateMap:
        """Source files as the last refresh saw them, by path, empty before the first.

        The very mapping that was last written, if it is still at hand, so that its memo serves again; else a new one.
        """

    @abstractmethod
    def write_file_states(self, name: str, file_states: FileStateMap) -> None:
        """Replace the states of all source files of the feature, by path."""

    @abstractmethod
    def audit(self, name: str) -> Audit | None:
        """The result of the last audit; None if there was none, or the document cannot be read."""

    @abstractmethod
    def write_audit(self, name: str, audit: Audit) -> None:
        """Replace the last audit's result."""

    @abstractmethod
    def lock(self, name: str, wait: bool = True) -> AbstractContextManager[None]:
        """The feature's lock, which one process holds at a time; every writer takes it, and readers need none.

        Unfinished writes of an earlier holder are cleaned up first. Forks of the holder do not hold it. Should two
        processes ever hold it, only one commit wins. Raises StoreBusy, which names the holder, if it stays taken, at once
        where it is not to be waited for, and FeatureNotFound for a former name of a feature.
        """

    @abstractmethod
    def regenerate_index(self) -> list[str]:
        """Rewrite the index of all features from their versions; returns the names of the features listed."""

    @abstractmethod
    def index(self) -> dict[str, dict[str, Any]]:
        """A summary of each feature's served version, by name; `regenerate_index` mends a stale index."""

    # A backend may do these, too.

    def listing_later(self) -> AbstractContextManager[None]:
        """Let versions that are published within the block come into the index together, at its end.

        After a kill the next writer of each feature mends its line.
        """
        return nullcontext()

    def renames(self) -> Renames:
        """The renames of features; all that the store tells, locks and versions' sources, too, has their present names."""
        return Renames()

    def rename(self, before: str, after: str) -> None:
        """Give a feature another name, in one step, with its versions, books and all else that is kept of it.

        The old name is not free again until the feature is erased or has it back. A process that ends midway leaves the
        feature whole under one of the names; the same call ends it. Raises FeatureNotFound for a feature that has no version,
        StoreError for a name that is taken or none, VersionInUse while a reader holds a lease of a version.
        """
        raise UnsupportedStore(
            f"{self!r} gives no feature another name, so {before} cannot become {after} there; "
            "build it anew under the new name, then retire the old one"
        )

    def write_renames(self, renames: Renames) -> None:  # noqa: B027 - of a backend without renames
        """Replace what is known of renames, as for a copy of a store whose features had other names.

        A backend that keeps no renames keeps none of these. Raises StoreError where the store cannot be written to.
        """

    def defined_names(self, definitions: str) -> DefinedNames | None:
        """The names of features and services that definitions had when they last said so, None where they never did.

        Definitions that share the store say so. A backend that does not keep them gives None. Raises IntegrityError for a
        damaged document.
        """
        return None

    def write_defined_names(self, definitions: str, names: DefinedNames) -> None:  # noqa: B027 - of a backend that keeps none
        """Replace the names that definitions have; StoreError where the store cannot be written to."""

    def mend(self, name: str) -> bool:
        """Delete damaged copies of what the store has elsewhere; returns whether it has: reading again may succeed then.

        Called where a feature's files cannot be read. No lock is needed.
        """
        return False

    def task_files(self, name: str) -> TaskFiles:
        """The files that tasks of a feature's build share, where every process that has the store reaches them.

        Raises UnsupportedStore where there is no such place.
        """
        raise UnsupportedStore(
            f"{self!r} has no place for the tasks of {name}; build it with runner='local'"
        )


def removed_each(
    remove: Callable[[Version], None], versions: Iterable[Version]
) -> tuple[list[Version], list[Version]]:
    """Remove versions; returns those that are gone, and those that stay because they are being read."""
    gone, in_use = list[Version](), list[Version]()
    for version in versions:
        try:
            remove(version)
            gone.append(version)
        except VersionInUse:
            in_use.append(version)
    return gone, in_use
