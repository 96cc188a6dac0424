"""Files of a build's tasks in a hidden folder beside the feature's versions."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import polars as pl

from mlforge.core import machine
from mlforge.core.disk import hash_file
from mlforge.core.manifest import Part, Partial
from mlforge.errors import IntegrityError, VersionConflict
from mlforge.store.file_tasks import PartialWrite
from mlforge.store.local import io, staging
from mlforge.store.local.feature_folder import FeatureFolder
from mlforge.store.local.partials import PartialStore
from mlforge.store.local.transaction import write_part
from mlforge.store.task_files import TaskFiles
from mlforge.store.transaction import TablePiece

FOLDER = ".tasks"
_NOTED_BYTES = 1 << 20
"""Smaller files are hashed in less time than a note of them takes."""


class LocalTaskFiles(TaskFiles):
    """A folder of files, each written under another name and renamed. After a power failure a file may be damaged: then it is none.

    A large one has a note of what it was when it was hashed, so that other processes of the machine need not hash it again.
    partials: the feature's.
    """

    def __init__(self, folder: Path, partials: PartialStore) -> None:
        self._folder, self._partials = folder, partials

    @classmethod
    def of(cls, feature: FeatureFolder) -> Self:
        """The files of a feature's builds."""
        return cls(feature.path / FOLDER, feature.partial_store)

    def prepare(self) -> None:
        """Make the folder."""
        with io.storage_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)

    def check_open(self) -> None:
        """Look for the folder."""
        if not self._folder.is_dir():
            raise VersionConflict(
                f"{self._folder} is gone: the build that this task is of has ended, so nothing is written"
            )

    def share(self, partials: Sequence[Partial]) -> None:
        """Wait for those that are being written: whoever reaches this folder reads the feature's partials."""
        self._partials.behind.wait()

    def write_document(self, document: Mapping[str, Any], name: str | None = None) -> str:
        """Write `NAME.json`."""
        text = json.dumps(document, sort_keys=True)
        name = name or hashlib.sha256(text.encode()).hexdigest()
        with self._scratch() as path:
            path.write_text(text, encoding="utf-8")
            self._place(path, f"{name}.json")
        return name

    def document(self, name: str) -> Any:
        """Read `NAME.json`."""
        path = self._fetched(f"{name}.json")
        try:
            return None if path is None else io.read_json(path)
        except IntegrityError:
            return None

    def write_frame(self, frame: pl.DataFrame) -> str:
        """Write `HASH.parquet`."""
        return self.write_part(TablePiece(frame, None)).hash

    def write_part(self, piece: TablePiece) -> Part:
        """Write `HASH.parquet`."""
        with self._scratch() as path:
            part, _ = write_part(piece, path)
            self._place_frame(path, part.hash)
        return part

    def frame(self, hash_: str) -> Path | None:
        """The path of `HASH.parquet`."""
        path = self._fetched(f"{hash_}.parquet")
        if path is None:
            return None
        return path if self._is_as_hashed(path) or hash_file(path) == hash_ else None

    def parts(self, hashes: Sequence[str]) -> list[Path | None]:
        """The paths of `HASH.parquet`."""
        return [*map(self.frame, hashes)]

    def write_partials(
        self, writes: Sequence[PartialWrite], sorted_by: str | None = None
    ) -> list[str]:
        """Write files of one partial, or packs, as `HASH.parquet`."""
        names = []
        with self._scratch() as folder:
            folder.mkdir()
            written = PartialStore(folder, self._partials.packing)
            written.write(writes, sorted_by)
            for path in written.files():
                names.append(hash_file(path))
                self._place_frame(path, names[-1])
        return names

    def lacks_partials(self, files: Sequence[str]) -> set[str]:
        """Compare the bytes of each with its name."""
        return {name for name in files if self.frame(name) is None}

    def take_partials(self, files: Sequence[str]) -> None:
        """Link them to where the store has its own."""
        self._partials.adopt([self._folder / f"{name}.parquet" for name in files])

    def clear(self) -> None:
        """Take the folder out of sight in one step, so that nothing is written there any more, and delete it."""
        if self._folder.is_dir():
            hidden = self._folder.with_name(staging.new_name())
            with io.storage_errors(self._folder), suppress(FileNotFoundError):
                self._folder.rename(hidden)
            shutil.rmtree(hidden, ignore_errors=True)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A path to write to, or for a folder, which is gone once the block ends."""
        path = self._folder / f".{uuid.uuid4().hex}"
        self.check_open()
        with io.storage_errors(path):
            try:
                yield path
            finally:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                path.unlink(missing_ok=True)

    def _place(self, path: Path, name: str) -> None:
        """Give a written file its name, in place of one that has it."""
        path.replace(self._folder / name)

    def _place_frame(self, path: Path, hash_: str) -> None:
        """Give a file that was hashed its name, and note what it is."""
        place = self._folder / f"{hash_}.parquet"
        self._place(path, place.name)
        if place.stat().st_size >= _NOTED_BYTES:
            _note_of(place).write_text(_identity(place), encoding="ascii")

    def _is_as_hashed(self, path: Path) -> bool:
        """Whether a file is the one that was hashed, and was not written to since; False where that is not known."""
        try:
            note = _note_of(path).read_text(encoding="ascii")
            return machine.boot() != "" and note == _identity(path)
        except (OSError, ValueError):
            return False

    def _fetched(self, name: str) -> Path | None:
        """The path of a file; None where there is none."""
        path = self._folder / name
        return path if path.is_file() else None


def _note_of(path: Path) -> Path:
    return path.with_suffix(".hashed")


def _identity(path: Path) -> str:
    """A text that tells a file from any other of this machine, and from itself once it was written to, until the machine starts anew."""
    at = path.stat()
    return f"{machine.boot()} {at.st_dev} {at.st_ino} {at.st_size} {at.st_mtime_ns}"
