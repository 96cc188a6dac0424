"""The order of test files over three processes: the longest first, so that none trails behind all others."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import pytest

LONGEST = (
    "test_state_machine.py",
    "test_operations.py",
    "test_worker_pipeline.py",
    "test_fit.py",
    "test_faults_worker.py",
    "test_faults_files.py",
    "test_store_parts.py",
    "test_faults_redis.py",
    "test_online_retail.py",
    "test_tiles_at_rest.py",
    "test_benchmarks.py",
    "test_chaos.py",
    "test_load.py",
    "test_worker_audit.py",
    "test_worker_together.py",
    "test_worker_up.py",
)
"""Files of more than a minute in the default run or the slow one; any other order is right, too, and takes longer."""
_BEHIND_THE_LONGEST = 3


def longest_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The tests in the order in which their files are handed out.

    A process that has only few tests of the longest file left is given one more file at once, the fourth: a small one.
    """
    files = [list(tests) for _, tests in groupby(items, key=lambda item: item.path)]
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    files.sort(key=lambda tests: ranks.get(tests[0].path.name, len(ranks)))
    if len(files) > _BEHIND_THE_LONGEST:
        smallest = min(files[_BEHIND_THE_LONGEST:], key=len)
        files.remove(smallest)
        files.insert(_BEHIND_THE_LONGEST, smallest)
    return [item for tests in files for item in tests]
