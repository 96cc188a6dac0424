"""Folders for temporary files: gone with their block, and with their process however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mlforge.core.scratch import scratch_folder, sweep_scratch

HOLDER = """
import sys
from mlforge.core.scratch import scratch_folder
with scratch_folder("tasks") as folder:
    (folder / "spilled").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_a_folder_goes_with_its_block_whatever_lies_in_it(temporary: Path) -> None:
    with scratch_folder("set") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").touch()
        assert folder.parent == temporary
        sweep_scratch()
        assert (folder / "deep" / "file").exists(), "it is this process's own"
    assert list(temporary.iterdir()) == []


def test_a_folder_of_a_killed_process_is_swept_and_that_of_a_living_one_stays(
    temporary: Path,
) -> None:
    others = temporary / "mlforge-1.0", temporary / "somebody"
    for other in others:
        other.mkdir()
    (temporary / "mlforge-scratch-link").symlink_to(others[1])
    held = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with held:
        assert held.stdout is not None
        folder = Path(held.stdout.readline().strip())
        with scratch_folder("plan"):
            assert (folder / "spilled").exists()
        os.kill(held.pid, signal.SIGKILL)
    assert folder.exists()

    sweep_scratch()

    assert not folder.exists()
    assert all(other.is_dir() for other in others)


def test_a_folder_that_is_swept_before_it_is_locked_is_made_again(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    mkdtemp = tempfile.mkdtemp

    def swept_once(prefix: str) -> str:
        made.append(mkdtemp(prefix=prefix))
        if len(made) == 1:
            sweep_scratch()
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", swept_once)
    with scratch_folder("build") as folder:
        assert str(folder) == made[1]
        assert [*temporary.iterdir()] == [folder]
