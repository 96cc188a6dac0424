"""Measure 10: what imports cost."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.harness import (
    MILLISECONDS,
    MORE_MS,
    Bench,
    Measure,
    Row,
    Target,
    by_turns,
    median_of,
)

_TURNS = 7


def _run(bench: Bench) -> list[Row]:
    ours = ["-c", "import mlforge"], ["-m", "mlforge", "--help"]
    commands = [["-c", "pass"], *ours]
    actions = [partial(_start, command) for command in commands]
    by_turns(1, *actions)  # byte code is written, files are in the page cache
    bare, *times = by_turns(_TURNS * bench.repeat if bench.size.name != "tiny" else 1, *actions)
    return [
        Row(
            "10",
            " ".join(command[-2:]) if command[0] == "-m" else command[1],
            median_of(own, MILLISECONDS),
            f"python -c pass: {median_of(bare, MILLISECONDS)}",
            [a - b for a, b in zip(own, bare, strict=True)],
            Target(limit, MORE_MS),
        )
        for command, own, limit in zip(ours, times, (0.060, 0.150), strict=True)
    ]


def _start(arguments: list[str]) -> None:
    subprocess.run(
        [sys.executable, *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=Path(__file__).parents[1],
    )


MEASURES = (
    Measure(
        "10", "import mlforge; mlforge --help", "<= 60 ms and <= 150 ms above python -c pass", _run
    ),
)
