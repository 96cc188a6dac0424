"""`python -m checks.second_chance [pytest's arguments]`: the tests, and once more, alone, those of real processes that failed.

Tests in `tests/process` and `tests/faults`, and some files elsewhere, start real processes or servers of other makers, and
the test run shares its cores among several of its own and whatever else the machine does. A few that fail there may have failed for the
machine's sake, so their whole files are run once more with nothing beside them. Failing twice fails. A failure anywhere
else, failures in many files, a file that cannot be collected or a run that was cut short fail at once.

Exit code: pytest's own, of the second run if there was one. A test that needs its second chance is to be mended.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

PLACES = (
    "tests/process/",
    "tests/faults/",
    "tests/contracts/test_lakehouse_servers.py",
    "tests/contracts/test_object_servers.py",
    "tests/contracts/test_online_cluster.py",
    "tests/contracts/test_online_dynamodb.py",
    "tests/contracts/test_online_postgres.py",
    "tests/contracts/test_runners.py",
    "tests/property/test_online_retail.py",
)
"""Folders, and files elsewhere, whose tests start processes or servers that they wait for."""
MOST_FILES = 3


@dataclass
class Failures:
    """The tests that failed in a run, as pytest reports them to the process that hands out the tests."""

    tests: list[str] = field(default_factory=list)
    whole: bool = False
    """Whether every test that was chosen had its turn."""
    markers: str = ""
    """The marker expression that chose the tests."""
    _uncollected: bool = False

    def pytest_configure(self, config: pytest.Config) -> None:
        """Keep the marker expression."""
        self.markers = config.getoption("markexpr")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Notice a file that cannot be collected."""
        self._uncollected |= report.failed

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the name of a test that failed, in its set-up and its tear-down too."""
        if report.failed and report.nodeid not in self.tests:
            self.tests.append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Notice a run that was told to stop before its end."""
        self.whole = not (self._uncollected or session.shouldfail or session.shouldstop)

    @property
    def files(self) -> list[str]:
        """The files of the tests that failed, each once, relative to the checkout."""
        return sorted({test.partition("::")[0] for test in self.tests})


def deserves_another(files: Sequence[str]) -> bool:
    """Whether failures in these files may be the machine's: few files, all of real processes."""
    return 0 < len(files) <= MOST_FILES and all(name.startswith(PLACES) for name in files)


def main(arguments: Sequence[str]) -> int:
    """Run pytest, then perhaps the files that failed once more; pytest's exit code."""
    first = Failures()
    code = int(pytest.main(list(arguments), plugins=[first]))
    only_tests_failed = code == pytest.ExitCode.TESTS_FAILED and first.whole
    if not (only_tests_failed and deserves_another(first.files)):
        return code
    _say("failed at first, beside other tests:", *first.tests)
    _say("once more, alone:", *first.files)
    alone = ["-n0", "-m", first.markers, *first.files]
    code = subprocess.run([sys.executable, "-m", "pytest", *alone], check=False).returncode
    if code:
        _say("FAILED TWICE: see the second run above. At first there failed:", *first.tests)
    else:
        _say("passed alone, and are to be mended, for they failed at first:", *first.tests)
    return code


def _say(heading: str, *lines: str) -> None:
    print(f"\n== second chance: {heading}", *lines, sep="\n   ", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
