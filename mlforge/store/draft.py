"""A draft: a store as it would be, for plans. It reads through to the store and writes to a folder of its own."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl

from mlforge.core.forgotten import Forgotten
from mlforge.core.keeper import DefinedNames
from mlforge.core.lock import Lock
from mlforge.core.manifest import Manifest, Part, Partial, VersionSummary
from mlforge.core.renames import Renames
from mlforge.core.values import Version
from mlforge.errors import StoreError
from mlforge.store.base import Store
from mlforge.store.file_tasks import FileScanTask, PartialLocation, PartialWrite, TileWrite
from mlforge.store.records import Audit, Books, FileStateMap, StoreIdentity
from mlforge.store.transaction import Piece, Pointer, Snapshot, StoredPiece, Transaction


class Draft(Store):
    """A store that nothing of is written to: new partials go to `scratch`, a store in `folder`; all else is let go.

    It takes no lock of the store, so a plan neither waits for a refresh nor needs the right to write.
    """

    def __init__(self, store: Store, scratch: Store, folder: Path) -> None:
        self._store, self._scratch, self._folder = store, scratch, folder
        self._tables = count()
        self._planned: dict[str, PlannedVersion] = {}

    # What is new lies in the scratch store.

    @contextmanager
    def lock(self, name: str, wait: bool = True) -> Iterator[None]:
        """Hold the scratch store's lock alone."""
        self._refuse_former(name)
        with self._scratch.lock(name, wait):
            yield

    @contextmanager
    def draft(self) -> Iterator[Store]:
        """The draft itself."""
        yield self

    @contextmanager
    def transaction(self, snapshot: Snapshot) -> Iterator[Transaction]:
        """A table in a folder of the draft's own."""
        folder = self._folder / f"table-{next(self._tables)}"
        folder.mkdir()
        yield _DraftTransaction(snapshot, self._store, folder, self._planned)

    def write_partials(
        self, name: str, writes: Sequence[PartialWrite], sorted_by: str | None = None
    ) -> None:
        """Store them in the scratch store."""
        self._scratch.write_partials(name, writes, sorted_by)

    def partials(self, name: str) -> Set[str]:
        """Hashes of both stores' partials."""
        return self._store.partials(name) | self._scratch.partials(name)

    def find_partial(self, name: str, hash_: str) -> Partial | None:
        """The description in either store."""
        return self._scratch.find_partial(name, hash_) or self._store.find_partial(name, hash_)

    def locate(self, name: str, hashes: Iterable[str]) -> list[PartialLocation]:
        """The location of each partial: in the scratch store if it was written to the draft."""
        chosen, new = list(hashes), self._scratch.partials(name)
        staged = [hash_ for hash_ in chosen if hash_ in new]
        stored = [hash_ for hash_ in chosen if hash_ not in new]
        places = dict(zip(staged, self._scratch.locate(name, staged), strict=True))
        places |= dict(zip(stored, self._store.locate(name, stored), strict=True))
        return [places[hash_] for hash_ in chosen]

    @property
    def fetches_files(self) -> bool:
        """Whether the store's files are fetched."""
        return self._store.fetches_files

    def plan_files(self, name: str, partials: Sequence[Partial]) -> Sequence[FileScanTask]:
        """Scan tasks of both stores."""
        new = self._scratch.partials(name)
        staged = [partial for partial in partials if partial.hash in new]
        if not staged:
            return self._store.plan_files(name, partials)
        stored = [partial for partial in partials if partial.hash not in new]
        return (*self._store.plan_files(name, stored), *self._scratch.plan_files(name, staged))

    def check_partials(self, name: str, hashes: Iterable[str]) -> dict[str, str]:
        """Faults of partials of either store."""
        chosen, new = set(hashes), self._scratch.partials(name)
        staged = self._scratch.check_partials(name, chosen & new)
        return {**staged, **self._store.check_partials(name, chosen - new)}

    def is_whole(self, name: str, file: str) -> bool:
        """Whether the file of either store has all its bytes."""
        return self._store.is_whole(name, file)

    def mend(self, name: str) -> bool:
        """Have the store mend its copies."""
        return self._store.mend(name)

    # What a refresh would note is let go.

    def write_books(self, name: str, books: Books) -> None:
        """Write nothing."""

    def write_file_states(self, name: str, file_states: FileStateMap) -> None:
        """Write nothing."""

    def write_audit(self, name: str, audit: Audit) -> None:
        """Write nothing."""

    def write_tiles(self, name: str, kind: str, writes: Iterable[TileWrite]) -> None:
        """Write nothing; tiles may be missing at any time."""

    def keep_tiles(self, name: str, kinds: Collection[str]) -> None:
        """Delete nothing."""

    def write_profiles(self, name: str, documents: Mapping[str, Mapping[str, Any]]) -> None:
        """Write nothing; profiles may be missing at any time."""

    def keep_profiles(self, name: str, hashes: Collection[str]) -> None:
        """Delete nothing."""

    def keep(self, manifest: Manifest, since: int | None) -> None:
        """Keep nothing; it only saves time."""

    # What would change a store is refused.

    def establish(self) -> StoreIdentity:
        """The store's identity, if it has one."""
        identity = self._store.identity()
        if identity is None:
            raise _no_draft("give a store an identity")
        return identity

    def serve(self, name: str, version: Version, at_least: int = 0) -> Pointer:
        """Refused."""
        raise _no_draft(f"serve {name} {version}")

    def remove(self, name: str, version: Version) -> None:
        """Refused."""
        raise _no_draft(f"remove {name} {version}")

    def erase(self, name: str) -> None:
        """Refused."""
        raise _no_draft(f"erase {name}")

    def scrub(self, name: str, hashes: Collection[str], sorted_by: str | None = None) -> None:
        """Refused."""
        raise _no_draft(f"erase partials of {name}")

    def write_forgotten(self, forgotten: Forgotten) -> None:
        """Refused."""
        raise _no_draft("forget an entity")

    def end_forgetting(self, names: Collection[str], forgotten: Forgotten) -> None:
        """Refused."""
        raise _no_draft("forget an entity")

    def rename(self, before: str, after: str) -> None:
        """Refused."""
        raise _no_draft(f"rename {before}")

    def remove_partials(
        self, name: str, hashes: Iterable[str], sorted_by: str | None = None, above: float = 0
    ) -> list[str]:
        """Refused."""
        raise _no_draft(f"remove partials of {name}")

    def write_lock(self, model: str, lock: Lock) -> None:
        """Refused."""
        raise _no_draft(f"write the lock of {model}")

    def remove_lock(self, model: str) -> bool:
        """Refused."""
        raise _no_draft(f"remove the lock of {model}")

    def create_service_version(
        self, service: str, version: Version, document: Mapping[str, Any]
    ) -> bool:
        """Refused."""
        raise _no_draft(f"keep {version} of the service {service}")

    def remove_service_version(self, service: str, version: Version) -> bool:
        """Refused."""
        raise _no_draft(f"remove {version} of the service {service}")

    def write_defined_names(self, definitions: str, names: DefinedNames) -> None:
        """Refused."""
        raise _no_draft(f"write the names of {definitions}")

    def compact(self, name: str, partials: Sequence[Partial], sorted_by: str | None = None) -> None:
        """Refused."""
        raise _no_draft(f"compact partials of {name}")

    def regenerate_index(self) -> list[str]:
        """Refused."""
        raise _no_draft("write an index")

    # All else is the store's.

    def identity(self) -> StoreIdentity | None:
        """The store's."""
        return self._store.identity()

    def services(self) -> list[str]:
        """The store's."""
        return self._store.services()

    def service_versions(self, service: str) -> dict[Version, Any]:
        """The store's."""
        return self._store.service_versions(service)

    def defined_names(self, definitions: str) -> DefinedNames | None:
        """The store's."""
        return self._store.defined_names(definitions)

    def forgotten(self) -> Forgotten:
        """The store's."""
        return self._store.forgotten()

    def renames(self) -> Renames:
        """The store's."""
        return self._store.renames()

    def locks(self) -> dict[str, Lock]:
        """The store's."""
        return self._store.locks()

    def features(self) -> list[str]:
        """The store's."""
        return self._store.features()

    def versions(self, name: str) -> list[Version]:
        """The store's."""
        return self._store.versions(name)

    def summaries(self, name: str) -> list[VersionSummary]:
        """The store's."""
        return self._store.summaries(name)

    def pointer(self, name: str) -> Pointer | None:
        """To the planned version, where there is one; else the store's."""
        planned = self._planned.get(name)
        return planned.pointer if planned else self._store.pointer(name)

    def manifest(self, name: str, version: Version) -> Manifest:
        """That of the planned version, or the store's."""
        planned = self._of_plan(name, version)
        return planned.manifest if planned else self._store.manifest(name, version)

    def location(self, name: str, version: Version) -> str:
        """The planned table's folder, or the store's location."""
        if self._of_plan(name, version):
            return str(self._folder)
        return self._store.location(name, version)

    def files(self, name: str, version: Version, parts: Sequence[Part] | None = None) -> list[str]:
        """The files of the planned table, or the store's."""
        planned = self._of_plan(name, version)
        if planned is None:
            return self._store.files(name, version, parts)
        file_of = dict(zip(planned.manifest.parts, planned.files, strict=True))
        return [file_of[part] for part in (planned.manifest.parts if parts is None else parts)]

    def tiles(self, name: str, kind: str) -> Mapping[str, str]:
        """The store's."""
        return self._store.tiles(name, kind)

    def tile_notes(self, name: str, tiles: str, of: str) -> Mapping[str, Any] | None:
        """The store's."""
        return self._store.tile_notes(name, tiles, of)

    def profiles(self, name: str, hashes: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
        """The store's."""
        return self._store.profiles(name, hashes)

    def lease(self, name: str, version: Version) -> AbstractContextManager[None]:
        """The store's; a planned version stays for as long as the draft."""
        return nullcontext() if self._of_plan(name, version) else self._store.lease(name, version)

    def check_manifest(self, manifest: Manifest) -> list[str]:
        """The store's."""
        return self._store.check_manifest(manifest)

    def books(self, name: str) -> Books:
        """The store's, without the hold that publishing a planned version would end."""
        books = self._store.books(name)
        return replace(books, hold=None) if name in self._planned else books

    def file_states(self, name: str) -> FileStateMap:
        """The store's."""
        return self._store.file_states(name)

    def audit(self, name: str) -> Audit | None:
        """The store's."""
        return self._store.audit(name)

    def index(self) -> dict[str, dict[str, Any]]:
        """The store's."""
        return self._store.index()

    def _of_plan(self, name: str, version: Version) -> PlannedVersion | None:
        planned = self._planned.get(name)
        return planned if planned and planned.pointer.version == version else None


@dataclass(frozen=True, slots=True)
class PlannedVersion:
    """A version that only a draft has: as if it were served, for plans of features that read it.

    files: the paths of its parts, in their order.
    """

    manifest: Manifest
    pointer: Pointer
    files: tuple[str, ...]


class _DraftTransaction(Transaction):
    """A table written only to be counted and compared; parts of the served version are read from the store."""

    def __init__(
        self,
        snapshot: Snapshot,
        store: Store,
        folder: Path,
        planned: dict[str, PlannedVersion],
    ) -> None:
        self.snapshot, self._store, self._folder = snapshot, store, folder
        self._planned = planned
        self._files: list[str] = []

    def write_table(
        self, pieces: Iterable[Piece], before: Sequence[Part] = (), after: Sequence[Part] = ()
    ) -> tuple[Part, ...]:
        """Write the pieces; nothing is shared or copied."""
        fresh = [self._write(piece, f"{number}.parquet") for number, piece in enumerate(pieces)]
        fresh_paths = [str(self._folder / part.file) for part in fresh]
        self._files = [*self._served(before), *fresh_paths, *self._served(after)]
        return (*before, *fresh, *after)

    def scan_served(self, parts: Sequence[Part]) -> pl.LazyFrame:
        """Read the store's own files."""
        return pl.scan_parquet(self._served(parts), glob=False)

    def scan_table(self) -> pl.LazyFrame:
        """Read the store's own files and the pieces."""
        return pl.scan_parquet(self._files, glob=False)

    def commit(self, manifest: Manifest, books: Books | None = None) -> Pointer:
        """Let the draft, and nothing else, take the version for the served one."""
        assert manifest.version is not None
        before = self.snapshot.pointer
        pointer = Pointer(manifest.version, before.generation + 1 if before else 1)
        self._planned[manifest.name] = PlannedVersion(manifest, pointer, tuple(self._files))
        return pointer

    def _served(self, parts: Sequence[Part]) -> list[str]:
        latest = self.snapshot.latest
        if not parts or latest is None or latest.version is None:
            return []
        return self._store.files(latest.name, latest.version, parts)

    def _write(self, piece: Piece, file: str) -> Part:
        path = self._folder / file
        if isinstance(piece, StoredPiece):
            shutil.copyfile(piece.file, path)
            return replace(piece.part, file=file)
        piece.rows.write_parquet(path, compression="lz4")
        with path.open("rb") as written:
            content = hashlib.file_digest(written, "sha256").hexdigest()
        return Part(file, piece.rows.height, piece.times, content)


def _no_draft(what: str) -> StoreError:
    return StoreError(f"a plan cannot {what}: it writes nothing to the store")
