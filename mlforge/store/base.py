"""An offline store: its contract, in four parts, and what is the same for every backend.

A store never computes. Writes are staged and become visible in one step. Instants are Int64 microseconds of UTC.
A document or file that is damaged raises IntegrityError; a store that cannot be reached or written, StoreError.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import polars as pl

from mlforge.core.arguments import texts
from mlforge.core.lock import Change, Lock, told
from mlforge.core.manifest import Manifest, VersionSummary
from mlforge.core.signatures import named_methods
from mlforge.core.values import FEATURE, Version
from mlforge.errors import (
    ColumnNotFound,
    FeatureNotFound,
    IntegrityError,
    LockMismatch,
    StoreError,
    VersionNotFound,
    near_hint,
)
from mlforge.sources.damage import DAMAGE
from mlforge.store.erasure import Erasure
from mlforge.store.integrity import mended
from mlforge.store.partials import PartialStorage
from mlforge.store.promises import Promises
from mlforge.store.transaction import Snapshot
from mlforge.store.version_storage import VersionStorage

NOT_SERVED = "what says which is served is gone; the next refresh, as by 'mlforge build', serves it"


@named_methods
class Store(PartialStorage, Erasure, Promises, VersionStorage):
    """The contract of every backend. Versions are never overwritten; readers never see half of one."""

    @abstractmethod
    def draft(self) -> AbstractContextManager[Store]:
        """A draft of this store, for plans: it reads this store and writes nothing to it.

        Partials and tables written to the draft lie elsewhere until the block ends; the right to read is enough.
        """

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

    def register_lock(self, model: str, lock: Lock) -> None:
        """Keep the lock under a model's name, in place of an earlier one: no unattended refresh breaks it from then on.

        It is kept before it is held against the served versions, a feature at a time, so that no feature waits for another's
        refresh; where it does not hold, the earlier one is kept again. Raises LockMismatch where the served versions have
        broken it already, FeatureNotFound for a feature that is not there, StoreError where the model's lock is of another service:
        two teams may have meant the same name.
        """
        lock = lock.renamed(self.renames().names)
        for name in lock.features:
            self.list_versions(name)  # locking makes a folder: not for an unknown name
        before = self.locks().get(model)
        _check_service(model, before, lock)
        self.write_lock(model, lock)
        try:
            changes: list[Change] = []
            for name in sorted(lock.features):
                with self.lock(name):  # a refresh that has not seen the lock has ended
                    changes += lock.changes_in(self.resolve(name))
            if changes:
                raise LockMismatch(
                    f"{lock.title} does not hold in this store: {told(changes)}; make a new one with "
                    f"'mlforge lock {lock.service or 'SERVICE'}'"
                )
        except BaseException:
            if before is None:
                self.remove_lock(model)
            else:
                self.write_lock(model, before)
            raise

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


def _check_service(model: str, before: Lock | None, lock: Lock) -> None:
    """Refuse a lock of another service than the model's lock is of; features that were named one by one are of any."""
    if before is None or not before.service or not lock.service or before.service == lock.service:
        return
    raise StoreError(
        f"the model {model!r} has a lock of the service {before.service!r}, and this one is of {lock.service!r}: give the "
        f"model another name, or end that lock first: 'mlforge locks --remove {model}'"
    )
