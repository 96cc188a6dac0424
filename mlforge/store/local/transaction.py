"""A version in the making: a hidden folder beside the versions of its feature."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import polars as pl

from mlforge.core.disk import bytes_of, hash_file, write_all
from mlforge.core.failpoints import reach
from mlforge.core.manifest import Manifest, Part
from mlforge.core.side_by_side import each_ahead
from mlforge.errors import IntegrityError
from mlforge.frames.shared_results import are_shared, once
from mlforge.store.local import io
from mlforge.store.local.paths import DATA
from mlforge.store.local.recent_parts import RecentParts
from mlforge.store.records import Books
from mlforge.store.transaction import (
    Piece,
    Pointer,
    Snapshot,
    StoredPiece,
    TablePiece,
    Transaction,
)

_ROW_GROUP = 32_768
_FEW_ROWS, _QUICKLY = 250_000, 1
"""Smaller parts are written anew by later drops: they are packed less tightly, in a third of the time.

None is left unpacked: where its bytes are damaged, unpacking fails, while bytes as they are would be read as other values.
"""
_PartFile = tuple[Part, Path]


@dataclass
class LocalTransaction(Transaction):
    """Parts in the folder `staged`, which `publish` makes a version of.

    served: the folder of the served version, whose parts are linked; None before the first.
    """

    snapshot: Snapshot
    staged: Path
    served: Path | None
    publish: Callable[[Path, Manifest, Snapshot], Pointer]
    write_books: Callable[[str, Books], None]
    begin_lists: Callable[[Manifest], None]
    recent: RecentParts
    _parts: tuple[Part, ...] = field(default=(), init=False)

    def write_table(
        self, pieces: Iterable[Piece], before: Sequence[Part] = (), after: Sequence[Part] = ()
    ) -> tuple[Part, ...]:
        """Write fresh parts under hidden names; then each part gets its final name, shared ones as a link."""
        with io.storage_errors(self.staged):
            files = ((piece, self._hidden(number)) for number, piece in enumerate(pieces))
            # While a part is written, the next one is evaluated.
            written = [*each_ahead(lambda file: self._written(*file), files, ahead=1)]
            reach("parts.written")
            self._parts = self._place([*self._shared(before), *written, *self._shared(after)])
            reach("parts.placed")
        self.recent.retain(self._parts)
        return self._parts

    def foresee(self, candidate: Manifest) -> None:
        """Have a thread write the pieces of long lists."""
        self.begin_lists(candidate)

    def take_files(self, files: Sequence[str], parts: Sequence[Part]) -> tuple[Part, ...]:
        """Copy them."""
        with io.storage_errors(self.staged):
            copies = [self._hidden(number) for number in range(len(files))]
            for file, copied in zip(files, copies, strict=True):
                shutil.copyfile(file, copied)
            check_bytes(copies, parts)
            self._parts = self._place(list(zip(parts, copies, strict=True)))
        return self._parts

    def scan_served(self, parts: Sequence[Part]) -> pl.LazyFrame:
        """Read the folder of the served version, unless this process has just written them."""
        if (held := self.recent.rows_of(parts)) is not None:
            return held.lazy()
        return pl.scan_parquet([path for _, path in self._shared(parts)], glob=False)

    def scan_table(self) -> pl.LazyFrame:
        """Read the hidden folder."""
        return pl.scan_parquet([self.staged / part.file for part in self._parts], glob=False)

    def commit(self, manifest: Manifest, books: Books | None = None) -> Pointer:
        """Sync, rename, point; the books last: a commit that fails leaves a held feature held."""
        with io.storage_errors(self.staged):
            pointer = self.publish(self.staged, manifest, self.snapshot)
        if books is not None and books != self.snapshot.books:
            self.write_books(manifest.name, books)
        return pointer

    def _written(self, piece: Piece, path: Path) -> _PartFile:
        """As `write_part`; a part's rows are at hand for the next version."""
        part, path = write_part(piece, path)
        if isinstance(piece, TablePiece):
            self.recent.add(part, piece.rows)
        return part, path

    def _shared(self, parts: Sequence[Part]) -> list[_PartFile]:
        if not parts:
            return []
        assert self.served is not None, "only a served version has parts to share"
        return [(part, self.served / part.file) for part in parts]

    def _hidden(self, number: int) -> Path:
        """The path of a fresh part until it has its name."""
        return self.staged / f".{number}.parquet"

    def _place(self, part_files: Sequence[_PartFile]) -> tuple[Part, ...]:
        """Have parts under their final names: `data.parquet`, or files in a folder of that name, by time."""
        single = len(part_files) == 1
        if not single:
            (self.staged / DATA).mkdir()
        parts = []
        for index, (part, path) in enumerate(part_files):
            name = DATA if single else part_name(index, part.hash)
            put = Path.rename if path.parent == self.staged else io.link_or_copy
            put(path, self.staged / name)
            parts.append(replace(part, file=name))
        return tuple(parts)


def check_bytes(files: Sequence[Path], parts: Sequence[Part]) -> None:
    """Raise IntegrityError for a file whose bytes are not those of its part."""
    for path, part in zip(files, parts, strict=True):
        if hash_file(path) != part.hash:
            raise IntegrityError(f"{part.file}: its bytes are not those that were published")


def part_name(index: int, hash_: str) -> str:
    """The name of a part among several in a version's manifest."""
    return f"{DATA}/{index:06d}-{hash_[:12]}.parquet"


def write_part(piece: Piece, path: Path) -> tuple[Part, Path]:
    """Write a part, which has no name yet, or take the file of a stored one; returns it with its file.

    Rows that several features of a job have alike are encoded once for all of them.
    """
    if isinstance(piece, StoredPiece):
        io.link_or_copy(piece.file, path)
        return piece.part, path
    rows = piece.rows
    if are_shared(rows):
        encoded = once("a part's bytes", tuple, lambda: _Encoded.of(rows), rows)
        with path.open("wb") as file:
            write_all(file, encoded.content)
        return Part("", rows.height, piece.times, encoded.hash), path
    _encode(rows, path)
    return Part("", rows.height, piece.times, hash_file(path)), path


@dataclass(frozen=True, slots=True)
class _Encoded:
    """The bytes of a part's file, and their hash."""

    content: memoryview
    hash: str

    @classmethod
    def of(cls, rows: pl.DataFrame) -> _Encoded:
        """The file of a part with these rows."""
        written = BytesIO()
        _encode(rows, written)
        content = bytes_of(written)
        return cls(content, hashlib.sha256(content).hexdigest())

    def estimated_size(self) -> int:
        """The bytes that it takes."""
        return len(self.content)


def _encode(rows: pl.DataFrame, file: Path | BytesIO) -> None:
    level = _QUICKLY if rows.height < _FEW_ROWS else None
    rows.write_parquet(file, compression="zstd", compression_level=level, row_group_size=_ROW_GROUP)
