"""Measure 17: a full build by the tasks of a runner, against one process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.freshness import running, until
from benchmarks.harness import (
    SECONDS,
    Bench,
    Measure,
    Row,
    Target,
    by_turns,
    check,
    median_of,
    ratios,
)
from mlforge.store import LocalStore
from worker.child_process import bound_to_parent

_WORKERS = 2
_ROUNDS_BEFORE = 2
"""A build takes the files in, another warms the executors up."""
_RQ = f"rq, {_WORKERS} workers and the process that builds"
_COMPARED = (
    ("rq", _RQ, "one core", "one process on one core", Target(1 / 1.6)),
    ("rq", _RQ, "all", "one process on all cores", Target(1.3)),
    (
        "Sail",
        "Sail, tasks as threads of its server",
        "all",
        "one process on all cores",
        Target(1.3),
    ),
)
"""Side, what it is, the other side, what that is, and the ratio to reach."""
_FILE = """
import polars as pl

from mlforge import Definitions, feature
from mlforge.metrics import Rolling
from mlforge.runners import SparkRunner
from mlforge.store import LocalStore

ALL = ["sum", "mean", "count", "min", "max", "std", "median"]


@feature(keys=["user_id"], source="events/", timestamp="event_time", metrics=[Rolling(["7d", "30d"], {{"amount": ALL}})])
def spend(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "event_time", "amount")


defs = Definitions(LocalStore("feature_store"), [spend], runner={runner}, distribute_above=0, fallback="local")
"""


@dataclass(frozen=True)
class _Side:
    """A process that builds the project by a runner."""

    root: Path
    process: subprocess.Popen[str]

    def build(self) -> float:
        """Seconds of a full build."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        check(bool(answer), f"the build in {self.root} failed")
        return float(answer)

    @property
    def parts(self) -> list[str]:
        """The hashes of the parts that are served."""
        manifest = LocalStore(self.root / "feature_store").read_metadata("spend")
        return [part.hash for part in manifest.parts]


def _run(bench: Bench) -> list[Row]:
    with ExitStack() as stack:
        one_core = stack.enter_context(_side(bench, '"local"', cores={0}))
        alone = stack.enter_context(_side(bench, '"local"'))
        rq = stack.enter_context(_shared(bench))
        sides = {"one core": one_core, "all": alone, "rq": rq}
        if (python := os.environ.get("MLFORGE_RUNNERS")) is not None:
            sides["Sail"] = stack.enter_context(_by_sail(bench, python))
        for side in [*sides.values()] * _ROUNDS_BEFORE:
            side.build()
        measured = by_turns(bench.repeat, *(side.build for side in sides.values()))
        check(
            all(side.parts == alone.parts for side in sides.values()),
            "all builds have the same bytes",
        )
    times = dict(zip(sides, measured, strict=True))
    return [
        Row(
            "17",
            f"full build by tasks: {what}",
            median_of(times[side], SECONDS),
            f"{reference}: {median_of(times[other], SECONDS)}",
            ratios(times[side], times[other]),
            target,
        )
        for side, what, other, reference, target in _COMPARED
        if side in times
    ]


@contextmanager
def _side(
    bench: Bench,
    runner: str,
    python: str = sys.executable,
    cores: Collection[int] | None = None,
    **environment: str,
) -> Iterator[_Side]:
    root = bench.new_folder("built")
    (root / "events").mkdir()
    for file in bench.history():
        os.link(file, root / "events" / file.name)
    (root / "definitions.py").write_text(_FILE.format(runner=runner))
    process = subprocess.Popen(
        bound_to_parent([python, "-m", "benchmarks.building", str(root)]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore", **environment},
    )
    if cores is not None:  # before it starts a thread
        os.sched_setaffinity(process.pid, cores)
    with process:
        yield _Side(root, process)
        assert process.stdin is not None
        process.stdin.close()


@contextmanager
def _shared(bench: Bench) -> Iterator[_Side]:
    """A side that two workers share."""
    with _side(bench, '"rq"', REDIS_URL=bench.url) as side:
        side.build()  # alone: workers that start before there is a version would make it themselves
        with running(side.root, bench.url, _WORKERS):
            yield side


@contextmanager
def _by_sail(bench: Bench, python: str) -> Iterator[_Side]:
    """A side whose tasks a server of Sail runs."""
    log = bench.new_folder("sail") / "log"
    command = [str(Path(python).with_name("sail")), "spark", "server", "--port", "0"]
    with log.open("w") as out:
        server = subprocess.Popen(bound_to_parent(command), stdout=out, stderr=out)
    try:
        pattern = r"server on (127.0.0.1:[1-9][0-9]*)"
        until(partial(lambda: bool(re.search(pattern, log.read_text()))))
        [address] = re.findall(pattern, log.read_text())
        with _side(bench, f"SparkRunner('sc://{address}')", python) as side:
            yield side
    finally:
        server.terminate()
        server.wait()


MEASURES = (
    Measure(
        "17",
        "a full build by the tasks of a runner, against one process",
        "two workers <= 1/1.6 of one core, and like Sail <= 1.3 of a process on all cores",
        _run,
    ),
)
