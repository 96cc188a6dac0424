"""A version in the making: parts in a hidden folder of the cache, uploaded when it is committed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from mlforge.core.failpoints import reach
from mlforge.core.manifest import Manifest, Part
from mlforge.store.local import io
from mlforge.store.local.paths import DATA
from mlforge.store.local.transaction import check_bytes, part_name, write_part
from mlforge.store.objects.cache import FeatureCache
from mlforge.store.records import Books
from mlforge.store.transaction import Piece, Pointer, Snapshot, Transaction


@dataclass
class ObjectTransaction(Transaction):
    """Parts in the folder `staged`, which `publish` takes up; parts of the served version are named, not copied."""

    snapshot: Snapshot
    cache: FeatureCache
    staged: Path
    publish: Callable[[ObjectTransaction, Manifest, Books | None], Pointer]
    fresh: dict[str, Path] = field(default_factory=dict, init=False)
    """The files of new parts, by hash."""
    _parts: tuple[Part, ...] = field(default=(), init=False)

    def write_table(
        self, pieces: Iterable[Piece], before: Sequence[Part] = (), after: Sequence[Part] = ()
    ) -> tuple[Part, ...]:
        """Write fresh parts; then each part gets the name that it has in a store on a local disk."""
        with io.storage_errors(self.staged):
            written = [
                write_part(piece, self.staged / f"{n}.parquet") for n, piece in enumerate(pieces)
            ]
        reach("parts.written")
        self.fresh = {part.hash: path for part, path in written}
        self._parts = self._named([*before, *(part for part, _ in written), *after])
        return self._parts

    def take_files(self, files: Sequence[str], parts: Sequence[Part]) -> tuple[Part, ...]:
        """Copy them to the hidden folder."""
        with io.storage_errors(self.staged):
            copies = [self.staged / f"{part.hash}.parquet" for part in parts]
            for file, copied in zip(files, copies, strict=True):
                shutil.copyfile(file, copied)
            check_bytes(copies, parts)
        self.fresh = {part.hash: path for part, path in zip(parts, copies, strict=True)}
        self._parts = self._named(parts)
        return self._parts

    def _named(self, parts: Sequence[Part]) -> tuple[Part, ...]:
        """The parts under the names that they have in a store on a local disk."""
        names = (
            [DATA] if len(parts) == 1 else [part_name(n, part.hash) for n, part in enumerate(parts)]
        )
        return tuple(replace(part, file=name) for part, name in zip(parts, names, strict=True))

    def scan_served(self, parts: Sequence[Part]) -> pl.LazyFrame:
        """Read them from the cache, fetched where they are not there."""
        return pl.scan_parquet(self.cache.fetch_parts(parts), glob=False)

    def scan_table(self) -> pl.LazyFrame:
        """Read the hidden folder, and parts of the served version from the cache."""
        shared = [part for part in self._parts if part.hash not in self.fresh]
        self.cache.fetch_parts(shared)
        files = [self.fresh.get(part.hash) or self.cache.part(part.hash) for part in self._parts]
        return pl.scan_parquet(files, glob=False)

    def commit(self, manifest: Manifest, books: Books | None = None) -> Pointer:
        """Upload, create the manifest, then serve it with the books in one step."""
        with io.storage_errors(self.staged):
            return self.publish(self, manifest, books)
