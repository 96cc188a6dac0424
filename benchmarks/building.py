"""`python -m benchmarks.building FOLDER`: a process that builds a project in full at each line, and prints how long it took.

Each build reads its files and evaluates its rows anew, and is published under a number of its own: without one nothing is
evaluated, as no event has changed.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from benchmarks.timing import quiet, seconds
from mlforge.definitions.loader import load
from mlforge.definitions.registry import Definitions
from mlforge.maintenance.operations import prune
from mlforge.maintenance.retention import Retention


def main(folder: str) -> None:
    """Build, and build once more each time that a line comes, until none does."""
    quiet()
    definitions = load(None, here=Path(folder))
    [name] = definitions.features
    for number, _ in enumerate(sys.stdin):
        print(seconds(partial(_built, definitions, name, f"1.0.{number}")), flush=True)
        prune(definitions.store, [name], Retention(newest=1))


def _built(definitions: Definitions, name: str, version: str) -> None:
    built = definitions.refresh(name, full=True, version=version)
    if not built.tasks:
        raise RuntimeError(f"{version} was built without evaluating anything")


if __name__ == "__main__":
    main(*sys.argv[1:])
