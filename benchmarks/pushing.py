"""`python -m benchmarks.pushing FOLDER RATE`: drops that lie ready below FOLDER go into its source so many times a second, each refreshed and pushed.

It says so once the first is online, ends when its stdin does, and then says how many there were and in how many seconds.
"""

from __future__ import annotations

import select
import sys
import time
from pathlib import Path

from benchmarks.harness import quiet
from mlforge.definitions.loader import load

FEATURE, READY, SOURCE = "spend", "ready", "events"


def main(root: Path, rate: float) -> None:
    """Push drop after drop, each at its time or as soon as the one before is done."""
    quiet()
    definitions = load(None, here=root)
    begun, count = time.monotonic(), 0
    for number, file in enumerate(sorted((root / READY).iterdir())):
        wait_s = max(0.0, begun + number / rate - time.monotonic())
        if select.select([sys.stdin], [], [], wait_s)[0]:
            break
        file.rename(root / SOURCE / file.name)
        definitions.refresh(FEATURE)
        definitions.push(FEATURE)
        count += 1
        if count == 1:
            print("begun", flush=True)
    print(count, time.monotonic() - begun)
    definitions.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
