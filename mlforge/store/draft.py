"""A draft: a store as it would be, for plans. It reads through to the store and writes to a folder of its own."""

from __future__ import annotations

import hashlib
import inspect
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

import polars as pl

from mlforge.core.manifest import Manifest, Part, Partial
from mlforge.core.values import Version
from mlforge.errors import StoreError
from mlforge.store.base import Store
from mlforge.store.file_tasks import FileScanTask, PartialLocation, PartialWrite
from mlforge.store.records import Books, StoreIdentity
from mlforge.store.transaction import Piece, Pointer, Snapshot, StoredPiece, Transaction

P = ParamSpec("P")
R = TypeVar("R")
Method: TypeAlias = Callable[Concatenate[Any, P], R]


def _of_store(method: Method[P, R]) -> Method[P, R]:
    """A method that asks the store."""

    def asked(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        answer: R = getattr(self._store, method.__name__)(*args, **kwargs)
        return answer

    return asked


def _let_go(method: Method[P, None]) -> Method[P, None]:
    """A method that does nothing."""

    def nothing(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Do nothing."""

    return nothing


def _refused(method: Method[P, R], deed: str) -> Method[P, R]:
    """A method that raises StoreError. deed: what a plan does not do, with arguments of the method in braces."""
    signature = inspect.signature(method)

    def refuse(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        raise _no_draft(deed.format_map(signature.bind(self, *args, **kwargs).arguments))

    return refuse


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

    # What a refresh would note is let go; tiles and profiles may be missing at any time, and what is kept in memory only saves time.

    write_books = _let_go(Store.write_books)
    write_file_states = _let_go(Store.write_file_states)
    write_audit = _let_go(Store.write_audit)
    write_tiles = _let_go(Store.write_tiles)
    keep_tiles = _let_go(Store.keep_tiles)
    write_profiles = _let_go(Store.write_profiles)
    keep_profiles = _let_go(Store.keep_profiles)
    keep = _let_go(Store.keep)

    # What would change a store is refused.

    def establish(self) -> StoreIdentity:
        """The store's identity, if it has one."""
        identity = self._store.identity()
        if identity is None:
            raise _no_draft("give a store an identity")
        return identity

    serve = _refused(Store.serve, "serve {name} {version}")
    remove = _refused(Store.remove, "remove {name} {version}")
    erase = _refused(Store.erase, "erase {name}")
    scrub = _refused(Store.scrub, "erase partials of {name}")
    write_forgotten = _refused(Store.write_forgotten, "forget an entity")
    end_forgetting = _refused(Store.end_forgetting, "forget an entity")
    rename = _refused(Store.rename, "rename {before}")
    remove_partials = _refused(Store.remove_partials, "remove partials of {name}")
    write_lock = _refused(Store.write_lock, "write the lock of {model}")
    remove_lock = _refused(Store.remove_lock, "remove the lock of {model}")
    create_service_version = _refused(
        Store.create_service_version, "keep {version} of the service {service}"
    )
    remove_service_version = _refused(
        Store.remove_service_version, "remove {version} of the service {service}"
    )
    write_defined_names = _refused(Store.write_defined_names, "write the names of {definitions}")
    compact = _refused(Store.compact, "compact partials of {name}")
    regenerate_index = _refused(Store.regenerate_index, "write an index")

    # All else is the store's, but for planned versions.

    identity = _of_store(Store.identity)
    services = _of_store(Store.services)
    service_versions = _of_store(Store.service_versions)
    defined_names = _of_store(Store.defined_names)
    forgotten = _of_store(Store.forgotten)
    renames = _of_store(Store.renames)
    locks = _of_store(Store.locks)
    features = _of_store(Store.features)
    versions = _of_store(Store.versions)
    summaries = _of_store(Store.summaries)
    tiles = _of_store(Store.tiles)
    tile_notes = _of_store(Store.tile_notes)
    profiles = _of_store(Store.profiles)
    check_manifest = _of_store(Store.check_manifest)
    file_states = _of_store(Store.file_states)
    audit = _of_store(Store.audit)
    index = _of_store(Store.index)
    is_whole = _of_store(Store.is_whole)
    mend = _of_store(Store.mend)

    def pointer(self, name: str) -> Pointer | None:
        """To the planned version, where there is one; else the store's."""
        planned = self._planned.get(name)
        return planned.pointer if planned else self._store.pointer(name)

    def manifest(self, name: str, version: Version) -> Manifest:
        """The manifest of the planned version, or the store's."""
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

    def lease(self, name: str, version: Version) -> AbstractContextManager[None]:
        """The store's; a planned version stays for as long as the draft."""
        return nullcontext() if self._of_plan(name, version) else self._store.lease(name, version)

    def books(self, name: str) -> Books:
        """The store's, without the hold that publishing a planned version would end."""
        books = self._store.books(name)
        return replace(books, hold=None) if name in self._planned else books

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
