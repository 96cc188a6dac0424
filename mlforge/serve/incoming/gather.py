"""Small requests gathered for a moment, so that each is not a file of its own."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl

from mlforge.serve.incoming.places import Folder
from mlforge.serve.incoming.writing import clear, write_frame

GATHER_S = 0.05
"""How long a small request waits for others."""
CLEAR_EVERY_S = 3_600.0
"""How often what killed servers have left is looked for, where rows come in."""
SMALL_ROWS, MOST_ROWS = 1_000, 10_000
"""Up to how many rows a request is small; how many rows go into a file."""


def new_name() -> str:
    """The name of a drop, which no other has; names sort by their times."""
    return f"http-{time.time_ns() // 1_000_000}-{uuid4().hex}"


@dataclass
class _Waiting:
    """Frames of one shape that wait, and who waits for each to be on the disk."""

    frames: list[pl.DataFrame] = field(default_factory=list)
    written: list[asyncio.Future[str]] = field(default_factory=list)
    rows: int = 0


class Gatherer:
    """Frames for folders; those of one sender, one folder and one shape that come within a moment become one file.

    Frames of two senders never share one: a file with a bad row is left out whole.
    """

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self._waiting: dict[Hashable, _Waiting] = {}
        self._cleared: dict[Path, float] = {}
        self._writing: set[asyncio.Task[None]] = set()

    async def put(self, folder: Folder, frame: pl.DataFrame, sender: str | None = None) -> str:
        """Put a frame into a folder; returns the name of its drop once it is on the disk. Refused where it cannot be."""
        if frame.height > SMALL_ROWS:
            return await self.write(folder, new_name(), lambda file: write_frame(file, frame))
        key = (sender, folder.path, tuple(frame.columns), tuple(map(str, frame.dtypes)))
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = _Waiting()
            self._later(folder, key, waiting)
        written: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        waiting.frames.append(frame)
        waiting.written.append(written)
        waiting.rows += frame.height
        if waiting.rows >= MOST_ROWS:
            self._waiting.pop(key, None)  # the next begins another file
        return await written

    async def write(self, folder: Folder, name: str, write: Callable[[Path], None]) -> str:
        """Have a function write a drop's file, in a thread; returns the drop's name."""

        def work() -> None:
            if time.monotonic() - self._cleared.get(folder.path, -math.inf) > CLEAR_EVERY_S:
                self._cleared[folder.path] = time.monotonic()
                clear(folder.path)
            write(folder.file(name))

        await asyncio.get_running_loop().run_in_executor(self._threads, work)
        return name

    def _later(self, folder: Folder, key: Hashable, waiting: _Waiting) -> None:
        task = asyncio.create_task(self._gathered(folder, key, waiting))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _gathered(self, folder: Folder, key: Hashable, waiting: _Waiting) -> None:
        """Write what has come, a moment after the first; each who waits is told of the outcome."""
        await asyncio.sleep(GATHER_S)
        if self._waiting.get(key) is waiting:
            del self._waiting[key]
        outcome: Any
        try:
            outcome = await self.write(
                folder, new_name(), lambda file: write_frame(file, _together(waiting.frames))
            )
        except Exception as error:  # noqa: BLE001 - it is theirs who wait
            outcome = error
        for written in waiting.written:
            if written.done():  # its caller has gone
                continue
            if isinstance(outcome, Exception):
                written.set_exception(outcome)
            else:
                written.set_result(outcome)


def _together(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(frames, how="vertical")
