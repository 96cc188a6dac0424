"""Tiles beside the files of partials that they follow from.

    _tiles/<file>-<kind>.parquet

They may be deleted at any time; tiles that are damaged, or of other bytes, are as good as none.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl

from mlforge.core.failpoints import reach
from mlforge.sources.damage import MISREAD
from mlforge.store.file_tasks import TileWrite, mark_of
from mlforge.store.local import io, packs
from mlforge.store.local.paths import State, no_link, state_of

_NOTES = "mlforge.tiles"
_ROW_GROUP = 131_072
_SUFFIX = ".parquet"


@dataclass(frozen=True, slots=True)
class _Entry:
    """Tiles of a kind at a path, and the file that they follow from."""

    path: Path
    kind: str
    of: Path


@dataclass(frozen=True)
class TileFolder:
    """The tiles of a feature in its folder.

    grace_s: for how many seconds tiles of another kind are left to readers that have looked them up.
    """

    home: Path
    grace_s: float

    @property
    def folder(self) -> Path:
        """The folder of tiles; StoreError if it is a link."""
        return no_link(self.home / "_tiles")

    def find(self, kind: str) -> dict[str, str]:
        """Files of tiles of a kind, by the file that they follow from."""
        return {str(entry.of): str(entry.path) for entry in self._entries() if entry.kind == kind}

    def notes(self, tiles: str, of: str) -> Mapping[str, Any] | None:
        """The notes of a tile file; None unless it is whole and was built from the bytes that `of` has now."""
        try:
            return _notes(state_of(Path(tiles)), state_of(Path(of)))
        except OSError:
            return None

    def write(self, kind: str, writes: Iterable[TileWrite]) -> None:
        """Write tiles, each file with a checksum within; tiles of other kinds go in time."""
        with io.storage_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
        for write in writes:
            of = Path(write.of)
            path = no_link(self.folder / f"{of.stem}-{kind}{_SUFFIX}")
            notes = json.dumps({"of": io.seal_of(of), **write.notes})
            io.write_sealed(path, write.rows, _ROW_GROUP, {_NOTES: notes})
            reach("tiles.written")
        self.sweep(kind)

    def sweep(self, kind: str | None = None) -> None:
        """Delete tiles of deleted files, and tiles of other kinds once this kind is older than the grace period.

        A kind whose name has another length serves another purpose, and stays.
        """
        entries = list(self._entries())
        write_times = [entry.path.stat().st_mtime for entry in entries if entry.kind == kind]
        settled = bool(write_times) and time.time() - min(write_times) >= self.grace_s
        for entry in entries:
            with io.storage_errors(entry.path), suppress(FileNotFoundError):
                is_replaced = settled and len(entry.kind) == len(kind or "") and entry.kind != kind
                if not entry.of.exists() or is_replaced:
                    entry.path.unlink()

    def scrub(self, hashes: Collection[str]) -> None:
        """Delete tiles of deleted files, and those that were made of one of these partials, beside whatever file they are."""
        marks = set(map(mark_of, hashes))
        self.sweep()
        for entry in self._entries():
            notes = _notes_of(entry.path)
            if notes is None or marks.intersection(notes.get("covers", ())):
                with io.storage_errors(entry.path):
                    entry.path.unlink(missing_ok=True)

    def clean(self) -> None:
        """Delete what a killed writer left half-written."""
        for path in self.folder.glob(".*"):
            path.unlink(missing_ok=True)

    def _entries(self) -> Iterator[_Entry]:
        with suppress(FileNotFoundError, NotADirectoryError):
            for path in self.folder.iterdir():
                stem, _, kind = path.stem.rpartition("-")
                if stem and not stem.startswith("."):
                    folder = "_packs" if packs.NAME.fullmatch(stem + _SUFFIX) else "_partials"
                    yield _Entry(no_link(path), kind, self.home / folder / (stem + _SUFFIX))


@lru_cache(maxsize=65_536)  # a checksum reads all of a file, and a refresh asks several times
def _notes(tiles: State, of: State) -> Mapping[str, Any] | None:
    notes = _notes_of(Path(tiles[0]))
    try:
        return notes if notes is not None and notes["of"] == io.seal_of(Path(of[0])) else None
    except MISREAD:
        return None


def _notes_of(path: Path) -> Mapping[str, Any] | None:
    """The notes of a file of tiles; None unless it is whole."""
    try:
        whole = io.is_sealed(path)
        notes = json.loads(pl.read_parquet_metadata(path)[_NOTES]) if whole else None
    except MISREAD:
        return None
    return notes if isinstance(notes, dict) else None
