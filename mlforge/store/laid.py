"""Tiles beside the files of partials whose they are.

    _tiles/<file>-<kind>.parquet

They follow from those files, so nothing is lost where one is missing or damaged.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from mlforge.failpoints import reach
from mlforge.store import files, packs
from mlforge.store.folders import no_link

_ROW_GROUP = 131_072
_SUFFIX = ".parquet"


@dataclass(frozen=True, slots=True)
class _Entry:
    """The tiles of a kind at a path, and the file whose they are."""

    path: Path
    kind: str
    of: Path


@dataclass(frozen=True)
class TileFolder:
    """The tiles of a feature in its folder; for `grace_s` those of another kind are left to who has looked them up."""

    home: Path
    grace_s: float

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return no_link(self.home / "_tiles")

    def find(self, kind: str) -> dict[Path, Path]:
        """Those of a kind, by the file whose they are."""
        return {entry.of: entry.path for entry in self._entries() if entry.kind == kind}

    def write(self, kind: str, of: Path, rows: pl.DataFrame, notes: Mapping[str, str]) -> None:
        """Keep those of a file, with a checksum within; those of other kinds go."""
        path = self.folder / f"{of.stem}-{kind}{_SUFFIX}"
        with files.storage_errors(path):
            self.folder.mkdir(exist_ok=True)
        files.write_sealed(no_link(path), rows, _ROW_GROUP, notes)
        reach("tiles.written")
        self.sweep(kind)

    def sweep(self, kind: str | None = None) -> None:
        """Delete tiles of files that are gone, and those of other kinds than this one."""
        for entry in self._entries():
            with files.storage_errors(entry.path), suppress(FileNotFoundError):
                another = kind not in (None, entry.kind)
                if not entry.of.exists() or (another and self._is_settled(entry.path)):
                    entry.path.unlink()

    def clean(self) -> None:
        """Delete what a killed writer left half-written."""
        for path in self.folder.glob(".*"):
            path.unlink(missing_ok=True)

    def _is_settled(self, path: Path) -> bool:
        return time.time() - path.stat().st_mtime >= self.grace_s

    def _entries(self) -> Iterator[_Entry]:
        with suppress(FileNotFoundError, NotADirectoryError):
            for path in self.folder.iterdir():
                stem, _, kind = path.stem.rpartition("-")
                if stem and not stem.startswith("."):
                    folder = "_packs" if packs.NAME.fullmatch(stem + _SUFFIX) else "_partials"
                    yield _Entry(no_link(path), kind, self.home / folder / (stem + _SUFFIX))
