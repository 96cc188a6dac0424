"""Which failures are given a second run, and what its outcome makes of the exit code: real small runs of pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from checks.second_chance import PLACES, deserves_another
from tests.support.paths import ROOT

PASSES = "def test_it(): pass\n"
FAILS = "def test_it(): assert False, 'wrong'\n"
FAILS_ONCE = """
from pathlib import Path
import pytest

def test_other(): pass

@pytest.mark.slow
def test_it():
    before = Path(__file__).with_suffix(".ran")
    if not before.exists():
        before.touch()
        pytest.fail("the machine was busy")
"""
FAILS_ONCE_BEFORE_IT_BEGINS = """
from pathlib import Path
import pytest

@pytest.fixture
def server():
    before = Path(__file__).with_suffix(".ran")
    if not before.exists():
        before.touch()
        pytest.fail("no server came up")

def test_it(server): pass
"""


def judged(
    folder: Path, files: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """The outcome of a checkout that has these test files, over two processes unless told otherwise."""
    (folder / "pytest.ini").write_text(
        "[pytest]\naddopts = -p xdist.plugin -n 2 --dist loadfile --import-mode=importlib\nmarkers = slow\n"
    )
    for name, text in files.items():
        path = folder / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "checks.second_chance", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def runs(done: subprocess.CompletedProcess[str]) -> int:
    return done.stdout.count("test session starts")


def test_what_passes_is_run_once(tmp_path: Path) -> None:
    done = judged(tmp_path, {"process/test_a.py": PASSES}, "-n0")
    assert (done.returncode, runs(done)) == (0, 1), done.stdout


@pytest.mark.slow
def test_files_of_real_processes_that_failed_run_once_more_alone_and_may_pass(
    tmp_path: Path,
) -> None:
    files = {
        "process/test_a.py": FAILS_ONCE,
        "faults/test_b.py": FAILS_ONCE_BEFORE_IT_BEGINS,
        "unit/test_c.py": PASSES,
    }
    done = judged(tmp_path, files)
    assert (done.returncode, runs(done)) == (0, 2), done.stdout
    _, first, alone, verdict = done.stdout.split("== second chance: ")
    assert "tests/process/test_a.py::test_it" in first
    assert "tests/faults/test_b.py::test_it" in first
    assert "3 passed" in alone  # the whole files, and no other
    assert verdict.startswith("passed alone, and are to be mended")
    assert "tests/process/test_a.py::test_it" in verdict


@pytest.mark.slow
def test_failing_twice_fails(tmp_path: Path) -> None:
    done = judged(tmp_path, {"process/test_a.py": FAILS_ONCE, "faults/test_b.py": FAILS})
    assert (done.returncode, runs(done)) == (1, 2), done.stdout
    assert "== second chance: FAILED TWICE" in done.stdout


@pytest.mark.slow
def test_the_second_run_chooses_by_the_same_marker(tmp_path: Path) -> None:
    done = judged(tmp_path, {"process/test_a.py": FAILS_ONCE}, "-n0", "-m", "slow")
    assert (done.returncode, runs(done)) == (0, 2), done.stdout
    assert done.stdout.count("/ 1 selected") == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "arguments", "code"),
    [
        ({"process/test_a.py": FAILS_ONCE, "unit/test_b.py": FAILS}, ("-n0",), 1),
        (
            {"process/test_a.py": FAILS_ONCE, "faults/test_b.py": "import nothing_at_all"},
            ("-n2",),
            1,
        ),
        ({"process/test_a.py": FAILS_ONCE, "process/test_b.py": PASSES}, ("-n0", "-x"), 1),
        ({"unit/test_a.py": PASSES}, ("-n0", "--no-such-option"), 4),
        ({}, ("-n0",), 5),
    ],
    ids=["a unit test too", "a file not collected", "cut short", "a wrong call", "no test"],
)
def test_anything_else_fails_at_once(
    tmp_path: Path, files: dict[str, str], arguments: tuple[str, ...], code: int
) -> None:
    done = judged(tmp_path, files, *arguments)
    assert (done.returncode, "second chance" in done.stdout) == (code, False), done.stdout


def test_few_files_of_real_processes_deserve_another_run() -> None:
    few = ["tests/faults/test_a.py", "tests/process/test_b.py", "tests/process/test_c.py"]
    assert deserves_another(few)
    assert not deserves_another([])
    assert not deserves_another([*few, "tests/process/test_d.py"])
    assert not deserves_another([*few[:2], "tests/contracts/test_online.py"])
    assert not deserves_another(["elsewhere/tests/process/test_b.py"])


def test_each_place_of_a_second_chance_is_there() -> None:
    assert [place for place in PLACES if not (ROOT / place).exists()] == []
    assert deserves_another([PLACES[-1]])
