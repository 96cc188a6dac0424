"""`python -m benchmarks.building FOLDER`: a process that builds a project in full at each line, and prints how long it took.

The first build of each takes its files in; those that follow evaluate them anew, which is what tasks share.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.timing import quiet, seconds
from mlforge.definitions.loader import load


def main(folder: str) -> None:
    """Build, and build once more each time that a line comes, until none does."""
    quiet()
    definitions = load(None, here=Path(folder))
    [name] = definitions.features
    for _ in sys.stdin:
        print(seconds(lambda: definitions.refresh(name, full=True)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
