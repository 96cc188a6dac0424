"""A function run in a process of its own, whose memory is bounded and whose loss does no harm.

Requests and answers are a line of JSON each, then frames as Arrow IPC. The process starts at the first call and
serves any number of them; `mlforge.definitions.function_child` is its side.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import polars as pl

from mlforge.core import child
from mlforge.core.disk import bytes_of
from mlforge.ingest.calling import FunctionFaultError, ReadsFilesError, TooLargeError

NO_SUCH_COLUMN, READS, TOO_LARGE, FAILED = "no such column", "reads files", "too large", "failed"
"""Kinds of answers that are no frame."""
NOT_THIS_CODE = "not this code"
"""The kind of an answer from definitions that were edited since, or do not load."""


def command(target: str | None, here: Path, feature: str) -> tuple[str, ...]:
    """The command of the process for a feature of definitions, as their loader finds them in a folder."""
    return child.command("mlforge.definitions.function_child", target or "", str(here), feature)


class NotThisCodeError(Exception):
    """The process has other code of the function than this one: it must be called here."""


class FunctionProcess:
    """The process of one feature's function; `command` starts it, followed by the hash of the code that is meant, and this process.

    at_once: the function is called there first, and not only after it took too much memory here.
    """

    def __init__(self, command: Sequence[str], *, at_once: bool) -> None:
        self._command, self.at_once = command, at_once
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    @contextmanager
    def opened(cls, command: Sequence[str], *, at_once: bool) -> Iterator[FunctionProcess | None]:
        """A process that ends with the block; None without a command to start it."""
        process = cls(command, at_once=at_once)
        try:
            yield process if command else None
        finally:
            process.close()

    def call(
        self,
        code_hash: str,
        frame: pl.DataFrame,
        tables: Mapping[str, pl.DataFrame],
        most: int,
        where: str,
    ) -> pl.DataFrame:
        """The function's rows. most: bytes that it may take, besides those of the frames. where: whose rows they are.

        Raises TooLargeError, ReadsFilesError, polars' ColumnNotFoundError, FunctionFaultError for all else that is
        the function's, MemoryError where the machine is short of memory, and NotThisCodeError.
        """
        process = self._running(code_hash)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            header = {"most": most, "tables": list(tables), "where": where}
            send(process.stdin, header, [frame, *tables.values()])
            answer, frames = receive(process.stdout)
        except (EOFError, BrokenPipeError):
            raise self._end(most) from None
        if frames:
            return frames[0]
        raise _ANSWERS.get(answer["kind"], FunctionFaultError)(answer["text"])

    def close(self) -> None:
        """End the process; the next call starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _running(self, code_hash: str) -> subprocess.Popen[bytes]:
        if self._process is None:
            command = [*self._command, code_hash, str(os.getpid())]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._process

    def _end(self, most: int) -> Exception:
        """The error for a process that has ended within a call."""
        process, self._process = self._process, None
        assert process is not None
        with suppress(BrokenPipeError):
            process.communicate()
        code = process.returncode
        if code == -signal.SIGKILL:
            return MemoryError("a process that ran a function was killed, as for want of memory")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return TooLargeError(
            f"ended the process that ran it ({how}), as one does that takes more memory than the {most:,} bytes "
            "allowed by max_file_memory"
        )

    def __del__(self) -> None:
        self.close()


_ANSWERS: dict[str, type[Exception]] = {
    NO_SUCH_COLUMN: pl.exceptions.ColumnNotFoundError,
    READS: ReadsFilesError,
    TOO_LARGE: TooLargeError,
    NOT_THIS_CODE: NotThisCodeError,
}


def send(to: IO[bytes], header: Mapping[str, Any], frames: Sequence[pl.DataFrame]) -> None:
    """Write a message: its header, and frames of any dtypes but Object."""
    parts = []
    for frame in frames:
        buffer = io.BytesIO()
        frame.write_ipc_stream(buffer)
        parts.append(bytes_of(buffer))
    to.write(json.dumps({**header, "sizes": [len(part) for part in parts]}).encode() + b"\n")
    for part in parts:
        to.write(part)
    to.flush()


def receive(source: IO[bytes]) -> tuple[dict[str, Any], list[pl.DataFrame]]:
    """Read a message. Raises EOFError where the other side has ended."""
    line = source.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    header: dict[str, Any] = json.loads(line)
    frames = []
    for size in header["sizes"]:
        part = source.read(size)
        if len(part) < size:
            raise EOFError
        frames.append(pl.read_ipc_stream(io.BytesIO(part)))
    return header, frames
