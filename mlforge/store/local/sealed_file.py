"""Parquet files that hold a checksum of themselves in their own metadata."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from mlforge.core.disk import bytes_of, write_all
from mlforge.core.side_by_side import begin
from mlforge.store.local.io import begin_sync, replacing

CHECKSUM, UNSEALED = "mlforge.checksum", "0" * 64
_SEAL = CHECKSUM.encode() + b"\x18\x40"  # as thrift writes a key and the length of its value
_READ_BYTES = 1 << 20
_LARGE = 4 << 20  # bytes that take the disk longer than a further sync does


@dataclass(frozen=True, slots=True)
class Sealed:
    """The bytes of a parquet file with a checksum of itself in its own metadata, and that checksum."""

    content: memoryview
    checksum: str

    @classmethod
    def of(cls, frame: pl.DataFrame, row_group: int, metadata: Mapping[str, str]) -> Sealed:
        """The file of a frame, with row groups of so many rows."""
        written = _unsealed(frame, row_group, metadata)
        place, checksum = _checksum_of(bytes_of(written))
        written.seek(place)
        written.write(checksum)
        return cls(bytes_of(written), checksum.decode())

    def write(self, path: Path, *, durable: bool = True) -> None:
        """Write the file at a path, whole or not at all; the caller syncs the folder. durable: as in `write_json`."""
        with (
            replacing(path, durable=durable, folder=False) as temporary,
            temporary.open("wb") as file,
        ):
            write_all(file, self.content)

    def estimated_size(self) -> int:
        """The bytes that it takes."""
        return len(self.content)


def write_sealed(
    path: Path, frame: pl.DataFrame, row_group: int, metadata: Mapping[str, str]
) -> None:
    """Write a parquet file with a checksum of itself in its own metadata; the caller syncs the folder.

    The checksum is computed while the other bytes are written, or while a large file's are on their way to the disk.
    """
    with replacing(path, folder=False) as temporary:
        if frame.estimated_size() >= _LARGE:
            _write_large(temporary, frame, row_group, metadata)
            return
        content = bytes_of(_unsealed(frame, row_group, metadata))
        checking = begin(_checksum_of, content)
        with temporary.open("wb") as file:
            write_all(file, content)
            place, checksum = checking.result()
            file.seek(place)
            file.write(checksum)


def _write_large(
    path: Path, frame: pl.DataFrame, row_group: int, metadata: Mapping[str, str]
) -> None:
    """Write the file of a frame as it is encoded: it is not in memory beside the frame, nor copied from there."""
    _encode(frame, path, row_group, metadata)
    syncing = begin_sync(path)
    try:
        with path.open("r+b") as file:
            place, checksum = _checksum_in(file)
            file.seek(place)
            file.write(checksum)
    finally:
        wait([syncing])  # none is at work on a file that the caller goes on to remove
    syncing.result()


def _unsealed(frame: pl.DataFrame, row_group: int, metadata: Mapping[str, str]) -> io.BytesIO:
    """The bytes of a parquet file with room for a checksum in its metadata."""
    written = io.BytesIO()
    _encode(frame, written, row_group, metadata)
    return written


def _encode(
    frame: pl.DataFrame, file: Path | io.BytesIO, row_group: int, metadata: Mapping[str, str]
) -> None:
    frame.write_parquet(
        file,
        compression="uncompressed",  # read often, and for less than it takes to unpack
        row_group_size=row_group,
        metadata={**metadata, CHECKSUM: UNSEALED},
    )


def is_sealed(path: Path) -> bool:
    """Whether a file still has all the bytes that it was sealed with."""
    with path.open("rb") as file:
        place, checksum = _checksum_in(file)
        file.seek(place)
        return place > 0 and file.read(len(checksum)) == checksum


def seal_of(path: Path) -> str:
    """The checksum that a file was sealed with, whether or not it is still true."""
    return pl.read_parquet_metadata(path)[CHECKSUM]


def _checksum(size: int, read: Callable[[int, int], bytes | memoryview]) -> tuple[int, bytes]:
    """The offset of the checksum, 0 if there is none, and its value over all other bytes.

    read: the bytes from an offset until before another.
    """
    length = bytes(read(max(size - 8, 0), max(size - 4, 0)))
    footer = max(size - 8 - int.from_bytes(length, "little"), 0)
    offset = bytes(read(footer, size)).rfind(_SEAL)
    if offset < 0:
        return 0, b""
    place = footer + offset + len(_SEAL)
    hashed = hashlib.sha256()
    for start, end in ((0, place), (place + len(UNSEALED), size)):
        for at in range(start, end, _READ_BYTES):
            hashed.update(read(at, min(at + _READ_BYTES, end)))
    return place, hashed.hexdigest().encode()


def _checksum_of(content: memoryview) -> tuple[int, bytes]:
    """As `_checksum`, of bytes in memory, none of which is copied."""
    return _checksum(len(content), lambda start, end: content[start:end])


def _checksum_in(file: io.BufferedIOBase) -> tuple[int, bytes]:
    """As `_checksum`, of an open file, whose bytes go through one buffer."""
    size = file.seek(0, os.SEEK_END)
    buffer = memoryview(bytearray(min(size, _READ_BYTES)))

    def read(start: int, end: int) -> memoryview:
        file.seek(start)
        if end - start > len(buffer):
            return memoryview(file.read(end - start))
        return buffer[: file.readinto(buffer[: end - start])]

    return _checksum(size, read)
