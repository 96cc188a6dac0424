"""Tiles beside the files of partials whose they are.

    _tiles/<file>-<kind>.parquet

They follow from those files, so nothing is lost where one is missing or damaged.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from mlforge.core.failpoints import reach
from mlforge.store.local import io, packs
from mlforge.store.local.paths import no_link

_ROW_GROUP = 131_072
_SUFFIX = ".parquet"
TileWrite = tuple[Path, pl.DataFrame, Mapping[str, str]]
"""The file whose tiles they are, the tiles, and notes to keep with them."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """The tiles of a kind at a path, and the file whose they are."""

    path: Path
    kind: str
    of: Path


@dataclass(frozen=True)
class TileFolder:
    """The tiles of a feature in its folder.

    grace_s: for how long those of another kind are left to readers that have looked them up.
    """

    home: Path
    grace_s: float

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return no_link(self.home / "_tiles")

    def find(self, kind: str) -> dict[Path, Path]:
        """Those of a kind, by the file whose they are."""
        return {entry.of: entry.path for entry in self._entries() if entry.kind == kind}

    def write(self, kind: str, made: Iterable[TileWrite]) -> None:
        """Keep those of files, each with a checksum within; those of other kinds go."""
        with io.storage_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
        for of, rows, notes in made:
            path = no_link(self.folder / f"{of.stem}-{kind}{_SUFFIX}")
            io.write_sealed(path, rows, _ROW_GROUP, notes)
            reach("tiles.written")
        self.sweep(kind)

    def sweep(self, kind: str | None = None) -> None:
        """Delete tiles of files that are gone, and those of other kinds once this one has been there for a while."""
        found = list(self._entries())
        own = [entry.path.stat().st_mtime for entry in found if entry.kind == kind]
        settled = bool(own) and time.time() - min(own) >= self.grace_s
        for entry in found:
            with io.storage_errors(entry.path), suppress(FileNotFoundError):
                if not entry.of.exists() or (settled and entry.kind != kind):
                    entry.path.unlink()

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
