"""Tiles beside the files of partials that they follow from.

    _tiles/<file>-<kind>.<content>.parquet     tiles
    _tiles/<file>-<kind>.<content>.arrow       lists of rows that are mapped into memory

A file is named by its content, so that a reader who has read its notes never scans the rows of another: new tiles take the
place of older ones by being newer, and those go after a while. An earlier release named files without their content.

Tiles may be deleted at any time; those that are damaged, or of other bytes, are as good as none.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl

from mlforge.core.failpoints import reach
from mlforge.core.forgotten import origin
from mlforge.sources.damage import MISREAD
from mlforge.store import mapped_rows
from mlforge.store.file_tasks import TileWrite, mark_of
from mlforge.store.local import io, packs
from mlforge.store.local.paths import State, no_link, state_of
from mlforge.store.local.sealed_file import Sealed, is_sealed, seal_of

_NOTES = "mlforge.tiles"
_ROW_GROUP = 131_072
_SUFFIX = ".parquet"
_CONTENT = 16  # of the digits of a checksum
_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class _Entry:
    """Tiles of a kind at a path, and the file that they follow from."""

    path: Path
    kind: str
    of: Path

    @property
    def written_at(self) -> float:
        """When the file was written, in seconds since 1970; before all others if it is gone."""
        try:
            return self.path.stat().st_mtime
        except FileNotFoundError:
            return _NEVER


@dataclass(frozen=True)
class TileFolder:
    """The tiles of a feature in its folder.

    grace_s: for how many seconds tiles are left to readers that have looked them up once others take their place.
    """

    home: Path
    grace_s: float

    @property
    def folder(self) -> Path:
        """The folder of tiles; StoreError if it is a link."""
        return no_link(self.home / "_tiles")

    def find(self, kind: str) -> dict[str, str]:
        """Files of tiles of a kind, the newest by each file that they follow from."""
        alike = (entry for entry in self._entries() if entry.kind == kind)
        return {str(entry.of): str(entry.path) for entry in _newest(alike)}

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
            notes = {**write.notes, "of": seal_of(of)}
            stem = self.folder / f"{of.stem}-{kind}"
            if isinstance(write.rows, pl.DataFrame):
                _write_tiles(stem, write.rows, notes)
            else:
                _write_lists(stem, write.rows, notes)
            reach("tiles.written")
        self.sweep(kind)

    def sweep(self, kind: str | None = None) -> None:
        """Delete tiles of deleted files, and once the grace period is over tiles that newer ones, or those of this kind, replace.

        A kind whose name has another length serves another purpose, and stays.
        """
        entries = list(self._entries())
        newest = {(entry.of, entry.kind): entry for entry in _newest(entries)}
        settled_s = time.time() - self.grace_s
        oldest_s = min(
            (entry.written_at for entry in newest.values() if entry.kind == kind), default=_NEVER
        )
        is_settled = _NEVER < oldest_s <= settled_s
        for entry in entries:
            last = newest[entry.of, entry.kind]
            is_older = entry != last and last.written_at <= settled_s
            is_other = is_settled and len(entry.kind) == len(kind or "") and entry.kind != kind
            if is_older or is_other or not entry.of.exists():
                with io.storage_errors(entry.path):
                    entry.path.unlink(missing_ok=True)

    def of_other_kinds(self, kinds: Collection[str]) -> list[Path]:
        """Files of other kinds that are older than the grace period."""
        settled_s = time.time() - self.grace_s
        others = (entry for entry in self._entries() if entry.kind not in kinds)
        return [entry.path for entry in others if entry.written_at <= settled_s]

    def delete(self, paths: Iterable[Path]) -> None:
        """Delete files of tiles."""
        for path in paths:
            with io.storage_errors(path):
                path.unlink(missing_ok=True)

    def scrub(self, hashes: Collection[str]) -> None:
        """Delete tiles of deleted files, and those that were made of one of these partials, beside whatever file they are."""
        # An earlier release gave a rewritten partial the mark of the one that it was rewritten from.
        marks = {mark for hash_ in hashes for mark in (mark_of(hash_), mark_of(origin(hash_)))}
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
                    of = self.home / folder / (stem + _SUFFIX)
                    yield _Entry(no_link(path), kind.partition(".")[0], of)


def _newest(entries: Iterable[_Entry]) -> Iterator[_Entry]:
    """Of tiles of one kind and one file the last written."""
    alike: dict[tuple[Path, str], list[_Entry]] = defaultdict(list)
    for entry in entries:
        alike[entry.of, entry.kind].append(entry)
    for several in alike.values():
        if len(several) == 1:
            yield several[0]
        else:
            yield max(several, key=lambda entry: (entry.written_at, entry.path))


def _write_tiles(stem: Path, rows: pl.DataFrame, notes: Mapping[str, Any]) -> None:
    tiles = Sealed.of(rows, _ROW_GROUP, {_NOTES: json.dumps(notes)})
    path = no_link(_named(stem, tiles.checksum, _SUFFIX))
    # By its checksum a file that a power failure spoils is as good as none.
    tiles.write(path, durable=False)


def _write_lists(stem: Path, frames: Iterable[pl.DataFrame], notes: Mapping[str, Any]) -> None:
    # What they were made of, and how, tells their content.
    content = hashlib.sha256(json.dumps(notes).encode()).hexdigest()
    with io.replacing(no_link(_named(stem, content, mapped_rows.SUFFIX)), folder=False) as path:
        mapped_rows.write_mapped(path, frames, notes)


def _named(stem: Path, content: str, suffix: str) -> Path:
    return stem.with_name(f"{stem.name}.{content[:_CONTENT]}{suffix}")


@lru_cache(maxsize=65_536)  # a checksum reads all of a file, and a refresh asks several times
def _notes(tiles: State, of: State) -> Mapping[str, Any] | None:
    notes = _notes_of(Path(tiles[0]))
    try:
        return notes if notes is not None and notes["of"] == seal_of(Path(of[0])) else None
    except MISREAD:
        return None


def _notes_of(path: Path) -> Mapping[str, Any] | None:
    """The notes of a file of tiles; None unless it is whole."""
    try:
        if path.suffix == mapped_rows.SUFFIX:
            return mapped_rows.mapped_notes(path)
        whole = is_sealed(path)
        notes = json.loads(pl.read_parquet_metadata(path)[_NOTES]) if whole else None
    except MISREAD:
        return None
    return notes if isinstance(notes, dict) else None
