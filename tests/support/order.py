"""The order of test files over the processes of a run: the longest first, so that none trails behind all others."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import pytest

from tests.support.paths import ROOT

LONGEST = (
    "test_runners.py",
    "test_state_machine.py",
    "test_faults_worker.py",
    "test_fit.py",
    "test_benchmarks.py",
    "test_blast_histories.py",
    "test_faults_redis.py",
    "test_store_parts.py",
    "test_orchestrators.py",
    "test_operations.py",
    "test_load.py",
    "test_shared_results.py",
    "test_worker_pipeline.py",
    "test_totals.py",
    "test_chaos.py",
    "test_tiles_at_rest.py",
    "test_worker_up.py",
    "test_store_concurrency.py",
    "test_task_processes.py",
    "test_openapi.py",
    "test_faults_files.py",
    "test_online_retail.py",
    "test_faults_definitions.py",
    "test_worker_together.py",
)
"""Files whose slow tests take more than a minute, by turns such as wait for processes and such as compute; any other order is right, too, and takes longer."""
WAITING = ("process", "faults")
"""Folders of tests that mostly wait for processes that they have started."""
SHORT = ROOT / "tests" / "unit"
"""The folder of tests that neither wait nor compute for long: they come last, so that all processes end at one time."""


def longest_first(
    items: Sequence[pytest.Item], processes: int, longest: Sequence[str]
) -> list[pytest.Item]:
    """The tests in the order in which their files are handed out. longest: names of files, the longest first.

    Behind the longest, files that wait are strewn evenly among those that compute, so that there is always something to compute, and
    something to do meanwhile. Short ones are the last.
    A process that has only few tests of its first file left is given one more file at once, the one behind the first of each: a small one.
    """
    files = [list(tests) for _, tests in groupby(items, key=lambda item: item.path)]
    ranks = {name: rank for rank, name in enumerate(longest)}
    files = sorted(strewn(files), key=lambda tests: ranks.get(tests[0].path.name, len(ranks)))
    if len(files) > processes:
        smallest = min(files[processes:], key=len)
        files.remove(smallest)
        files.insert(processes, smallest)
    return [item for tests in files for item in tests]


def strewn(files: Sequence[list[pytest.Item]]) -> list[list[pytest.Item]]:
    """The files, each kind in its own order, and as much of one behind any of them as of the other; behind all what is short."""
    waiting: list[list[pytest.Item]] = []
    computing: list[list[pytest.Item]] = []
    short: list[list[pytest.Item]] = []
    for tests in files:
        path = tests[0].path
        kind = waiting if path.parent.name in WAITING else computing
        (short if path.is_relative_to(SHORT) else kind).append(tests)
    placed = [
        (place / len(kind), tests)
        for kind in (computing, waiting)
        for place, tests in enumerate(kind)
    ]
    return [tests for _, tests in sorted(placed, key=lambda each: each[0])] + short
