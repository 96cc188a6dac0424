"""Spines of training sets: rows in order, read a batch at a time, from a frame or from parquet files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from mlforge.core.arguments import shown
from mlforge.errors import RetrievalError
from mlforge.frames import interop
from mlforge.sources.damage import DAMAGE
from mlforge.sources.place import SUFFIXES, is_skipped

SPILLED = "spine.parquet"


class Spine(ABC):
    """Rows with a fixed order, of which a part is in memory at a time."""

    files: tuple[Path, ...] = ()
    """The files that the rows come from; empty where they come from memory."""

    @cached_property
    @abstractmethod
    def height(self) -> int:
        """The number of rows."""

    @cached_property
    @abstractmethod
    def head(self) -> pl.DataFrame:
        """A frame without rows that has the columns."""

    @abstractmethod
    def pieces(self, columns: Sequence[str] | None, rows: int) -> Iterator[pl.DataFrame]:
        """The rows in order, some columns or all, in frames of about so many rows."""

    def batches(self, rows: int, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
        """The rows in order, some columns or all, in frames of exactly so many rows; the last may have fewer."""
        waiting: list[pl.DataFrame] = []
        held = 0
        for piece in self.pieces(columns, rows):
            waiting.append(piece)
            held += piece.height
            while held >= rows:
                frame = pl.concat(waiting)
                yield frame.head(rows)
                waiting, held = [frame.slice(rows)], held - rows
        if held:
            yield pl.concat(waiting)

    @abstractmethod
    def check_unchanged(self) -> None:
        """Raise RetrievalError where a file has changed since the spine was opened."""


class FrameSpine(Spine):
    """A spine in memory."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame

    @cached_property
    def height(self) -> int:
        """The number of rows."""
        return self.frame.height

    @cached_property
    def head(self) -> pl.DataFrame:
        """A frame without rows that has the columns."""
        return self.frame.clear()

    def pieces(self, columns: Sequence[str] | None, rows: int) -> Iterator[pl.DataFrame]:
        """Slices of the frame."""
        chosen = self.frame if columns is None else self.frame.select(columns)
        yield from chosen.iter_slices(rows)

    def check_unchanged(self) -> None:
        """Frames do not change."""


class FileSpine(Spine):
    """A spine in parquet files, one behind the other."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)
        self._stats = self._stat()

    @cached_property
    def height(self) -> int:
        """The number of rows."""
        with self._readable():
            return int(self._scan().select(pl.len()).collect().item())

    @cached_property
    def head(self) -> pl.DataFrame:
        """A frame without rows that has the columns."""
        with self._readable():
            return pl.DataFrame(schema=self._scan().collect_schema())

    def pieces(self, columns: Sequence[str] | None, rows: int) -> Iterator[pl.DataFrame]:
        """Batches of the files' rows, as the streaming engine reads them."""
        scan = self._scan() if columns is None else self._scan().select(columns)
        with self._readable():
            yield from scan.collect_batches(
                chunk_size=rows, maintain_order=True, engine="streaming"
            )

    def check_unchanged(self) -> None:
        """Raise RetrievalError where a file has changed since the spine was opened."""
        if self._stat() != self._stats:
            raise RetrievalError(
                f"the spine {self.files[0].parent} changed while it was read; make the set again"
            )

    def _scan(self) -> pl.LazyFrame:
        return pl.scan_parquet([*self.files], glob=False, hive_partitioning=False)

    def _stat(self) -> list[tuple[int, int]]:
        with self._readable():
            stats = [file.stat() for file in self.files]
            return [(stat.st_size, stat.st_mtime_ns) for stat in stats]

    def _readable(self) -> Readable:
        return Readable(self.files)


class Readable:
    """A block in which what polars and the system say of unreadable files becomes a RetrievalError."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, DAMAGE):
            first = next(iter(str(error).splitlines()), type(error).__name__)
            where = self.files[0] if len(self.files) == 1 else f"in {self.files[0].parent}"
            raise RetrievalError(
                f"the spine {where} cannot be read ({first}); give parquet files of one schema"
            ) from error


def spine_of(spine: Any, scratch: Path) -> Spine:
    """The spine that a caller gives: a table in memory, a plan, or the path of a parquet file, a folder or several files.

    scratch: a folder for the rows of a plan, which is run once. Raises RetrievalError for anything else, for a
    path that does not exist, and for a plan that fails.
    """
    if isinstance(spine, (str, Path)):
        return FileSpine(_files(Path(spine)))
    if (
        isinstance(spine, (list, tuple))
        and spine
        and all(isinstance(s, (str, Path)) for s in spine)
    ):
        return FileSpine([file for path in spine for file in _files(Path(path))])
    if isinstance(spine, pl.LazyFrame):
        return _spilled(spine, scratch / SPILLED)
    table = interop.taken(spine)
    if isinstance(spine, pl.DataFrame):
        return FrameSpine(spine)
    for name in table.columns:
        if not isinstance(name, str):
            raise RetrievalError(
                f"the spine's column {shown(name)} has no text for a name; rename it"
            )
    return FrameSpine(pl.DataFrame([table.column(name).alias(name) for name in table.columns]))


def _files(path: Path) -> list[Path]:
    """The parquet files of a path, a folder's in the order of their names; hidden ones are not whole, as in a source.

    Raises RetrievalError for a folder without any, and for one that has more in folders below it, whose order no name tells.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise RetrievalError(
            f"the spine {path} does not exist; give a parquet file, or a folder of them"
        )
    files = sorted(
        file
        for file in path.rglob("*")
        if file.name.lower().endswith(SUFFIXES)
        and not any(map(is_skipped, file.relative_to(path).parts))
    )
    if deeper := next((file for file in files if file.parent != path), None):
        raise RetrievalError(
            f"the spine {path} has parquet files in folders below it, such as {deeper.relative_to(path)}; give the files or the "
            "folders as a list, in the order of the rows"
        )
    if not files:
        raise RetrievalError(
            f"the spine {path} has no parquet file; give a parquet file, or a folder of them"
        )
    return files


def _spilled(plan: pl.LazyFrame, path: Path) -> FileSpine:
    """The rows of a plan in a file, written without holding them all."""
    try:
        plan.sink_parquet(path, compression="lz4", maintain_order=True)
    except pl.exceptions.PolarsError as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise RetrievalError(f"the spine's plan fails: {first}") from error
    return FileSpine([path])
