"""A line on stderr about long work, while it is done."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from typing import IO, Any

from mlforge.cli.wrap import shorten
from mlforge.core.text import duration, printable


class Progress:
    """A line on stderr that names the work at hand: in a terminal only, and only after a second.

    Used in a `with` block; `name` is the work at hand, `step` counts one of `total` done, `begin` does
    both. A bar is drawn where there are several.
    """

    def __init__(
        self, label: str, total: int = 0, stream: IO[str] | None = None, after: float = 1.0
    ) -> None:
        self._stream, self._after = stream or sys.stderr, after
        self._label, self._total, self._done, self._begun = label, total, 0, False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def name(self, label: str) -> None:
        """Name the work at hand."""
        self._label = label

    def step(self) -> None:
        """Count one of `total` as done."""
        self._done += 1

    def begin(self, label: str) -> None:
        """Name the next work; the work before it counts as done."""
        self._done += self._begun
        self._label, self._begun = label, True

    def __enter__(self) -> Progress:
        if self._stream.isatty():
            self._thread = threading.Thread(target=self._paint, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _paint(self) -> None:
        start, wait, painted = time.monotonic(), self._after, False
        while not self._ended.wait(wait):
            wait, painted = 0.1, True
            line = self._line(time.monotonic() - start)
            columns = shutil.get_terminal_size().columns
            self._stream.write(f"\r\x1b[K{shorten(printable(line), columns - 1)}")
            self._stream.flush()
        if painted:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _line(self, elapsed: float) -> str:
        if self._total < 2:
            return f"{self._label}  {duration(elapsed)}"
        full = 20 * min(self._done, self._total) // self._total
        bar = "█" * full + "░" * (20 - full)
        return f"{bar} {self._done}/{self._total}  {self._label}  {duration(elapsed)}"
