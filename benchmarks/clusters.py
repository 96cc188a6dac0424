"""Measures 17 and 17b: a full build by the tasks of a runner, its time against one process, and its memory as events grow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from benchmarks.builders import Builder, Columns, builder, sail, spark
from benchmarks.freshness import running
from benchmarks.harness import (
    MEGABYTES,
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
from benchmarks.memory import peak
from benchmarks.project import ALL, BASIC

_WORKERS = 2
_ROUNDS_BEFORE = 2
"""A build takes the files in, another warms the executors up."""
_RQ = f"rq, {_WORKERS} workers and the process that builds"
_ONE_CORE, _ALL_CORES = "one process on one core", "one process on all cores"
_COMPARED = (
    ("rq", _RQ, "one core", _ONE_CORE, Target(1 / 1.6)),
    ("rq", _RQ, "all", _ALL_CORES, Target(1.3)),
    ("Sail", "Sail, tasks as threads of its server", "all", _ALL_CORES, Target(1.3)),
    ("Spark", "Spark, a worker with two cores", "all", _ALL_CORES, Target(1.3)),
)
"""Side, what it is, the other side, what that is, and the ratio to reach."""
_TIMED = Columns(ALL, ("7d", "30d"))
_GROWN = Columns(BASIC, ("1d", "7d"))
_TIMES = 10
"""So many times the events are built in 17b."""
_SAIL, _SPARK = "MLFORGE_RUNNERS", "MLFORGE_SPARK"
"""Variables that name a Python with Sail, and one with the whole of Spark."""


def _run(bench: Bench) -> list[Row]:
    with ExitStack() as stack:
        one_core = stack.enter_context(builder(bench, _TIMED, cores={0}))
        alone = stack.enter_context(builder(bench, _TIMED))
        rq = stack.enter_context(_shared(bench))
        sides = {"one core": one_core, "all": alone, "rq": rq}
        for name, variable, started in (("Sail", _SAIL, sail), ("Spark", _SPARK, spark)):
            if (python := os.environ.get(variable)) is not None:
                server = stack.enter_context(started(bench, python))
                sides[name] = stack.enter_context(
                    builder(bench, _TIMED, server.runner, server.python)
                )
        for side in [*sides.values()] * (_ROUNDS_BEFORE if bench.repeat > 1 else 1):
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
def _shared(bench: Bench) -> Iterator[Builder]:
    """A builder whose tasks two workers share."""
    with builder(bench, _TIMED, '"rq"', REDIS_URL=bench.url) as side:
        side.build()  # alone: workers that start before there is a version would make it themselves
        with running(side.root, bench.url, _WORKERS):
            yield side


def _grown(bench: Bench) -> list[Row]:
    size = bench.size
    large = replace(size, events=_TIMES * size.events, entities=_TIMES * size.entities)
    sides = [("one process", _alone)]
    if os.environ.get(_SAIL) is not None:
        sides.append(("Sail's server, a task at a time", _on_sail))
    rows = []
    for what, peak_of in sides:
        small_peak, large_peak = peak_of(bench), peak_of(bench.of_size(large))
        rows.append(
            Row(
                "17b",
                f"peak memory of a full build of {large.events:,} events: {what}",
                MEGABYTES.of(large_peak),
                f"{size.events:,} events: {MEGABYTES.of(small_peak)}",
                [large_peak / small_peak],
                Target(1.25),
            )
        )
    return rows


def _alone(bench: Bench) -> int:
    """The peak of a process that builds by itself."""
    with builder(bench, _GROWN) as side:
        side.build()
        return peak(side.process.pid)


def _on_sail(bench: Bench) -> int:
    """The peak of the server that runs the tasks."""
    with (
        sail(bench, os.environ[_SAIL], at_once=1) as server,
        builder(bench, _GROWN, server.runner, server.python) as side,
    ):
        side.build()
        return peak(server.pid)


MEASURES = (
    Measure(
        "17",
        "a full build by the tasks of a runner, against one process",
        "two workers <= 1/1.6 of one core, and like Sail and Spark <= 1.3 of a process on all cores",
        _run,
    ),
    Measure(
        "17b",
        "peak memory of a full build as events grow",
        f"{_TIMES} times the events <= 1.25 times the memory, by one process and on Sail",
        _grown,
    ),
)
