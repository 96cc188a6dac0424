"""The command line as a process: what it imports, whose end is quiet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def printed_by(code: str) -> str:
    """The last line that some Python prints in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_help_imports_nothing_heavy() -> None:
    heavy = {"polars", "pyarrow", "duckdb", "redis", "rq", "structlog", "watchfiles"}
    heavy |= {"importlib.metadata", "email"}
    assert (
        printed_by(
            "import sys; from mlforge.cli import main; assert main(['--help']) == 0; "
            f"print(sorted({heavy} & set(sys.modules)))"
        )
        == "[]"
    )


def test_a_command_imports_no_other() -> None:
    assert (
        printed_by(
            "import sys; from mlforge.cli import main; main(['versions', '--help']); "
            "print([name for name in sys.modules if name.startswith('mlforge.cli.commands.')])"
        )
        == "['mlforge.cli.commands.versions']"
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_error(unbuffered: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "mlforge", "init", "shop"],
            stdout=gone,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_ctrl_c_is_quiet(tmp_path: Path) -> None:
    # The interpreter may come to the signal a moment later.
    (tmp_path / "definitions.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\nwhile True:\n    time.sleep(0.01)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mlforge", "list"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "MLFORGE_DEFINITIONS"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
