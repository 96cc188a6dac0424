"""Reading one parquet file that anybody may have written, without trusting it.

Everything goes through Arrow's reader, then to polars. Polars' own reader is faster, but a flipped
byte in a page header can make it abort the process, it panics over zones such as `+05:30`, clamps
INT96 and misreads some nested files; Arrow refuses what is damaged and verifies page checksums.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mlforge.core.failpoints import reach
from mlforge.errors import UnreadableFile
from mlforge.sources import sandbox, wide_integers
from mlforge.sources.damage import UNDECODABLE
from mlforge.sources.file_bytes import FileBytes, read_bytes, too_large, why_not
from mlforge.sources.polars_types import held_by_polars, pandas_ranges, to_frame
from mlforge.sources.source_file import FileStat, SourceFile

_MAGIC = b"PAR1"
_SEAM = _MAGIC + _MAGIC
_ENCRYPTED = b"PARE"
# What Arrow says of columns for which it would need a key.
_DECRYPT = "decrypt"
_HEAD, _TAIL = len(_MAGIC), 4 + len(_MAGIC)
_FEW_ROWS = 100_000  # are decoded sooner than threads are woken
# The least that a value takes in a frame: pages can claim far more values than they have bytes.
_WIDTHS = {"INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 16}


@dataclass(frozen=True, slots=True)
class Content:
    """A file's rows, the SHA-256 of its bytes, and its stat.

    left_out: columns that polars cannot hold, or that cannot be read, each with the reason.
    """

    frame: pl.DataFrame
    hash: str
    stat: FileStat
    left_out: Mapping[str, str]


def completeness(path: Path) -> str | None:
    """None if the file begins and ends as whole parquet does, else what is amiss; reads 12 bytes."""
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(_HEAD)
            file.seek(max(0, size - _TAIL))
            return _amiss(head, file.read(_TAIL), size)
    except OSError as error:
        return why_not(error)


def read(
    file: SourceFile, max_bytes: int | None = None, *, in_own_process: bool = False
) -> Content:
    """Read a whole file: rows and hash are of the same bytes.

    Time zones that polars does not know become UTC, INT96 becomes microseconds, page checksums are
    verified where the file has them. `max_bytes` bounds the size in memory that the file claims, and, up
    to as much again, what decoding it takes. in_own_process: slower, and even a file that would end its
    reader's process is only refused.
    Raises UnreadableFile if it is damaged, unfinished, encrypted or too large, NotReadNow if it cannot be
    opened or changed meanwhile.
    """
    return decode(read_bytes(file, max_bytes), max_bytes, in_own_process=in_own_process)


def decode(
    raw: FileBytes, max_bytes: int | None = None, *, in_own_process: bool = False
) -> Content:
    """The content of a file's bytes, as `read` gives it. Raises UnreadableFile."""
    reason = fault_of(raw.content) or _two_in_one(raw.content)
    if reason is not None:
        raise UnreadableFile(f"{raw.path}: {reason}")
    if in_own_process:
        table = sandbox.decode(raw.content, raw.path, max_bytes)
    else:
        reach("file.decoding")
        table = table_of(raw.content, raw.path, max_bytes)
    try:
        frame, left_out = to_frame(table)
    except UNDECODABLE as error:
        raise _undecodable(raw.path, error) from error
    return Content(frame, raw.hash, raw.stat, left_out)


def table_of(raw: bytes, path: str, max_bytes: int | None) -> pa.Table:
    """The table of a file's bytes, in types that polars knows; raises UnreadableFile."""
    budget = None if max_bytes is None else 2 * max_bytes
    try:
        with sandbox.at_most(budget):
            table = _decode(raw, path, max_bytes)
    except MemoryError as error:
        raise _takes_too_much(path, max_bytes) from error
    except UNDECODABLE as error:
        raise _undecodable(path, error) from error
    if budget is not None and table.nbytes > budget:
        raise _takes_too_much(path, max_bytes)
    return table


def tables_of(
    raws: Sequence[FileBytes], max_bytes: int | None, claimed_bytes: int
) -> list[pa.Table | None]:
    """The tables of several files' bytes, as `table_of` gives each; None for one that may be at fault, to be tried alone.

    claimed_bytes: how much memory all of them together may claim; tables beyond it are None as well.
    """
    tables: list[pa.Table | None] = []
    room = claimed_bytes
    with sandbox.at_most(None if max_bytes is None else 2 * max_bytes):
        for raw in raws:
            table = _table_within(raw, room if max_bytes is None else min(room, max_bytes))
            room -= table.nbytes if table is not None else 0
            tables.append(table)
    return tables


def _table_within(raw: FileBytes, max_bytes: int) -> pa.Table | None:
    """The table of a file's bytes; None for one that claims or takes more memory than allowed, or may be at fault."""
    if fault_of(raw.content) or _two_in_one(raw.content):
        return None
    reach("file.decoding")
    try:
        table = _decode(raw.content, raw.path, max_bytes)
    except (MemoryError, UnreadableFile, *UNDECODABLE):
        return None
    return table if table.nbytes <= max_bytes else None


def _undecodable(path: str, error: BaseException) -> UnreadableFile:
    return UnreadableFile(f"{path}: cannot be decoded ({_first_line(error)}); write the file again")


def _decode(raw: bytes, path: str, max_bytes: int | None) -> pa.Table:
    try:
        parquet, is_wide = _opened(raw), False
    except pa.ArrowException as error:
        if not wide_integers.is_of_wide_integers(error):
            raise
        parquet, is_wide = _opened(wide_integers.without_embedded_schema(raw)), True
    _check_claims(parquet, path, max_bytes)
    # Asking for the names decodes them: polars panics over names that are not UTF-8.
    names = list(dict.fromkeys(parquet.schema_arrow.names))
    table, left_out = _readable(parquet, names, path)
    left_out |= pandas_ranges(parquet.schema_arrow)
    if is_wide:
        table, too_wide = wide_integers.as_embedded(table, raw)
        left_out |= too_wide
    # Polars takes Arrow's strings for valid UTF-8 without a look.
    table.validate(full=True)
    if table.num_rows != parquet.metadata.num_rows:
        raise UnreadableFile(
            f"{path}: its footer says {parquet.metadata.num_rows} rows, its pages hold {table.num_rows}"
        )
    return held_by_polars(table, left_out)


def _opened(raw: bytes) -> pq.ParquetFile:
    return pq.ParquetFile(
        pa.BufferReader(raw),
        page_checksum_verification=True,
        pre_buffer=False,  # all bytes are in memory
        coerce_int96_timestamp_unit="us",
        arrow_extensions_enabled=False,
    )


def _readable(
    parquet: pq.ParquetFile, names: list[str], path: str
) -> tuple[pa.Table, dict[str, str]]:
    """The columns that can be read without a decryption key, and by name the reasons for the rest."""
    try:
        return parquet.read(use_threads=parquet.metadata.num_rows > _FEW_ROWS), {}
    except OSError as error:
        if _DECRYPT not in str(error):
            raise
    left_out, readable = {}, []
    for name in names:
        try:
            parquet.read(columns=[name])
            readable.append(name)
        except OSError as error:
            if _DECRYPT not in str(error):
                raise
            left_out[name] = (
                "it is encrypted, which mlforge cannot read; write it without encryption"
            )
    if not readable:
        raise UnreadableFile(
            f"{path}: all of its columns are encrypted; write it without encryption"
        )
    return parquet.read(columns=readable), left_out


def _check_claims(parquet: pq.ParquetFile, path: str, max_bytes: int | None) -> None:
    # Never by column chunk: asking an encrypted one for its sizes ends the process.
    metadata, schema = parquet.metadata, parquet.schema
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    if rows != metadata.num_rows:
        raise UnreadableFile(
            f"{path}: its footer says {metadata.num_rows:,} rows, its row groups {rows:,}; "
            "write the file again"
        )
    if max_bytes is None:
        return
    width = sum(_WIDTHS.get(schema.column(index).physical_type, 0) for index in range(len(schema)))
    claimed = max(sum(group.total_byte_size for group in groups), rows * width)
    if claimed > max_bytes:
        raise too_large(path, "claims", claimed, max_bytes)


def _takes_too_much(path: str, most: int | None) -> UnreadableFile:
    allowed = "there is" if most is None else f"the {most:,} bytes allowed"
    return UnreadableFile(
        f"{path}: takes far more memory than {allowed}, though it claims less; split the file, or raise the limit"
    )


def fault_of(content: bytes) -> str | None:
    """The words for bytes that are no whole parquet file, by their two ends; None if nothing shows there."""
    return _amiss(content[:_HEAD], content[-_TAIL:], len(content))


def _amiss(head: bytes, tail: bytes, size: int) -> str | None:
    if size == 0:
        return "is empty"
    if _ENCRYPTED in (head, tail[-len(_ENCRYPTED) :]):
        return "is encrypted (PARE), which mlforge cannot read; write it without encryption"
    if head != _MAGIC:
        return "is not parquet: it does not begin with PAR1"
    if size < _HEAD + _TAIL or not tail.endswith(_MAGIC):
        return "is unfinished or cut off: it does not end with PAR1"
    footer = int.from_bytes(tail[:4], "little")
    if footer == 0 or footer + _HEAD + _TAIL > size:
        return f"is damaged: its footer claims {footer:,} bytes of {size:,}"
    return None


def _two_in_one(raw: bytes) -> str | None:
    """Files put one behind the other: the last footer would find its rows in the wrong file."""
    if raw.rfind(_SEAM) < 0:  # from behind Python looks at a fraction of the bytes
        return None
    end = raw.find(_SEAM) + len(_MAGIC)
    try:
        pq.ParquetFile(pa.BufferReader(raw[:end]))
    except UNDECODABLE:
        return None  # a value that looks like it
    return f"is several parquet files one behind the other: the second begins at byte {end:,}; split them"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
