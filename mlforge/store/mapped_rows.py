"""Files of lists of rows that are mapped into memory, so that some of the lists are read without going through the others.

    an Arrow IPC file, its notes as JSON, the length of these in eight bytes, sha256 of all that in hex

A row of the Arrow file has the keys of an entity and, under ROWS, a list of its rows as structs.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

SUFFIX = ".arrow"
ROWS = "__rows"
_LENGTH_BYTES, _CHECKSUM_BYTES = 8, 64
_CHUNK = 1 << 20


def write_mapped(path: Path, frames: Iterable[pl.DataFrame], notes: Mapping[str, Any]) -> None:
    """Write frames of one schema, at least one, as a file; no more than one of them is held at a time."""
    written = iter(frames)
    first = next(written).to_arrow()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, first.schema) as writer:
        for table in _tables(first, written):
            # In one piece each: a look at a piece costs more than a look at a list.
            for batch in table.combine_chunks().to_batches():
                writer.write_batch(batch)
    with path.open("ab") as file:
        text = json.dumps(notes).encode()
        file.write(text + len(text).to_bytes(_LENGTH_BYTES, "little"))
    checksum = _checksum(path, path.stat().st_size)
    with path.open("ab") as file:
        file.write(checksum)


def _tables(first: pa.Table, others: Iterable[pl.DataFrame]) -> Iterator[pa.Table]:
    yield first
    for frame in others:
        yield frame.to_arrow().cast(first.schema)


def mapped_notes(path: Path) -> Mapping[str, Any] | None:
    """The notes of a file; None unless it still has all the bytes that it was written with. Raises OSError."""
    size = path.stat().st_size - _CHECKSUM_BYTES
    with path.open("rb") as file:
        if size < _LENGTH_BYTES or file.seek(size) != size:
            return None
        if file.read() != _checksum(path, size):
            return None
        file.seek(size - _LENGTH_BYTES)
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        file.seek(size - _LENGTH_BYTES - length)
        notes = json.loads(file.read(length))
    return notes if isinstance(notes, dict) else None


def mapped_batches(path: str) -> Iterator[pa.RecordBatch]:
    """The frames of a whole file, as record batches of which only what is looked at is read. Raises OSError.

    A batch keeps the file mapped, and readable once it is deleted.
    """
    with Path(path).open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # Lists lie far from each other: what is read ahead would go to waste.
    mapped.madvise(mmap.MADV_RANDOM)
    end = len(mapped) - _CHECKSUM_BYTES
    length = int.from_bytes(mapped[end - _LENGTH_BYTES : end], "little")
    reader = pa.ipc.open_file(pa.py_buffer(memoryview(mapped)[: end - _LENGTH_BYTES - length]))
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number)


def lengths_of(batch: pa.RecordBatch) -> pl.Series:
    """How many rows each list has."""
    offsets = _offsets(batch)
    return offsets.slice(1) - offsets.slice(0, len(offsets) - 1)


def rows_of(batch: pa.RecordBatch, places: pl.Series) -> pl.DataFrame:
    """The rows of the lists at some places, beside their keys. places: UInt32."""
    offsets = _offsets(batch)
    starts, ends = offsets.gather(places), offsets.gather(places + 1)
    bounds = pl.DataFrame([starts.alias("start"), ends.alias("end"), places.alias("place")])
    bounds = bounds.filter(pl.col("start") < pl.col("end"))
    within = bounds.select("place", pl.int_ranges("start", "end").alias("row")).explode("row")
    rows, of = batch.column(ROWS).values, within["row"].to_arrow()
    values = {field.name: rows.field(field.name).take(of) for field in rows.type}
    of = within["place"].to_arrow()
    keys = {name: batch.column(name).take(of) for name in batch.schema.names if name != ROWS}
    frame = pl.from_arrow(pa.table({**keys, **values}))
    assert isinstance(frame, pl.DataFrame)
    return frame


def keys_of(batch: pa.RecordBatch) -> pl.DataFrame:
    """The keys of all lists, in their order."""
    names = [name for name in batch.schema.names if name != ROWS]
    frame = pl.from_arrow(pa.Table.from_batches([batch]).select(names))
    assert isinstance(frame, pl.DataFrame)
    return frame


def _offsets(batch: pa.RecordBatch) -> pl.Series:
    offsets = pl.from_arrow(batch.column(ROWS).offsets)
    assert isinstance(offsets, pl.Series)
    return offsets


def _checksum(path: Path, size: int) -> bytes:
    """The checksum of a file's first bytes."""
    hashed, remaining = hashlib.sha256(), size
    with path.open("rb") as file:
        while remaining > 0 and (chunk := file.read(min(remaining, _CHUNK))):
            hashed.update(chunk)
            remaining -= len(chunk)
    return hashed.hexdigest().encode()
