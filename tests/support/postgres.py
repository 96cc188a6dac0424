"""A real PostgreSQL server for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.servers import free_port

_INSTALLED = "/usr/lib/postgresql"
_ROOT = 0
_ATTEMPTS = 3


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a database on a server of its own. Skipped where no PostgreSQL is installed."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    # It refuses to run as root.
    user = "postgres" if os.getuid() == _ROOT else None
    folder = Path(tempfile.mkdtemp(prefix="mlforge-postgres-"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        data = folder / "data"
        made = [
            programs / "initdb",
            "-D",
            data,
            "-U",
            "tester",
            "-A",
            "trust",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C",
        ]
        subprocess.run(made, user=user, cwd=folder, check=True, capture_output=True)
        for attempt in range(_ATTEMPTS):
            port = free_port()
            if _started(programs, data, port, user):
                break
            assert attempt < _ATTEMPTS - 1, (folder / "data/log").read_text()
        try:
            yield f"postgresql://tester@127.0.0.1:{port}/postgres"
        finally:
            stop = [programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"]
            subprocess.run(stop, user=user, cwd=folder, check=True, capture_output=True)
    finally:
        shutil.rmtree(folder)


def _started(programs: Path, data: Path, port: int, user: str | None) -> bool:
    """Whether it accepts connections; another process may have taken the port that was free just now."""
    settings = f"-p {port} -h 127.0.0.1 -k {data} -c fsync=off -c synchronous_commit=off"
    start = [
        programs / "pg_ctl",
        "-D",
        data,
        "-w",
        "-t",
        "60",
        "-l",
        data / "log",
        "-o",
        settings,
        "start",
    ]
    return (
        subprocess.run(
            start, user=user, cwd=data, check=False, stdout=subprocess.DEVNULL
        ).returncode
        == 0
    )


def _programs() -> Path | None:
    """The folder of the newest server's programs."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    newest = sorted(Path(_INSTALLED).glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return newest[-1].parent if newest else None
