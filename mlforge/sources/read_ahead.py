"""Small files that threads read, hash and decode before they are asked for, while the ones before are worked on.

Nothing depends on it: what cannot be read or decoded so is left to whoever asks for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa

from mlforge.core.side_by_side import CORES, begin
from mlforge.errors import UnreadableFile
from mlforge.sources import parquet_reader
from mlforge.sources.damage import UNDECODABLE
from mlforge.sources.parquet_reader import Content, FileBytes
from mlforge.sources.polars_types import to_frame
from mlforge.sources.source_file import SourceFile

_FEW_FILES = 4  # are read sooner than threads are woken
_RUN_FILES, _RUN_BYTES, _RUN_DECODED_BYTES = 16, 4 << 20, 32 << 20
_RUNS = CORES + 1  # at a time
_Run = tuple[Sequence[SourceFile], Future[dict[str, "Early"]] | None]


@dataclass(frozen=True, slots=True)
class Early:
    """A file's bytes, and their content if it was decoded, too."""

    raw: FileBytes
    content: Content | None


@dataclass(frozen=True, slots=True)
class Wishes:
    """The files that will be read, the hashes of contents that will be decoded, and the memory that a file may take.

    Both are asked by threads.
    """

    reads: Callable[[SourceFile], bool]
    decodes: Callable[[str], bool]
    max_bytes: int | None = None


class ReadAhead:
    """An iterator over files in their order, for each of which `take` tells what was read of it meanwhile.

    While a large file is worked on none is read ahead.
    """

    def __init__(self, files: Sequence[SourceFile], wishes: Wishes) -> None:
        self._files, self._wishes = files, wishes
        self._early: dict[str, Early] = {}

    def __iter__(self) -> Generator[SourceFile]:
        if len(self._files) < _FEW_FILES:
            yield from self._files
            return
        waiting, begun = deque(_runs(self._files)), deque[_Run]()
        try:
            while waiting or begun:
                self._fill(begun, waiting)
                run, reading = begun.popleft()
                self._early = reading.result() if reading else {}
                yield from run
        finally:
            self._early = {}
            for _, reading in begun:
                if reading is not None:
                    reading.cancel()

    def take(self, file: SourceFile) -> Early | None:
        """The file as it was read ahead; None if it was not, or was asked for before."""
        return self._early.pop(file.path, None)

    def _fill(self, begun: deque[_Run], waiting: deque[Sequence[SourceFile]]) -> None:
        """Begin with further runs, up to a large file."""
        while waiting and len(begun) < _RUNS:
            if _is_small(waiting[0][0]):
                run = waiting.popleft()
                begun.append((run, begin(_read, run, self._wishes)))
                continue
            if not begun:
                begun.append((waiting.popleft(), None))
            break


def _is_small(file: SourceFile) -> bool:
    return file.remote is None and file.stat.size <= _RUN_BYTES


def _runs(files: Sequence[SourceFile]) -> Iterator[Sequence[SourceFile]]:
    """The files in runs: small ones some at a time, every other alone."""
    run: list[SourceFile] = []
    size = 0
    for file in files:
        is_full = len(run) == _RUN_FILES or size + file.stat.size > _RUN_BYTES
        if run and (is_full or not _is_small(file)):
            yield run
            run, size = [], 0
        run.append(file)
        size += file.stat.size
    if run:
        yield run


def _read(files: Sequence[SourceFile], wishes: Wishes) -> dict[str, Early]:
    """The files of a run that can be read, by path."""
    raws = []
    for file in filter(wishes.reads, files):
        try:
            raws.append(parquet_reader.file_bytes(file, wishes.max_bytes))
        except UnreadableFile:
            continue
    by_hash = {raw.hash: raw for raw in reversed(raws)}  # of files alike the first
    new = [raw for raw in by_hash.values() if wishes.decodes(raw.hash)]
    contents = _contents(new[::-1], wishes.max_bytes)
    return {raw.path: Early(raw, contents.get(raw.path)) for raw in raws}


def _contents(raws: Sequence[FileBytes], max_bytes: int | None) -> dict[str, Content]:
    """The contents of files, by path; those of one schema become frames together, which takes half the time."""
    tables = parquet_reader.tables_of(raws, max_bytes, _RUN_DECODED_BYTES)
    contents: dict[str, Content] = {}
    for _, alike in groupby(zip(raws, tables, strict=True), key=_schema):
        own = [(raw, table) for raw, table in alike if table is not None]
        try:
            contents.update(_as_one(own) if own else {})
        except UNDECODABLE:
            continue
    return contents


def _schema(decoded: tuple[FileBytes, pa.Table | None]) -> object:
    """A value that is equal for tables whose rows can be of one frame."""
    raw, table = decoded
    if table is None or any(map(_has_dictionary, table.schema.types)):
        return raw.path
    return _Schema(table.schema)


@dataclass(frozen=True, slots=True)
class _Schema:
    """A schema that is equal to another only if their metadata are, too."""

    of: pa.Schema

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Schema) and self.of.equals(other.of, check_metadata=True)

    __hash__ = None  # type: ignore[assignment]


def _has_dictionary(dtype: pa.DataType) -> bool:
    """Whether a type holds categories: how they are held depends on those of the rows beside them."""
    if pa.types.is_dictionary(dtype):
        return True
    return any(_has_dictionary(dtype.field(index).type) for index in range(dtype.num_fields))


def _as_one(decoded: Sequence[tuple[FileBytes, pa.Table]]) -> dict[str, Content]:
    """The contents of tables of one schema. Raises one of UNDECODABLE."""
    # In one piece: polars takes over each piece of each column by itself, and these are of a few rows.
    together = pa.concat_tables([table for _, table in decoded]).combine_chunks()
    frame, left_out = to_frame(together)
    contents, start = {}, 0
    for raw, table in decoded:
        own = frame.slice(start, table.num_rows)
        contents[raw.path] = Content(own, raw.hash, raw.stat, left_out)
        start += table.num_rows
    return contents
