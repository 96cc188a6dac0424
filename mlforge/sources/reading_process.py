"""Processes that read small files ahead, of which there are very many: threads would take turns with whoever works on what they read.

A request is a line of JSON; an answer is another, and behind it the tables of files as streams of Arrow's.
`mlforge.sources.reading_child` is the other side.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pyarrow as pa

from mlforge.core import child
from mlforge.core.side_by_side import CORES
from mlforge.sources.decoded_files import DecodedFiles
from mlforge.sources.file_bytes import FileBytes
from mlforge.sources.source_file import FileStat, SourceFile

_MOST = 2  # read as fast as one process works on what they read
# Requests that wait fit: while one is written nobody takes the answers of others.
_PIPE_BYTES, _REQUEST_BYTES, _REQUESTS = 1 << 20, 128 << 10, 8


class ReadingProcess:
    """A process that reads one run of files after the other, and answers in this order."""

    def __init__(self) -> None:
        """Raises OSError where none can be started, or its pipes are small."""
        self._asked: deque[Sequence[SourceFile]] = deque()
        self.has_ended = False
        command = child.command("mlforge.sources.reading_child")
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        try:
            for pipe in (self._requests, self._answers):
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError:
            self.close()
            raise

    @property
    def waiting(self) -> int:
        """How many requests wait for their answers to be taken."""
        return len(self._asked)

    def ask(self, files: Sequence[SourceFile], max_bytes: int | None) -> bool:
        """Have files of this machine read, each of which may take so much memory; returns False where it cannot be asked."""
        named = [(file.path, os.fspath(file.absolute), file.stat) for file in files]
        line = json.dumps([named, max_bytes]).encode() + b"\n"
        if self.has_ended or self.waiting == _REQUESTS or len(line) > _REQUEST_BYTES:
            return False
        try:
            self._requests.write(line)
            self._requests.flush()
        except OSError:
            self.close()
            return False
        self._asked.append(files)
        return True

    def answer(self) -> list[DecodedFiles]:
        """The files of the request that has waited for longest, without those that may be at fault, and without their bytes.

        None of a process that has ended.
        """
        files = self._asked.popleft()
        if self.has_ended:
            return []
        try:
            return _received(self._answers, files)
        except (EOFError, OSError, TypeError, ValueError, pa.ArrowException):
            self.close()
            return []

    def close(self) -> None:
        """End the process."""
        self.has_ended = True
        self._process.kill()
        with suppress(OSError):
            self._process.communicate()


@contextmanager
def reading_processes() -> Iterator[Sequence[ReadingProcess]]:
    """Processes that end with the block; none where one core would do all of the work, or they cannot be had."""
    processes: list[ReadingProcess] = []
    try:
        if CORES > 1 and hasattr(fcntl, "F_SETPIPE_SZ"):
            with suppress(OSError):
                while len(processes) < _MOST:
                    processes.append(ReadingProcess())
        yield processes
    finally:
        for process in processes:
            process.close()


def requests(source: IO[bytes]) -> Iterator[tuple[list[SourceFile], int | None]]:
    """The requests that arrive."""
    for line in source:
        named, max_bytes = json.loads(line)
        files = [SourceFile(path, Path(at), FileStat(*stat)) for path, at, stat in named]
        yield files, max_bytes


def send(to: IO[bytes], files: Sequence[SourceFile], tables: Iterable[DecodedFiles]) -> None:
    """Write an answer."""
    places = {file.path: place for place, file in enumerate(files)}
    described, streams = [], []
    for each in tables:
        stream = pa.BufferOutputStream()
        with pa.ipc.new_stream(stream, each.table.schema) as writer:
            writer.write_table(each.table)
        streams.append(stream.getvalue())
        described.append(
            [
                (places[raw.path], raw.hash, raw.stat, raw.begun, height)
                for raw, height in zip(each.files, each.heights, strict=True)
            ]
        )
    sizes = [stream.size for stream in streams]
    to.write(json.dumps([described, sizes]).encode() + b"\n")
    for stream in streams:
        to.write(stream)
    to.flush()


def _received(source: IO[bytes], files: Sequence[SourceFile]) -> list[DecodedFiles]:
    """An answer. Raises EOFError where the process has ended, TypeError or ValueError for what is no answer."""
    line = source.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    received = []
    for described, size in zip(*json.loads(line), strict=True):
        stream = source.read(size)
        if len(stream) < size:
            raise EOFError
        raws = [
            FileBytes(files[place].path, b"", hash_, FileStat(*stat), begun)
            for place, hash_, stat, begun, _ in described
        ]
        heights = [height for *_, height in described]
        received.append(DecodedFiles(raws, heights, pa.ipc.open_stream(stream).read_all()))
    return received
