"""The offline store in a local folder.

    feature_store/
      user_spend/
        1.0.0/  data.parquet  .meta.json
        _latest.json                     {"version": "1.0.0", "generation": 1, ...}
        _partials/<hash>.parquet         the events that versions consist of
        _packs/<sequence>-<id>.parquet   the same, many small ones in a file
        _tiles/<file>-<kind>.parquet     what follows from such a file for dense aligned windows
        _lineage/<hash>.json             pieces of long lists of files, shared between versions
        _books.json  _sources.json       mutable notes: quarantine, holds, what files were last seen
        _audit.json                      another: what the last audit found
      _metadata/manifest.json            an index of all features, for people
      _metadata/store.json               {"id", "created_at"}: which store this is

A version is written into a hidden sibling, synced, and renamed into place; only then does
`_latest.json` change. A crash leaves the version before served and a hidden folder that the next
writer removes. A whole version above the `highest` that `_latest.json` knows of is one that a crash
kept from being served; one below may have been rolled back from.

No name, link or document in it leads outside the folder: a link is refused.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlforge.core.failpoints import reach
from mlforge.core.manifest import Manifest, Part, Partial
from mlforge.core.values import Version
from mlforge.errors import (
    IntegrityError,
    StoreError,
    UnsupportedStore,
    VersionConflict,
)
from mlforge.store import manifest_json
from mlforge.store.base import Store
from mlforge.store.draft import Draft
from mlforge.store.file_tasks import FileScanTask, PartialLocation, PartialWrite, TileWrite
from mlforge.store.local import index, io, staging, state_files
from mlforge.store.local.identity import IdentityFile
from mlforge.store.local.leases import shared, unshared
from mlforge.store.local.lock import exclusive
from mlforge.store.local.manifest_chunks import ManifestChunks
from mlforge.store.local.packs import Packing
from mlforge.store.local.partials import PartialStore
from mlforge.store.local.paths import (
    DATA,
    META,
    State,
    checked,
    no_link,
    refuse_url,
    state_of,
    well_formed,
)
from mlforge.store.local.tiles import TileFolder
from mlforge.store.local.transaction import LocalTransaction
from mlforge.store.records import Audit, Books, FileState, StoreIdentity
from mlforge.store.transaction import Pointer, Snapshot

_LINEAGE = "_lineage"
_REMEMBERED = 8


@dataclass(frozen=True)
class _Home:
    """Knowledge of a feature's folder, kept for the next look."""

    partial_store: PartialStore
    tiles: TileFolder
    pieces: ManifestChunks
    file_states: state_files.FileStateLog


class LocalStore(Store):
    """A folder on a local disk, made when it is first written to."""

    def __init__(self, path: str | os.PathLike[str], packing: Packing | None = None) -> None:
        refuse_url(path)
        self._given = Path(path).expanduser()
        self.path = self._given.absolute()
        self.packing = packing or Packing()
        self._manifests: dict[State, Manifest] = {}
        self._homes: dict[str, _Home] = {}
        self._identity = IdentityFile(self.path)

    def located_at(self, folder: Path) -> LocalStore:
        """The store that a relative path means in a definitions file of that folder."""
        return LocalStore(folder / self._given, self.packing)

    def __repr__(self) -> str:
        return f"LocalStore({str(self.path)!r})"

    def identity(self) -> StoreIdentity | None:
        """Read `_metadata/store.json`."""
        return self._identity.read()

    def establish(self) -> StoreIdentity:
        """Write `_metadata/store.json` where it is missing: also in a store of a release that wrote none."""
        identity = self._identity.read()
        if identity is None:
            with io.storage_errors(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
            with self._exclusive(None, ".indexing"):
                identity = self._identity.read() or self._identity.make()
        return identity

    def features(self) -> list[str]:
        """Names of the features that have a published version, sorted."""
        names = []
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.path) as entries:
            for entry in entries:
                with suppress(StoreError):
                    if (self._folder(entry.name) / state_files.LATEST).is_file():
                        names.append(entry.name)
        return sorted(names)

    def versions(self, name: str) -> list[Version]:
        """Whole versions, ascending."""
        versions, folder = [], self._folder(name)
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
            for entry in entries:
                with suppress(StoreError):
                    version = Version.parse(entry.name)
                    if (self._version(name, version) / META).is_file():
                        versions.append(version)
        return sorted(versions)

    def pointer(self, name: str) -> Pointer | None:
        """The pointer in `_latest.json`."""
        known = state_files.served(self._folder(name))
        return None if known is None else known[0]

    def manifest(self, name: str, version: Version) -> Manifest:
        """Read `.meta.json`, once while it stays as it is: a refresh and a push ask several times."""
        path = self._version(name, version) / META
        self._partial_store(name).refuse_links()
        try:
            state = state_of(path)
        except (FileNotFoundError, NotADirectoryError):
            if not self.versions(name):
                raise self._not_found(name) from None
            raise self._no_version(name, version) from None
        known = self._manifests.get(state)
        if known is None:
            known = self._read_manifest(name, version, path)
            self._remember(path, known)
        return known

    def _remember(self, path: Path, manifest: Manifest) -> None:
        while len(self._manifests) >= _REMEMBERED:
            self._manifests.pop(next(iter(self._manifests)), None)
        self._manifests[state_of(path)] = manifest

    def _read_manifest(self, name: str, version: Version, path: Path) -> Manifest:
        document = io.read_json(path)
        if document is None:
            raise self._no_version(name, version)
        manifest_json.check_format(document, str(path))
        with well_formed(path):
            lists = self._home(name).pieces.lists(document)
        manifest = manifest_json.from_json(document, str(path), lists)
        if (manifest.name, manifest.version) != (name, version):
            raise IntegrityError(
                f"{path} is that of {manifest.name} {manifest.version}; restore it from a backup"
            )
        return manifest

    def location(self, name: str, version: Version) -> str:
        """`<feature>/<version>/data.parquet`: a file, or a folder once it is large."""
        return str(no_link(self._version(name, version) / DATA))

    def files(self, name: str, version: Version, parts: Sequence[Part] | None = None) -> list[str]:
        """Absolute paths below the version's folder."""
        folder = self._version(name, version)
        no_link(folder / DATA)
        of = self.manifest(name, version).parts if parts is None else parts
        return [str(no_link(folder / part.file)) for part in of]

    def locate(self, name: str, hashes: Iterable[str]) -> list[PartialLocation]:
        """`_partials/<hash>.parquet`, or rows of a pack."""
        return self._partial_store(name).locate(hashes)

    def plan_files(self, name: str, partials: Sequence[Partial]) -> Sequence[FileScanTask]:
        """A task a file, or a task for the packs that are read whole."""
        return self._partial_store(name).plan_files(partials)

    def keep(
        self,
        name: str,
        partials: Sequence[Partial],
        columns: Collection[str],
        time: str,
        since: int,
    ) -> None:
        """Read them once for all later reads of this store's."""
        self._partial_store(name).keep(partials, columns, time, since)

    def find_partial(self, name: str, hash_: str) -> Partial | None:
        """Read the description that a file carries in its own metadata."""
        return self._partial_store(name).find(hash_)

    def write_partials(
        self, name: str, made: Sequence[PartialWrite], sorted_by: str | None = None
    ) -> None:
        """Write each under its hash, or many small ones in a pack, whole or not at all."""
        self._partial_store(name).write(made, sorted_by)

    def partials(self, name: str) -> set[str]:
        """Hashes of the partials in `_partials` and in packs."""
        return self._partial_store(name).hashes()

    def check_partials(self, name: str, hashes: Iterable[str]) -> dict[str, str]:
        """Compare files with the checksums within them."""
        return self._partial_store(name).faults(hashes)

    def remove_partials(
        self, name: str, hashes: Iterable[str], sorted_by: str | None = None, above: float = 0
    ) -> list[str]:
        """Delete files, and write packs anew without them."""
        gone = self._partial_store(name).remove(hashes, sorted_by, above)
        self._home(name).tiles.sweep()
        return gone

    def compact(self, name: str, partials: Sequence[Partial], sorted_by: str | None = None) -> None:
        """Write packs and name them in `CURRENT`; files that they take the place of go at a later call."""
        partial_store = self._partial_store(name)
        if not partial_store.is_in_order(partials):
            with self.lock(name):
                partial_store.sweep()
                partial_store.compact(partials, sorted_by)
                self._home(name).tiles.sweep()

    def tiles(self, name: str, kind: str) -> Mapping[str, str]:
        """List `_tiles`."""
        return self._home(name).tiles.find(kind)

    def tile_notes(self, name: str, tiles: str, of: str) -> Mapping[str, Any] | None:
        """Read them from the file's own metadata, once while it stays as it is."""
        return self._home(name).tiles.notes(tiles, of)

    def write_tiles(self, name: str, kind: str, writes: Iterable[TileWrite]) -> None:
        """Write files of `_tiles`, each whole or not at all."""
        self._home(name).tiles.write(kind, writes)

    def is_whole(self, name: str, file: str) -> bool:
        """Compare the file with the checksum within it."""
        with suppress(OSError):
            return io.is_sealed(Path(file))
        return False

    @contextmanager
    def lease(self, name: str, version: Version) -> Iterator[None]:
        """Share the version's document with other readers."""
        path = self._version(name, version) / META
        with ExitStack() as leases:
            try:
                leases.enter_context(shared(path))
            except (FileNotFoundError, NotADirectoryError):
                raise self._no_version(name, version) from None
            yield

    def remove(self, name: str, version: Version) -> None:
        """Take the folder out of sight in one step, then delete it."""
        hidden = self._folder(name) / staging.new_name()
        path = self._version(name, version)
        self.manifest(name, version)
        with self._exclusive(name, ".publishing"):
            pointer = self.pointer(name)
            if pointer is not None and pointer.version == version:
                raise StoreError(f"{name} {version} is served and cannot be removed")
            with unshared(path / META, f"{name} {version}"), io.storage_errors(path):
                path.rename(hidden)
        reach("remove.hidden")
        with io.storage_errors(path):
            shutil.rmtree(hidden)
            self._sweep(name)

    def check_manifest(self, manifest: Manifest) -> list[str]:
        """Compare the hashes that the document states with those of what it says, and of the parts' bytes."""
        assert manifest.version is not None
        stated = io.read_json(self._version(manifest.name, manifest.version) / META)
        computed = manifest_json.to_json(manifest)
        hashes = ("content_hash", "schema_hash", "config_hash", "rows_hash", "row_count")
        unfit = [key for key in hashes if stated.get(key) != computed[key]]
        return [
            *(f"{META}: {key} does not fit what it says" for key in unfit),
            *self._table_faults(manifest, manifest.version),
        ]

    def _table_faults(self, manifest: Manifest, version: Version) -> Iterator[str]:
        files = self.files(manifest.name, version, manifest.parts)
        for part, file in zip(manifest.parts, files, strict=True):
            if not Path(file).is_file():
                yield f"{part.file} is missing"
            elif io.hash_file(Path(file)) != part.hash:
                yield f"{part.file} is not what was published: its bytes have changed"

    @contextmanager
    def draft(self) -> Iterator[Store]:
        """Writes go to a temporary folder of the machine's."""
        with tempfile.TemporaryDirectory(prefix="mlforge-plan-") as folder:
            scratch = LocalStore(Path(folder) / "store", self.packing)
            yield Draft(self, scratch, Path(folder))

    @contextmanager
    def transaction(self, snapshot: Snapshot) -> Iterator[LocalTransaction]:
        """A hidden sibling of the versions."""
        name, latest = snapshot.name, snapshot.latest
        staged = self._folder(name) / staging.new_name()
        served = self._version(name, latest.version) if latest and latest.version else None
        with io.storage_errors(staged):
            staged.mkdir()
        try:
            with io.storage_errors(staged):
                reach("stage.made")
                yield LocalTransaction(snapshot, staged, served, self._publish, self.write_books)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _publish(self, staged: Path, manifest: Manifest, snapshot: Snapshot) -> Pointer:
        """Sync, rename, point."""
        version = manifest.version
        assert version is not None
        name, target = manifest.name, self._version(manifest.name, version)
        with io.storage_errors(target):
            document = self._home(name).pieces.written(manifest)
            (staged / META).write_text(io.json_text(document), encoding="utf-8")
            for path in (*staged.rglob("*"), staged):
                io.sync(path)
            self._partial_store(name).sync()
            reach("publish.staged")
            with self._exclusive(name, ".publishing"):
                if self.pointer(name) != snapshot.pointer:
                    raise VersionConflict(f"{name}: another publisher was faster; refresh again")
                if os.path.lexists(target):
                    raise VersionConflict(
                        f"{name}: version {version} exists; versions are never overwritten"
                    )
                try:
                    staged.rename(target)
                except FileExistsError as error:  # another host does not see this one's locks
                    raise VersionConflict(f"{name}: version {version} exists by now") from error
                except OSError as error:
                    if error.errno != errno.ENOTEMPTY:
                        raise
                    raise VersionConflict(f"{name}: version {version} exists by now") from error
                io.sync(target.parent)
                self._remember(target / META, manifest)
                reach("publish.renamed")
                pointer = state_files.point(self._folder(name), version)
        reach("publish.pointed")
        self._index(name, manifest)
        reach("publish.indexed")
        return pointer

    def serve(self, name: str, version: Version) -> Pointer:
        """Point at an existing version."""
        manifest = self.manifest(name, version)
        with self._exclusive(name, ".publishing"):
            pointer = state_files.point(self._folder(name), version)
        self._index(name, manifest)
        return pointer

    def recover(self, name: str) -> None:
        """Finish or undo what a killed writer left: call with the lock held.

        A version that was made but never served is served now, unless the feature is held.
        """
        folder = self._folder(name)
        with self._exclusive(name, ".publishing"):
            for litter in folder.glob(f"{staging.PREFIX}*"):
                if staging.is_litter(litter):
                    shutil.rmtree(litter, ignore_errors=True)
            for litter in folder.glob(".*.json.*"):
                litter.unlink(missing_ok=True)
            self._partial_store(name).recover()
            self._home(name).tiles.clean()
            versions, known = self.versions(name), state_files.served(folder)
            unserved = versions and (known is None or known[1] < versions[-1])
            if unserved and self.books(name).hold is None:
                state_files.point(folder, versions[-1])
        served = self.pointer(name)
        if served is not None and self._indexed(name) != str(served.version):
            self._index(name, self.manifest(name, served.version))

    def books(self, name: str) -> Books:
        """Read `_books.json`."""
        return state_files.books(self._folder(name))

    def write_books(self, name: str, books: Books) -> None:
        """Replace `_books.json`."""
        state_files.write_books(self._folder(name), books)
        reach("books.written")

    def file_states(self, name: str) -> Mapping[str, FileState]:
        """Read `_sources.json`."""
        return self._home(name).file_states.read()

    def write_file_states(self, name: str, file_states: Mapping[str, FileState]) -> None:
        """Replace `_sources.json`."""
        self._home(name).file_states.write(file_states)
        reach("file_states.written")

    def audit(self, name: str) -> Audit | None:
        """Read `_audit.json`."""
        return state_files.audit(self._folder(name))

    def write_audit(self, name: str, audit: Audit) -> None:
        """Replace `_audit.json`."""
        state_files.write_audit(self._folder(name), audit)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """An advisory lock on the feature's folder; what a killed writer left is put right first."""
        folder = self._folder(name)
        with io.storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with self._exclusive(name, ".refreshing"):
            self.establish()
            self.recover(name)
            yield

    def regenerate_index(self) -> list[str]:
        """Write `_metadata/manifest.json` anew from the versions; returns the features listed."""
        with io.storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with self._exclusive(None, ".indexing"):
            entries = self._entries()
            index.write(self.path, entries)
        return sorted(entries)

    def index(self) -> dict[str, dict[str, Any]]:
        """The entries of `_metadata/manifest.json`."""
        return index.read(self.path)

    def _sweep(self, name: str) -> None:
        """Delete the pieces that no version names; none if a version cannot be asked."""
        with suppress(IntegrityError):
            metas = [io.read_json(self._version(name, v) / META) for v in self.versions(name)]
            self._home(name).pieces.sweep(meta for meta in metas if meta)

    def _index(self, name: str, manifest: Manifest) -> None:
        with self._exclusive(None, ".indexing"):
            try:
                known = self.index()
            except UnsupportedStore:
                return  # another mlforge's is left alone until somebody asks for a new one
            except IntegrityError:
                known = self._entries()
            index.write(self.path, {**known, name: index.entry(manifest)})

    def _indexed(self, name: str) -> str | None:
        with suppress(StoreError):
            return self.index().get(name, {}).get("version")
        return None

    def _entries(self) -> dict[str, Any]:
        latest = {name: self.latest(name) for name in self.features()}
        return {name: index.entry(manifest) for name, manifest in latest.items() if manifest}

    def _exclusive(self, name: str | None, lock: str) -> AbstractContextManager[None]:
        return exclusive((self.path if name is None else self._folder(name)) / lock)

    def _folder(self, name: str) -> Path:
        return no_link(self.path / checked(name))

    def _version(self, name: str, version: Version) -> Path:
        return no_link(self._folder(name) / str(version))

    def _partial_store(self, name: str) -> PartialStore:
        return self._home(name).partial_store

    def _home(self, name: str) -> _Home:
        folder = self._folder(name)
        if name not in self._homes:
            self._homes[name] = _Home(
                PartialStore(folder, self.packing),
                TileFolder(folder, self.packing.grace_s),
                ManifestChunks(folder / _LINEAGE),
                state_files.FileStateLog(folder),
            )
        return self._homes[name]

    def _not_found(self, name: str) -> StoreError:
        flat = self.path / f"{name}.parquet"
        if flat.is_file():
            return UnsupportedStore(
                f"{flat} is of the flat layout of v0.4: run 'mlforge build' to make a version of "
                f"{name}, then 'mlforge manifest --regenerate'; the old files are left alone"
            )
        return super()._not_found(name)
