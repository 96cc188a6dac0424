"""gcp-storage-emulator from PyPI, which calls itself Google Cloud Storage and keeps to no condition."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.servers import await_listening, free_port


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
            await_listening(process, port, folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()
