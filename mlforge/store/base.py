"""The contract of an offline store: immutable versions, the partials they consist of, and books.

A store never computes. Writes are staged and become visible in one step. Instants are Int64 microseconds of UTC.
A document or file that is damaged raises IntegrityError; a store that cannot be reached or written, StoreError.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import polars as pl

from mlforge.core.arguments import texts
from mlforge.core.keeper import DefinedNames
from mlforge.core.manifest import Manifest, Part, VersionSummary
from mlforge.core.renames import Renames
from mlforge.core.signatures import named_methods
from mlforge.core.values import FEATURE, Version
from mlforge.errors import (
    ColumnNotFound,
    FeatureNotFound,
    IntegrityError,
    StoreError,
    UnsupportedStore,
    VersionNotFound,
    near_hint,
)
from mlforge.sources.damage import DAMAGE
from mlforge.store.erasure import Erasure
from mlforge.store.integrity import mended
from mlforge.store.partials import PartialStorage
from mlforge.store.promises import Promises
from mlforge.store.records import Audit, Books, FileStateMap, StoreIdentity
from mlforge.store.task_files import TaskFiles
from mlforge.store.transaction import Pointer, Snapshot, Transaction

NOT_SERVED = "what says which is served is gone; the next refresh, as by 'mlforge build', serves it"


@named_methods
class Store(PartialStorage, Erasure, Promises):
    """The contract of every backend. Versions are never overwritten; readers never see half of one."""

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
    def draft(self) -> AbstractContextManager[Store]:
        """A draft of this store, for plans: it reads this store and writes nothing to it.

        Partials and tables written to the draft lie elsewhere until the block ends; the right to read is enough.
        """

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

    def write_renames(self, renames: Renames) -> None:
        """Replace what is known of renames, as for a copy of a store whose features had other names.

        A backend that keeps no renames keeps none of these. Raises StoreError where the store cannot be written to.
        """

    def defined_names(self, definitions: str) -> DefinedNames | None:
        """The names of features and services that definitions had when they last said so, None where they never did.

        Definitions that share the store say so. A backend that does not keep them gives None. Raises IntegrityError for a
        damaged document.
        """
        return None

    def write_defined_names(self, definitions: str, names: DefinedNames) -> None:
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

    # The same for every backend from here on.

    @property
    def local_folder(self) -> Path | None:
        """The folder of this machine that the store writes to, None where there is none."""
        return None

    @property
    def address(self) -> str | None:
        """The text by which `store_at` opens the store in another process, None where none does."""
        return None

    def located_at(self, folder: Path) -> Store:
        """The store that relative paths mean in a definitions file of that folder; the same where it has none."""
        return self

    @contextmanager
    def open(self, name: str, wait: bool = True) -> Iterator[Snapshot]:
        """A feature's state, read once under its lock: no other writer changes it until the block ends. wait: as `lock`."""
        with self.lock(name, wait):
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
        """The rows of a version's table, lazily, sorted by timestamp, then keys; collecting raises polars' errors."""
        assert manifest.version is not None
        files = self.files(manifest.name, manifest.version, manifest.parts)
        return pl.scan_parquet(files, glob=False)

    def latest(self, name: str) -> Manifest | None:
        """The served version's manifest, None before the first."""
        pointer = self.pointer(name)
        return None if pointer is None else self.manifest(name, pointer.version)

    def made_from(self, name: str) -> set[Version]:
        """The versions of a feature from whose rows other features' versions were made."""
        renames, features = self.renames(), {*self.features()}
        entries = {renames.now(r): entry.get("made_from", "") for r, entry in self.index().items()}
        origins = {r: text.removeprefix(FEATURE).partition("@")[0] for r, text in entries.items()}
        readers = [
            r for r, origin in origins.items() if renames.now(origin) == name and r in features
        ]
        manifests = (self.manifest(r, version) for r in readers for version in self.versions(r))
        sources = (manifest.upstream for manifest in manifests)
        return {version for feature, version in filter(None, sources) if feature == name}

    def list_versions(self, name: str) -> list[str]:
        """Versions as texts, ascending; FeatureNotFound if there is none."""
        versions = self.versions(name)
        if not versions:
            raise self._not_found(name)
        return [str(version) for version in versions]

    def summaries(self, name: str) -> list[VersionSummary]:
        """Summaries of all versions, ascending; FeatureNotFound if there is none. Raises as `manifest`."""
        versions = self.versions(name)
        if not versions:
            raise self._not_found(name)
        return [self.manifest(name, version).summary for version in versions]

    def resolve(self, name: str, version: str | None = None) -> Manifest:
        """The manifest of a version, by default the served version's; FeatureNotFound or VersionNotFound if there is none."""
        if version is not None:
            return self.manifest(name, Version.parse(version))
        latest = self.latest(name)
        if latest is None:
            raise self._not_found(name)
        return latest

    def read_metadata(self, name: str, version: str | None = None) -> Manifest:
        """The manifest of a version, by default the served version's; raises as `resolve`."""
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
        works = f"write columns=[{present[-1]!r}]"
        names = present if columns is None else texts(columns, f"{name}: columns", works)
        chosen = list(dict.fromkeys(names))
        for missing in set(chosen) - set(present):
            raise ColumnNotFound.among(f"{name} {manifest.version}", missing, present)
        try:
            return self._rows(manifest, chosen)
        except DAMAGE as error:
            if manifest.version not in self.versions(name):
                raise self._no_version(name, manifest.version) from error
            raise IntegrityError(
                f"{name} {manifest.version} cannot be read ({type(error).__name__}); "
                "'mlforge verify' says what is wrong with it"
            ) from error

    def _rows(self, manifest: Manifest, columns: Sequence[str]) -> pl.DataFrame:
        def rows() -> pl.DataFrame:
            return self.scan_table(manifest).select(columns).collect()

        return mended(lambda: self.mend(manifest.name), rows)

    def _refuse_former(self, name: str) -> None:
        """Raise FeatureNotFound for a former name of a feature: nothing is made under it."""
        sentence = self.renames().sentence(name)
        if sentence is not None:
            now = self.renames().now(name)
            raise FeatureNotFound(
                f"{sentence}; let its definition have that name, or give the old one back: 'mlforge rename {now} {name}'"
            )

    def _refuse_taken(self, before: str, after: str) -> None:
        """Raise StoreError for a name that another feature has or had."""
        if self.versions(after) or self.renames().now(after) not in (before, after):
            raise StoreError(f"{after} is taken; 'mlforge list' shows what there is")

    def _not_found(self, name: str) -> StoreError:
        sentence = self.renames().sentence(name)
        if sentence is not None:
            return FeatureNotFound(f"{sentence}; ask for {self.renames().now(name)}")
        features = self.features()
        if name in features and (versions := self.versions(name)):
            return FeatureNotFound(
                f"{name} has versions up to {versions[-1]}, and none is served: {NOT_SERVED}"
            )
        if not features:
            where = f" in {self.address}" if self.address else ""
            return FeatureNotFound(
                f"the store has no feature {name!r}, nor any other{where}; is that the store's place? If so, run 'mlforge build'"
            )
        if name in self.services():
            return FeatureNotFound(
                f"{name} is a service, and no feature; 'mlforge services {name}' tells of it and of its versions"
            )
        return FeatureNotFound(
            f"the store has no feature {name!r}; there are: {', '.join(features)}{near_hint(name, features)}"
        )

    def _no_version(self, name: str, version: Version) -> VersionNotFound:
        versions = ", ".join(str(v) for v in self.versions(name)[-10:]) or "none"
        return VersionNotFound(f"{name} has no version {version}; there are: {versions}")
