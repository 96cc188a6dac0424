"""The offline store in a bucket of S3, Google Cloud Storage or Azure: the bucket is the authority.

`keys` says what lies where. All that changes of a feature is one small document, replaced by compare-and-swap; all else
is immutable, and kept at hand in a folder of the machine (`cache`), which may be deleted at any time. The feature's lock is
the machine's: it saves work that would be lost, and two machines that refresh a feature at once stay right without it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from mlforge.core import arguments
from mlforge.core.failpoints import reach
from mlforge.core.manifest import Manifest, Part, VersionSummary
from mlforge.core.paths import path_of
from mlforge.core.scratch import scratch_folder
from mlforge.core.signatures import named_methods
from mlforge.core.values import Duration, Version, is_name
from mlforge.errors import DefinitionError, IntegrityError, StoreError
from mlforge.store import manifest_json
from mlforge.store.addresses import checked_bucket, folder_name
from mlforge.store.base import Store
from mlforge.store.draft import Draft
from mlforge.store.local import index, io, staging
from mlforge.store.local.identity import check_identity
from mlforge.store.local.leases import shared, unshared
from mlforge.store.local.manifests import contradictions
from mlforge.store.local.packs import Packing
from mlforge.store.local.paths import META, checked
from mlforge.store.local.store import LocalStore
from mlforge.store.objects import keys, removal
from mlforge.store.objects.bucket import Bucket
from mlforge.store.objects.cache import SPOOL, FeatureCache
from mlforge.store.objects.document import FeatureDocument
from mlforge.store.objects.documents import Documents
from mlforge.store.objects.erasing import ErasingStore
from mlforge.store.objects.file_states import FileStates
from mlforge.store.objects.forgotten import ForgottenObject
from mlforge.store.objects.identity import Identity
from mlforge.store.objects.objects import NotReadable, Objects, each, together
from mlforge.store.objects.publishing import Publisher, settle
from mlforge.store.objects.recorded import RecordedStore
from mlforge.store.objects.renames import RenamesObject
from mlforge.store.objects.transaction import ObjectTransaction
from mlforge.store.objects.trimming import Trimmer
from mlforge.store.records import Books, StoreIdentity
from mlforge.store.transaction import Pointer, Snapshot

_CACHE = "~/.cache/mlforge"


@named_methods
class ObjectStore(ErasingStore, RecordedStore):
    """A store below an address such as `s3://bucket/feature_store`, `gs://…` or `az://container/…`.

    cache: the folder of this machine in which immutable objects are kept at hand, by default `~/.cache/mlforge`;
    a relative one lies in the definitions' folder. options: the cloud's configuration as obstore names it, such as
    `{"aws_endpoint": "http://localhost:9000"}`; credentials are found as the cloud's own tools find them.
    grace: for how long objects that no version names any more are left to readers and publishers of other machines.
    cache_bytes: above it files of the cache go that nobody has used for longest, but for those of the last ten minutes.
    objects: the bucket by another client than obstore.
    """

    def __init__(
        self,
        url: str,
        cache: str | os.PathLike[str] | None = None,
        options: Mapping[str, str] | None = None,
        packing: Packing | None = None,
        grace: str = "1d",
        cache_bytes: int = 50 << 30,
        objects: Objects | None = None,
    ) -> None:
        self.url = checked_bucket(url)
        works = 'write options={"aws_endpoint": "http://localhost:9000"}'
        if options is not None:
            arguments.named(options, "ObjectStore: options", works)
        if packing is not None:
            arguments.instance(packing, Packing, "ObjectStore: packing", "leave it out")
        works = "write ObjectStore('s3://bucket/feature_store', cache='/var/cache/mlforge')"
        root = _CACHE if cache is None else arguments.path(cache, "ObjectStore: cache", works)
        self._root = path_of(root)
        self._options, self.packing = options, packing or Packing()
        self.grace = grace
        self._grace_us = Duration.parse(grace, "ObjectStore: grace").us
        self._objects = objects or Bucket(self.url, options)
        self._documents = Documents(self._objects)
        self._renames = RenamesObject(self._objects, self._documents.stored)
        self.cache = self._root.absolute() / folder_name(self.url)
        works, what = "write 50 * 2**30, or leave it out", "ObjectStore: cache_bytes"
        self._cache_bytes = arguments.number(cache_bytes, what, works, whole=True)
        if cache_bytes < 0:
            raise DefinitionError(f"{what}={cache_bytes!r} is below 0; {works}")
        self._trimmer = Trimmer(self.cache, self._cache_bytes)
        self._caches: dict[tuple[str, str], FeatureCache] = {}
        self._states = FileStates(self._objects)
        self._forgotten = ForgottenObject(self._objects)
        self._identity = Identity(self._objects, self.cache, options)

    def located_at(self, folder: Path) -> ObjectStore:
        """The store whose relative cache lies in a folder."""
        return self._like(self.url, folder / self._root, self._objects)

    @property
    def address(self) -> str:
        """The bucket's address."""
        return self.url

    @property
    def local_folder(self) -> Path:
        """The cache."""
        return self.cache

    def at(self, url: str) -> ObjectStore:
        """A store at another address, with the same cache and options."""
        return self._like(url, self._root)

    def objects_at(self, url: str) -> Objects:
        """The client of another address, with the same options."""
        return self._objects.at(url)

    def _like(self, url: str, cache: Path, objects: Objects | None = None) -> ObjectStore:
        options, bytes_ = self._options, self._cache_bytes
        return type(self)(url, cache, options, self.packing, self.grace, bytes_, objects)

    def __repr__(self) -> str:
        return f"ObjectStore({self.url!r})"

    # Identity

    def identity(self) -> StoreIdentity | None:
        """Read `_metadata/store.json`, from the cache where it is there."""
        return self._identity.read()

    def establish(self) -> StoreIdentity:
        """Create `_metadata/store.json` where it is missing, once the server has shown that it keeps to conditions."""
        return self._identity.establish()

    def establish_as(self, identity: StoreIdentity) -> StoreIdentity:
        """Create `_metadata/store.json` like another store's where it is missing."""
        return check_identity(self, self._identity.establish_as(identity), identity)

    # Features and versions

    def features(self) -> list[str]:
        """Features whose document names a served version, or cannot be read, which their own reads tell."""
        folders = [folder for folder in self._objects.folders("") if is_name(folder)]
        return sorted(filter(None, each(self._served_in, folders)))

    def _served_in(self, folder: str) -> str | None:
        """The name of the feature that lies in a folder; None where none does that is served."""
        try:
            document = self._documents.stored.refreshed(folder)
        except (IntegrityError, NotReadable):
            return folder
        if document is None or document.pointer is None:
            return None
        return document.called or folder

    def versions(self, name: str) -> list[Version]:
        """Versions that were served and are not being removed; to the lock's holder also one that was made, but held."""
        session = self._documents.session(checked(name))
        if session is None:
            document = self._documents.refreshed(name)
            return list(filter(document.is_there, self._listed(name))) if document else []
        document = self._documents.known(name)
        if document is None or document.erasing is not None:
            return []
        return [version for version in session.versions if version not in document.removing]

    def pointer(self, name: str) -> Pointer | None:
        """The pointer in the feature's document."""
        document = self._documents.read(checked(name))
        return document.pointer if document else None

    def manifest(self, name: str, version: Version) -> Manifest:
        """The version's document, fetched once."""
        if self._is_there(checked(name), version):
            manifest = self._files(name).manifest(version)
            if manifest is not None:
                return self._with_present_source(manifest)
        if not self.versions(name):
            raise self._not_found(name)
        raise self._no_version(name, version)

    def _is_there(self, name: str, version: Version) -> bool:
        """Whether a version has been served and is not removed, as far as the document tells that is at hand.

        It is read anew where it does not know the version, which may be new.
        """
        document, session = self._documents.known(name), self._documents.session(name)
        if document is None:
            return False
        if session is not None:
            return document.is_there(version) or version in self.versions(name)
        if document.is_unserved(version):
            document = self._documents.refreshed(name)
        return document is not None and document.is_there(version)

    def summaries(self, name: str) -> list[VersionSummary]:
        """Fetch the manifests that are not at hand."""
        versions = self.versions(name)
        if not versions:
            raise self._not_found(name)
        cache = self._files(name)
        absent = [v for v in versions if not (cache.path / str(v) / META).is_file()]
        each(cache.fetch_version, absent)
        present = [v for v in versions if (cache.path / str(v) / META).is_file()]
        return [
            manifest_json.summary(
                cache.folder.document(v), f"{self.url}/{keys.meta(cache.home, v)}"
            )
            for v in present
        ]

    def location(self, name: str, version: Version) -> str:
        """The URL of the table's only part, or of the manifest that names several."""
        parts, home = self.manifest(name, version).parts, self._files(name).home
        key = keys.part(home, parts[0].hash) if len(parts) == 1 else keys.meta(home, version)
        return f"{self.url}/{key}"

    def urls(self, name: str, version: Version | str) -> list[str]:
        """The URLs of a version's parts in the order of time, for readers elsewhere; raises as `files`."""
        parts, home = self.manifest(name, Version.of(version)).parts, self._files(name).home
        return [f"{self.url}/{keys.part(home, part.hash)}" for part in parts]

    def files(
        self, name: str, version: Version | str, parts: Sequence[Part] | None = None
    ) -> list[str]:
        """Paths in the cache, to which the parts are fetched."""
        chosen = self.manifest(name, Version.of(version)).parts if parts is None else parts
        paths = [str(path) for path in self._files(name).fetch_parts(chosen)]
        self._trimmer.look()
        return paths

    @contextmanager
    def lease(self, name: str, version: Version) -> Iterator[None]:
        """Share the manifest in the cache; other machines leave a version's objects for the grace period."""
        self.manifest(name, version)
        with ExitStack() as leases:
            try:
                leases.enter_context(shared(self._files(name).path / str(version) / META))
            except (FileNotFoundError, NotADirectoryError):
                raise self._no_version(name, version) from None
            yield

    def remove(self, name: str, version: Version) -> None:
        """Hide the version from readers; its objects go once the grace period is over."""
        with suppress(IntegrityError):  # one that cannot be read goes, too
            self.manifest(name, version)
        folder = self._files(name).path / str(version)
        with ExitStack() as leases:
            with suppress(FileNotFoundError, NotADirectoryError):  # nobody here has read it
                leases.enter_context(unshared(folder / META, f"{name} {version}"))
            removal.hide(self._documents, name, version)
            shutil.rmtree(folder, ignore_errors=True)

    def check_manifest(self, manifest: Manifest) -> list[str]:
        """Compare what the bucket has: the manifest with its own hashes, and each part's bytes with its hash."""
        assert manifest.version is not None
        cache = self._files(manifest.name)
        stated = cache.document(manifest.version)
        if stated is None:
            return [f"{META} is missing"]
        faults = each(lambda part: self._part_fault(cache, part), manifest.parts)
        return [*contradictions(stated, manifest), *filter(None, faults)]

    def _part_fault(self, cache: FeatureCache, part: Part) -> str | None:
        try:
            cache.fetch_part(part.hash)
        except (IntegrityError, NotReadable) as error:
            return str(error)
        return None

    # Writing

    @contextmanager
    def lock(self, name: str, wait: bool = True) -> Iterator[None]:
        """An advisory lock of this machine; between machines the feature's document decides who was faster."""
        with self._exclusive(name, wait):
            self._identity.settle()
            with self._documents.holding(name, self._begin(name)) as session:
                if removal.finish(self._documents, self._objects, self._renames, name):
                    if self._documents.read(name) is None:  # it lay in the folder of a former name
                        self._documents.create(name)
                    session.versions = self._listed(name)
                self._recover(name)
                self._note_forgotten(name, session)
                settle(self._files(name), self._documents, session, session.versions)
                try:
                    yield
                finally:
                    if session.states is not None:
                        self._states.write(self._documents.likely_folder(name), session.states)
                    self._trimmer.look()

    def _begin(self, name: str) -> list[Version]:
        """Read the document and the file states at once; the versions are listed where the document has changed."""

        def read_document() -> None:
            if self._documents.refreshed(name) is None:
                self._refuse_former(name)
                self._identity.ask_here("establish")  # the bucket may hold another store since
                self._vacate(name)
                self._documents.create(name)

        def read_states() -> None:
            self._states.read(likely)

        likely = self._documents.likely_folder(name)
        together([read_document, read_states])
        if (folder := self._documents.likely_folder(name)) != likely:
            self._states.read(folder)
        return self._documents.versions_as_known(name) or self._listed(name)

    def _vacate(self, name: str) -> None:
        """End the erasure of a feature that had a name, where that was let go, and its folder was not yet."""
        known = self._documents.stored.known(name)
        if known is not None and known.document.erasing is not None:
            removal.finish(
                self._documents, self._objects, self._renames, known.document.called or name
            )

    def _recover(self, name: str) -> None:
        """Delete what a killed writer of this machine left half-written in the cache."""
        cache = self._writable(name)
        for entry in os.scandir(cache.path):
            path = Path(entry.path)
            is_staged = entry.name.startswith(staging.PREFIX) and staging.is_litter(path)
            if is_staged or entry.name.startswith(SPOOL):
                shutil.rmtree(path, ignore_errors=True)
        cache.folder.partial_store.recover()
        cache.folder.tiles.clean()

    @contextmanager
    def draft(self) -> Iterator[Store]:
        """Writes go to a temporary folder of the machine's."""
        with scratch_folder("plan") as folder:
            yield Draft(self, LocalStore(folder / "store", self.packing), folder)

    @contextmanager
    def transaction(self, snapshot: Snapshot) -> Iterator[ObjectTransaction]:
        """A hidden folder of the cache."""
        cache = self._writable(snapshot.name)
        staged = cache.path / staging.new_name()
        with io.storage_errors(staged):
            staged.mkdir()
        try:
            reach("stage.made")
            yield ObjectTransaction(snapshot, cache, staged, self._publish)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _publish(self, tx: ObjectTransaction, manifest: Manifest, books: Books | None) -> Pointer:
        name, session = manifest.name, self._documents.session(manifest.name)
        beside: list[Callable[[], object]] = []
        if session is not None and session.states is not None:
            folder = self._documents.likely_folder(name)
            beside.append(partial(self._states.write, folder, session.states))
            session.states = None
        publisher = Publisher(tx.cache, self._documents, session)
        pointer = publisher.publish(tx, manifest, books, beside)
        if session is not None and session.has_tasks:
            with suppress(StoreError):  # what is left goes by age
                self.task_files(name).clear()
        return pointer

    def serve(self, name: str, version: Version, at_least: int = 0) -> Pointer:
        """Point at an existing version."""
        self.manifest(name, version)

        def serving(document: FeatureDocument) -> FeatureDocument:
            if document.erasing is not None or version in document.removing:
                raise self._no_version(name, version)  # another machine was faster
            return document.serving(version, at_least)

        document = self._documents.change(checked(name), serving)
        assert document.pointer is not None
        return document.pointer

    # Index

    def regenerate_index(self) -> list[str]:
        """The features; the index follows from their documents, so that there is none to write."""
        return self.features()

    def index(self) -> dict[str, dict[str, Any]]:
        """An entry for each feature's served version."""
        lines: dict[str, dict[str, Any]] = {}
        for name in self.features():
            with suppress(IntegrityError, NotReadable):  # whoever reads the feature is told
                served = self.latest(name)
                lines |= index.lines_of([served] if served else [])
        return lines
