"""Rows put aside in numbered files, to be taken up file by file: what keeps memory flat."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl

from mlforge.core.disk import bytes_of

_LENGTH = 8  # bytes of a frame's length, before the frame


class Spill:
    """A folder of numbered heaps of rows. Rows are put onto a heap, and a heap is taken once, whole."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder

    def put(self, number: int, rows: pl.DataFrame) -> None:
        """Put rows onto a heap, behind those that it has."""
        buffer = io.BytesIO()
        rows.write_ipc_stream(buffer)
        with self._path(number).open("ab") as file:
            file.write(buffer.tell().to_bytes(_LENGTH, "little"))
            file.write(bytes_of(buffer))

    def put_by(self, rows: pl.DataFrame, number: str) -> None:
        """Put each row onto the heap whose number a column tells; the column itself is left out."""
        for (heap,), part in rows.partition_by(number, as_dict=True, include_key=False).items():
            self.put(int(str(heap)), part)

    def take(self, number: int) -> pl.DataFrame | None:
        """The rows of a heap, which is gone then; None for one that has none."""
        path = self._path(number)
        if not path.exists():
            return None
        frames = []
        with path.open("rb") as file:
            while length := file.read(_LENGTH):
                frames.append(
                    pl.read_ipc_stream(io.BytesIO(file.read(int.from_bytes(length, "little"))))
                )
        path.unlink()
        return pl.concat(frames)

    def _path(self, number: int) -> Path:
        return self.folder / str(number)
