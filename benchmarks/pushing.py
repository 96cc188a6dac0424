"""`python -m benchmarks.pushing FOLDER RATE`: drops that lie ready below FOLDER go into its source so many times a second, and are refreshed and pushed.

Those that come while a refresh is at work are taken in by the next one, as workers do. It says so once the first is online, ends when its stdin does, and then says how many there were and in how many seconds.
"""

from __future__ import annotations

import select
import sys
import time
from collections import deque
from pathlib import Path

from benchmarks.timing import quiet
from mlforge.definitions.loader import load

FEATURE, READY, SOURCE = "spend", "ready", "events"


def main(root: Path, rate: float) -> None:
    """Push all drops that are due, again and again."""
    quiet()
    definitions = load(None, here=root)
    begun, count, told = time.monotonic(), 0, False
    ready = deque(sorted((root / READY).iterdir()))
    while ready and not _told_to_end(begun + count / rate):
        while ready and begun + count / rate <= time.monotonic():
            file = ready.popleft()
            file.rename(root / SOURCE / file.name)
            count += 1
        definitions.refresh(FEATURE)
        definitions.push(FEATURE)
        if not told:
            print("begun", flush=True)
            told = True
    print(count, time.monotonic() - begun)
    definitions.close()


def _told_to_end(until: float) -> bool:
    """Wait for an instant of the monotonic clock, or for the end of stdin."""
    return bool(select.select([sys.stdin], [], [], max(0.0, until - time.monotonic()))[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
