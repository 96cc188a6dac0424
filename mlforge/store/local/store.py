"""The offline store in a local folder.

    feature_store/
      user_spend/
        1.0.0/  data.parquet  .meta.json
        _latest.json                     {"version": "1.0.0", "generation": 1, ...}
        _partials/<hash>.parquet         the events that versions consist of
        _packs/<sequence>-<id>.parquet   the same, many small ones in a file
        _tiles/<file>-<kind>.<content>.parquet   what follows from such a file for dense or endless windows
        _tiles/<file>-<kind>.<content>.arrow     events once more, by entity
        _profiles/<hash>.json            what the values of a part of a table are like
        _lineage/<hash>.json             pieces of long lists of files, shared between versions
        _books.json  _sources.json       mutable notes: quarantine, holds, what files were last seen
        _audit.json                      another: what the last audit found
      _metadata/manifest.json            an index of all features, for people
      _metadata/store.json               {"id", "created_at"}: which store this is
      _metadata/locks/<model>.json       the lock that a model was registered with
      _metadata/services/<service>/1.0.0.json   what a version of a service promises
      _metadata/forgotten.json           salted hashes of the entities that it has forgotten
      _metadata/renamed.json             the names that features had before

A version is written into a hidden sibling, synced, and renamed into place; only then does
`_latest.json` change. A crash leaves the version before served and a hidden folder that the next
writer removes. A whole version above the `highest` that `_latest.json` knows of is one that a crash
kept from being served; one below may have been rolled back from.

No name, link or document in it leads outside the folder: a link is refused.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from mlforge.core import arguments
from mlforge.core.disk import hash_file
from mlforge.core.failpoints import reach
from mlforge.core.manifest import Manifest, Part, VersionSummary
from mlforge.core.paths import path_of
from mlforge.core.renames import Renames
from mlforge.core.scratch import scratch_folder
from mlforge.core.signatures import named_methods
from mlforge.core.values import Version
from mlforge.errors import DefinitionError, StoreError, UnsupportedStore
from mlforge.store.base import Store
from mlforge.store.draft import Draft
from mlforge.store.local import index, io, publishing, renaming, staging, state_files
from mlforge.store.local.erasing import LET_GO, LocalErasure, finish
from mlforge.store.local.feature_folder import FeatureFolder
from mlforge.store.local.forgotten import ForgottenFile
from mlforge.store.local.identity import IdentityFile, check_identity
from mlforge.store.local.leases import shared
from mlforge.store.local.lock import exclusive
from mlforge.store.local.manifests import contradictions
from mlforge.store.local.packs import Packing
from mlforge.store.local.partial_storage import LocalPartials
from mlforge.store.local.paths import DATA, META, checked, no_link, refuse_url
from mlforge.store.local.promises import LocalPromises
from mlforge.store.local.recovery import recover
from mlforge.store.local.task_files import LocalTaskFiles
from mlforge.store.local.transaction import LocalTransaction
from mlforge.store.records import Audit, Books, FileStateMap, StoreIdentity
from mlforge.store.transaction import Pointer, Snapshot


@named_methods
class LocalStore(LocalPartials, LocalErasure, LocalPromises, Store):
    """A folder on a local disk, made when it is first written to."""

    def __init__(self, path: str | os.PathLike[str], packing: Packing | None = None) -> None:
        refuse_url(arguments.path(path, "LocalStore: path", "write LocalStore('feature_store')"))
        self._given = path_of(path)
        self.path = self._given.absolute()
        self.packing = Packing() if packing is None else packing
        if not isinstance(self.packing, Packing):
            raise DefinitionError(
                f"LocalStore: packing must be a Packing, not {arguments.shown(packing)}; leave it out"
            )
        self._features: dict[str, FeatureFolder] = {}
        self._identity, self._forgotten = IdentityFile(self.path), ForgottenFile(self.path)
        self._renames = renaming.RenamesFile(self.path)
        self._lines = index.Lines(self.path, self._served)

    def located_at(self, folder: Path) -> LocalStore:
        """The store that a relative path means in a definitions file of that folder."""
        return LocalStore(folder / self._given, self.packing)

    @property
    def address(self) -> str:
        """The folder's path."""
        return str(self.path)

    @property
    def local_folder(self) -> Path:
        """The folder itself."""
        return self.path

    def __repr__(self) -> str:
        return f"LocalStore({str(self.path)!r})"

    def identity(self) -> StoreIdentity | None:
        """Read `_metadata/store.json`."""
        return self._identity.read()

    def establish(self) -> StoreIdentity:
        """Write `_metadata/store.json` where it is missing: also in a store of a release that wrote none."""
        return self._established(None)

    def establish_as(self, identity: StoreIdentity) -> StoreIdentity:
        """Write it where there is none."""
        return check_identity(self, self._established(identity), identity)

    def _established(self, other: StoreIdentity | None) -> StoreIdentity:
        identity = self._identity.read()
        if identity is None:
            with io.storage_errors(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
            with index.exclusively(self.path):
                identity = self._identity.read() or self._identity.make(other)
        return identity

    def features(self) -> list[str]:
        """Names of the features that have a version, sorted: also of one that is not served, as its pointer was lost."""
        names = []
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.path) as entries:
            for entry in entries:
                with suppress(StoreError):
                    folder = self._folder(entry.name)
                    is_served = (folder / state_files.LATEST).is_file()
                    if is_served or (self.versions(entry.name) and not (folder / LET_GO).exists()):
                        names.append(entry.name)
        return sorted(names)

    def versions(self, name: str) -> list[Version]:
        """Whole versions, ascending."""
        return self._feature(name).versions()

    def pointer(self, name: str) -> Pointer | None:
        """The pointer in `_latest.json`."""
        return self._feature(name).pointer()

    def manifest(self, name: str, version: Version) -> Manifest:
        """Read `.meta.json`, once while it stays as it is: a refresh and a push ask several times."""
        feature = self._feature(name)
        try:
            return self.renames().manifest(feature.manifest(version))
        except (FileNotFoundError, NotADirectoryError):
            if not feature.versions():
                raise self._not_found(name) from None
            raise self._no_version(name, version) from None

    def summaries(self, name: str) -> list[VersionSummary]:
        """Read each version's document, and none of the pieces of its lists."""
        summaries = self._feature(name).summaries()
        if not summaries:
            raise self._not_found(name)
        return summaries

    def location(self, name: str, version: Version) -> str:
        """`<feature>/<version>/data.parquet`: a file, or a folder once it is large."""
        return str(no_link(self._feature(name).version(version) / DATA))

    def files(
        self, name: str, version: Version | str, parts: Sequence[Part] | None = None
    ) -> list[str]:
        """Absolute paths below the version's folder."""
        version = Version.of(version)
        folder = self._feature(name).version(version)
        no_link(folder / DATA)
        of = self.manifest(name, version).parts if parts is None else parts
        return [str(no_link(folder / part.file)) for part in of]

    @contextmanager
    def lease(self, name: str, version: Version) -> Iterator[None]:
        """Share the version's document with other readers."""
        path = self._feature(name).version(version) / META
        with ExitStack() as leases:
            try:
                leases.enter_context(shared(path))
            except (FileNotFoundError, NotADirectoryError):
                raise self._no_version(name, version) from None
            yield

    def check_manifest(self, manifest: Manifest) -> list[str]:
        """Compare the hashes that the document states with those of what it says, and of the parts' bytes."""
        assert manifest.version is not None
        stated = io.read_json(self._feature(manifest.name).version(manifest.version) / META)
        return [
            *contradictions(stated, manifest),
            *self._table_faults(manifest, manifest.version),
        ]

    def _table_faults(self, manifest: Manifest, version: Version) -> Iterator[str]:
        files = self.files(manifest.name, version, manifest.parts)
        for part, file in zip(manifest.parts, files, strict=True):
            if not Path(file).is_file():
                yield f"{part.file} is missing"
            elif hash_file(Path(file)) != part.hash:
                yield f"{part.file} is not what was published: its bytes have changed"

    @contextmanager
    def draft(self) -> Iterator[Store]:
        """Writes go to a temporary folder of the machine's."""
        with scratch_folder("plan") as folder:
            scratch = LocalStore(folder / "store", self.packing)
            yield Draft(self, scratch, folder)

    def task_files(self, name: str) -> LocalTaskFiles:
        """A hidden folder beside the versions."""
        return LocalTaskFiles.of(self._feature(name))

    @contextmanager
    def transaction(self, snapshot: Snapshot) -> Iterator[LocalTransaction]:
        """A hidden sibling of the versions."""
        feature, latest = self._feature(snapshot.name), snapshot.latest
        staged = feature.path / staging.new_name()
        served = feature.version(latest.version) if latest and latest.version else None
        with io.storage_errors(staged):
            staged.mkdir()
        try:
            with io.storage_errors(staged):
                reach("stage.made")
                of_feature = feature.begin_lists, feature.recent_parts
                yield LocalTransaction(
                    snapshot, staged, served, self._publish, self.write_books, *of_feature
                )
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _publish(self, staged: Path, manifest: Manifest, snapshot: Snapshot) -> Pointer:
        """Publish, then say so in the index."""
        feature = self._feature(manifest.name)
        pointer, synced = publishing.publish(feature, staged, manifest, snapshot)
        try:
            LocalTaskFiles.of(feature).clear()
            self._lines.follow(manifest, is_first=snapshot.pointer is None)
        finally:
            synced.result()
        reach("publish.indexed")
        return pointer

    def listing_later(self) -> AbstractContextManager[None]:
        """Replace `_metadata/manifest.json` once: that takes the longer the more features there are."""
        return self._lines.later(self.latest)

    def serve(self, name: str, version: Version, at_least: int = 0) -> Pointer:
        """Point at an existing version."""
        manifest = self.manifest(name, version)
        pointer = publishing.serve(self._feature(name), version, at_least)
        self._lines.update([manifest])
        return pointer

    def recover(self, name: str) -> None:
        """Finish or undo what a killed writer left: call with the lock held.

        A version that was made but never served is served now, unless the feature is held.
        """
        finish(self.path, self._feature(name), self._renames)
        recover(self._feature(name))
        served = self.pointer(name)
        if served is not None and not self._lines.tell(name, served.version):
            self._lines.update([self.manifest(name, served.version)])

    def books(self, name: str) -> Books:
        """Read `_books.json`."""
        return self._feature(name).documents.books()

    def write_books(self, name: str, books: Books) -> None:
        """Replace `_books.json`."""
        state_files.write_books(self._folder(name), books)
        reach("books.written")

    def file_states(self, name: str) -> FileStateMap:
        """Read `_sources.json`."""
        return self._feature(name).file_states.read()

    def write_file_states(self, name: str, file_states: FileStateMap) -> None:
        """Replace `_sources.json`, once the partials of these contents are written."""
        feature = self._feature(name)

        def replace_states() -> None:
            feature.file_states.write(file_states)
            reach("file_states.written")

        feature.partial_store.behind.afterwards(replace_states)

    def audit(self, name: str) -> Audit | None:
        """Read `_audit.json`."""
        return state_files.audit(self._folder(name))

    def write_audit(self, name: str, audit: Audit) -> None:
        """Replace `_audit.json`."""
        state_files.write_audit(self._folder(name), audit)

    @contextmanager
    def lock(self, name: str, wait: bool = True) -> Iterator[None]:
        """An advisory lock on the feature's folder; what a killed writer left is put right first."""
        self._refuse_former(name)
        with self._locked(name, wait):
            self._refuse_former(name)  # it was renamed just before its folder was looked for
            yield

    @contextmanager
    def _locked(self, name: str, wait: bool = True) -> Iterator[None]:
        folder = self._folder(name)
        with io.storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            try:
                held.enter_context(exclusive(folder / ".refreshing", wait=wait))
            except StoreError:
                self._refuse_former(name)  # it was renamed while its lock was waited for
                raise
            self.establish()
            self.recover(name)
            with self._feature(name).partial_store.behind.settled():
                yield

    def renames(self) -> Renames:
        """Read `_metadata/renamed.json`."""
        return self._renames.read()

    def write_renames(self, renames: Renames) -> None:
        """Replace `_metadata/renamed.json`."""
        renaming.replace(self.path, self._renames, renames)

    def rename(self, before: str, after: str) -> None:
        """Move the feature's folder."""
        checked(after)
        if self.renames().now(before) != after:
            self.resolve(before)
            self.establish()
            first, second = sorted((before, after))
            with self._locked(first), self._locked(second), exclusive(self.path / renaming.LOCK):
                self._rename(before, after)
        renaming.clear(self.path, self._renames)
        self.regenerate_index()

    def _rename(self, before: str, after: str) -> None:
        self.resolve(before)
        self._refuse_taken(before, after)
        try:
            renaming.rename(self._renames, self._feature(before), self._feature(after))
        finally:
            self._features.pop(before, None)
            self._features.pop(after, None)

    def regenerate_index(self) -> list[str]:
        """Write `_metadata/manifest.json` anew from the versions; returns the features listed."""
        with io.storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with index.exclusively(self.path):
            return index.write(self.path, self._served())

    def index(self) -> dict[str, dict[str, Any]]:
        """The entries of `_metadata/manifest.json`."""
        return index.read(self.path)

    def _served(self) -> list[Manifest]:
        """The manifests of the served versions of all features."""
        manifests = [self.latest(name) for name in self.features()]
        return [manifest for manifest in manifests if manifest is not None]

    def _folder(self, name: str) -> Path:
        return no_link(self.path / checked(name))

    def _feature(self, name: str) -> FeatureFolder:
        # A refresh and a push ask some thirty times: the path of a known one is not made again.
        known = self._features.get(name) if type(name) is str else None
        if known is not None:
            no_link(known.path)
            return known
        path = self._folder(name)
        self._features[name] = FeatureFolder.at(path, self.packing, self._renames.present_name)
        return self._features[name]

    def _not_found(self, name: str) -> StoreError:
        flat = self.path / f"{name}.parquet"
        if flat.is_file():
            return UnsupportedStore(
                f"{flat} is of the flat layout of v0.4: run 'mlforge build' to make a version of "
                f"{name}, then 'mlforge manifest --regenerate'; the old files are left alone"
            )
        return super()._not_found(name)
