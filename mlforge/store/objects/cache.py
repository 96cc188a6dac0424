"""The folder of a machine in which a bucket's immutable objects are at hand.

    <folder>/<store>/<born>/<feature>/     a feature's folder, as in a store on a local disk, without pointer and books;
                                           of one that was renamed still that of its first name, as in the bucket
        1.0.1/.meta.json  _lineage/        manifests that were read or written
        _parts/<hash>.parquet              parts of tables
        _partials/  _packs/                events, packed as it suits this machine
        _tiles/  _profiles/                what was computed of them here

It may be deleted at any time; a file that is missing or damaged is read from the bucket again.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from mlforge.core.disk import hash_file
from mlforge.core.manifest import Manifest, Part
from mlforge.core.values import Version
from mlforge.errors import IntegrityError, StoreError, StoreUnavailable
from mlforge.store.file_tasks import PartialWrite, by_file, read_together
from mlforge.store.local import io
from mlforge.store.local.feature_folder import FeatureFolder
from mlforge.store.local.manifest_chunks import named
from mlforge.store.local.packs import Packing
from mlforge.store.local.partials import PartialStore
from mlforge.store.local.paths import META, well_formed
from mlforge.store.local.sealed_file import is_sealed
from mlforge.store.objects import keys
from mlforge.store.objects.objects import NotReadable, Objects, Tag, each

SPOOL = ".spool-"
"""How folders begin in which a publisher lays partials that lie in packs, each in a file of its own."""
UNBORN = "unborn"
"""The life of a feature that the bucket has nothing of."""
_ALONE = Packing(small_rows=0)


class StoredManifest(NamedTuple):
    """The document of a version's manifest, and the state that the object was read in."""

    document: Mapping[str, Any]
    tag: Tag


class FeatureCache:
    """The files of one feature that are at hand, and those that are fetched when they are needed."""

    def __init__(self, objects: Objects, folder: FeatureFolder) -> None:
        self.objects, self.folder = objects, folder
        self.name, self.path = folder.name, folder.path
        self.written: set[str] = set()
        """Partials that were written here since a version was published."""
        self.home = folder.path.name
        """The folder of the bucket that the objects lie in: that of the name which the feature had first."""

    @property
    def born(self) -> str:
        """The life of the name that the files are of."""
        return self.path.parent.name

    # Manifests

    def manifest(self, version: Version) -> Manifest | None:
        """A version's manifest, None where the bucket has none; IntegrityError if it is damaged there."""
        for is_last in (False, True):
            try:
                return self.folder.manifest(version)
            except (FileNotFoundError, NotADirectoryError):
                if is_last or not self.fetch_version(version):
                    return None
            except IntegrityError:
                if is_last or not self.fetch_version(version):
                    raise
        raise AssertionError("the last attempt returns or raises")

    def versions(self) -> list[Version]:
        """Versions that have a manifest in the bucket, ascending."""
        versions = []
        for entry in self.objects.entries(f"{self.home}/{keys.VERSIONS}"):
            with suppress(StoreError):
                versions.append(Version.parse(keys.stem(entry.key)))
        return sorted(versions)

    def document(self, version: Version) -> Mapping[str, Any] | None:
        """The document of a version's manifest as the bucket has it, served or not; None where it has none."""
        stored = self.stored(version)
        return stored.document if stored else None

    def stored(self, version: Version) -> StoredManifest | None:
        """The document of a version's manifest, with the state in which it was read; None where the bucket has none."""
        blob = self.objects.read(keys.meta(self.home, version))
        if blob is None:
            return None
        where = f"{self.objects.url}/{keys.meta(self.home, version)}"
        with well_formed(where):
            document = json.loads(blob.data)
            if not isinstance(document, dict):
                raise ValueError("it is no JSON object")
        return StoredManifest(document, blob.tag)

    def fetch_version(self, version: Version) -> bool:
        """Fetch a version's manifest and the pieces of its lists; returns whether the bucket has it."""
        document = self.document(version)
        if document is None:
            shutil.rmtree(self.path / str(version), ignore_errors=True)
            return False
        self.folder.chunks.folder.mkdir(parents=True, exist_ok=True)
        each(self._fetch_piece, sorted(named(document)))
        self.keep_document(version, document)
        return True

    def keep_document(self, version: Version, document: Mapping[str, Any]) -> Path:
        """Keep the document of a version at hand; returns its path."""
        path = self.path / str(version) / META
        path.parent.mkdir(parents=True, exist_ok=True)
        io.write_json(path, document, durable=False)
        return path

    def _fetch_piece(self, hash_: str) -> None:
        path = self.folder.chunks.folder / f"{hash_}.json"
        if path.is_file() and hash_file(path) == hash_:
            return
        with self._arriving(path, keys.piece(self.home, hash_)) as arrived:
            if hash_file(arrived) != hash_:
                raise IntegrityError(
                    f"{self.objects.url}/{keys.piece(self.home, hash_)} is damaged; restore it from a backup"
                )

    # Parts

    def part(self, hash_: str) -> Path:
        """The path of a part, whether it is at hand or not."""
        return self.path / keys.PARTS / f"{hash_}.parquet"

    def fetch_parts(self, parts: Iterable[Part]) -> list[Path]:
        """The paths of parts, all at hand now. Raises IntegrityError for a part that is missing or damaged."""
        hashes = [part.hash for part in parts]
        absent = [hash_ for hash_ in dict.fromkeys(hashes) if not self._is_used(self.part(hash_))]
        each(self.fetch_part, absent)
        return [self.part(hash_) for hash_ in hashes]

    @staticmethod
    def _is_used(path: Path) -> bool:
        """Whether a file is at hand; if it is, it counts as used now."""
        try:
            os.utime(path)
        except OSError:
            return False
        return True

    def fetch_part(self, hash_: str) -> None:
        """Fetch a part anew; raises as `fetch_parts`."""
        self.fetch(hash_, keys.part(self.home, hash_))

    def fetch(self, hash_: str, key: str) -> None:
        """Fetch an object with the bytes of that hash to where a part with them lies; raises as `fetch_parts`."""
        with self._arriving(self.part(hash_), key) as arrived:
            if hash_file(arrived) != hash_:
                raise IntegrityError(
                    f"{self.objects.url}/{key} is not what was published: its bytes have changed"
                )

    # Partials

    def fetch_partials(self, hashes: Iterable[str]) -> None:
        """Have partials at hand that the bucket has; others stay away."""
        unique = dict.fromkeys(hashes)
        absent = unique.keys() - self.folder.partial_store.hashes() if unique else ()
        if absent and self.born != UNBORN:
            (self.path / keys.PARTIALS).mkdir(parents=True, exist_ok=True)
            each(self._fetch_partial, sorted(absent))

    def _fetch_partial(self, hash_: str) -> None:
        path = self.folder.partial_store.alone(hash_)
        with (
            suppress(IntegrityError, NotReadable),  # what cannot be had is computed again
            self._arriving(path, keys.partial(self.home, hash_)) as arrived,
        ):
            _check_seal(arrived)

    def partial_fault(self, hash_: str) -> str | None:
        """A fault in the bytes that the bucket has of a partial, in words; a damaged file at hand is replaced."""
        path = self.folder.partial_store.alone(hash_)
        try:
            with self._arriving(path, keys.partial(self.home, hash_)) as arrived:
                _check_seal(arrived)
        except NotReadable as error:
            return f"may not be read: {error}"
        except IntegrityError as error:
            return str(error) if "bytes" in str(error) else "is missing"
        return None

    @contextmanager
    def loose_partials(self, hashes: Sequence[str]) -> Iterator[dict[str, Path]]:
        """Files of partials at hand, each in one of its own for as long as the block runs."""
        store = self.folder.partial_store
        paths = {hash_: store.alone(hash_) for hash_ in hashes}
        packed = [hash_ for hash_, path in paths.items() if not path.is_file()]
        with ExitStack() as stack:
            if packed:
                unpacked = stack.enter_context(self.spool())
                for writes in _unpacked(store, packed):
                    unpacked.write(writes, None)
                paths |= {hash_: unpacked.alone(hash_) for hash_ in packed}
            yield paths

    @contextmanager
    def spool(self) -> Iterator[PartialStore]:
        """A place for partials, each in a file of its own, which is gone once the block ends."""
        folder = self.path / f"{SPOOL}{os.getpid()}-{uuid.uuid4().hex}"
        with io.storage_errors(folder):
            folder.mkdir(parents=True)
        try:
            yield PartialStore(folder, _ALONE)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _arriving(self, path: Path, key: str) -> Iterator[Path]:
        """A fetched object beside the path, whose place it takes once it was checked; IntegrityError if there is none."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arriving = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            if not self.objects.download(key, arriving):
                raise IntegrityError(
                    f"{self.objects.url}/{key} is missing; restore it from a backup"
                )
            yield arriving
            arriving.replace(path)
        finally:
            arriving.unlink(missing_ok=True)


def _check_seal(path: Path) -> None:
    if not is_sealed(path):
        raise IntegrityError("is not what was written: its bytes have changed")


def _unpacked(store: PartialStore, hashes: Sequence[str]) -> Iterator[list[PartialWrite]]:
    """Partials that lie in packs, a pack at a time."""
    located = dict(zip(hashes, store.locate(hashes), strict=True))
    if not all(Path(place.file).is_file() for place in located.values()):
        raise StoreUnavailable(
            f"{store.folder.name}: events that were just written are gone from the cache, {store.folder}; try again"
        )
    for places in by_file(located):
        writes = []
        for hash_, events in read_together(places).items():
            described = store.find(hash_)
            if described is None:
                raise StoreUnavailable(
                    f"{store.folder.name}: partial {hash_} cannot be read; try again"
                )
            writes.append(PartialWrite(described, events))
        yield writes
