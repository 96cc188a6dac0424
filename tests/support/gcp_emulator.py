"""gcp-storage-emulator from PyPI, which calls itself Google Cloud Storage and keeps to no condition."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.servers import free_port

_START_S = 60.0


@contextmanager
def gcp_storage_emulator(folder: Path, bucket: str) -> Iterator[str]:
    """Its address, with its data in memory; in an environment of its own, and skipped where PyPI does not answer."""
    environment, port = folder / "environment", free_port()
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    install = [str(environment / "bin/python"), "-m", "pip", "install", "--quiet"]
    installed = subprocess.run(
        [*install, "gcp-storage-emulator"], capture_output=True, text=True, check=False
    )
    if installed.returncode:
        pytest.skip(f"pip cannot install gcp-storage-emulator: {installed.stderr[-300:]}")
    program = [str(environment / "bin/gcp-storage-emulator"), "start", "--in-memory"]
    place = ["--host", "127.0.0.1", "--port", str(port), "--default-bucket", bucket]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*program, *place], cwd=folder, stdout=log, stderr=log)
        try:
            _await(process, port, folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"the server does not start: {log.read_text()[-500:]}")
