"""Small files decoded some at a time: those of one schema in one table, which takes half the time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa

from mlforge.errors import UnreadableFile
from mlforge.sources import parquet_reader
from mlforge.sources.damage import UNDECODABLE
from mlforge.sources.file_bytes import FileBytes, read_bytes
from mlforge.sources.parquet_reader import Content
from mlforge.sources.polars_types import to_frame
from mlforge.sources.source_file import SourceFile

_DECODED_BYTES = 32 << 20  # that files may claim together
_LONG_ROWS = 8_192  # of a file, on average: so many need not lie in one piece with those of others


@dataclass(frozen=True, slots=True)
class DecodedFiles:
    """Files of one schema, how many rows each has, and the rows of all of them, one's behind the other's."""

    files: Sequence[FileBytes]
    heights: Sequence[int]
    table: pa.Table

    def contents(self) -> dict[str, Content]:
        """The content of each file, by path; none where polars takes fault at the rows of one."""
        try:
            frame, left_out = to_frame(self.table)
        except UNDECODABLE:
            return {}
        contents, start = {}, 0
        for raw, height in zip(self.files, self.heights, strict=True):
            own = frame.slice(start, height)
            contents[raw.path] = Content(own, raw.hash, raw.stat, left_out)
            start += height
        return contents


def bytes_of_each(files: Iterable[SourceFile], max_bytes: int | None) -> list[FileBytes]:
    """The bytes of those of the files that can be read."""
    raws = []
    for file in files:
        try:
            raws.append(read_bytes(file, max_bytes))
        except UnreadableFile:
            continue
    return raws


def decoded(raws: Sequence[FileBytes], max_bytes: int | None) -> Iterator[DecodedFiles]:
    """The files, decoded; without those that may be at fault, which are to be tried alone. max_bytes: the memory that one may take."""
    tables = parquet_reader.tables_of(raws, max_bytes, _DECODED_BYTES)
    for _, alike in groupby(zip(raws, tables, strict=True), key=_schema):
        own = [(raw, table) for raw, table in alike if table is not None]
        if not own:
            continue
        try:
            together = pa.concat_tables([table for _, table in own])
            if together.num_rows < _LONG_ROWS * len(own):
                # Polars takes over each piece of each column by itself: of few rows, that takes longer than to copy them.
                together = together.combine_chunks()
        except UNDECODABLE:
            continue
        yield DecodedFiles([raw for raw, _ in own], [t.num_rows for _, t in own], together)


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
