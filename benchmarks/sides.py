"""A side of a measure in a process of its own: its seconds and its peak of memory.

Sides then share nothing that one left in memory, and a side that takes too much is ended alone, not the run.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.harness import MEGABYTES, SECONDS, median_of
from benchmarks.memory import peak, resident
from benchmarks.timing import quiet, seconds

MOST = 12_000_000_000
"""The bytes at which a side is ended; `MLFORGE_BENCHMARK_MEMORY` names others, for a machine with less."""
_LOOK_S = 0.02
Prepare = Callable[..., Callable[[], object]]


@dataclass(frozen=True)
class Ran:
    """How long a side took, infinitely long where it was ended, and its peak of memory above the imports, in bytes."""

    seconds: float
    peak: float

    @property
    def has_ended(self) -> bool:
        """Whether it was ended before it was done."""
        return math.isinf(self.seconds)


def apart(prepare: Prepare, *arguments: Any) -> Ran:
    """Run what a function of a module prepares in a process of its own; neither imports nor preparations are measured."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(sender, prepare, arguments))
    child.start()
    sender.close()
    try:
        return Ran(*receiver.recv())
    except EOFError:
        return Ran(math.inf, most())
    finally:
        child.join()


def most() -> float:
    """The bytes at which a side is ended."""
    return float(os.environ.get("MLFORGE_BENCHMARK_MEMORY", MOST))


def told(runs: list[Ran]) -> str:
    """The median of some runs, written out."""
    peaks = median_of([run.peak for run in runs], MEGABYTES)
    if any(run.has_ended for run in runs):
        return f"ended at {peaks}"
    return f"{median_of([run.seconds for run in runs], SECONDS)} with {peaks}"


def _child(sender: Connection, prepare: Prepare, arguments: tuple[Any, ...]) -> None:
    quiet()
    run = prepare(*arguments)
    threading.Thread(target=_guard, args=(most(),), daemon=True).start()
    before = resident()
    took = seconds(run)
    sender.send((took, max(0, peak() - before)))


def _guard(limit: float) -> None:
    while resident() <= limit:
        time.sleep(_LOOK_S)
    os._exit(1)
