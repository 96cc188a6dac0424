"""A project that has a `worker.py` of its own is served like any other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.support.workers import Shop, eventually, purchases, write
from worker.service.embedded_redis import EmbeddedServer


@pytest.fixture(params=["worker.py", pytest.param("worker/__init__.py", marks=pytest.mark.slow)])
def shop(
    request: pytest.FixtureRequest,
    server: EmbeddedServer,
    tmp_path: Path,
) -> Iterator[Shop]:
    """A project with a module of a name that ours need."""
    Redis.from_url(server.url).flushall()
    made = Shop(tmp_path, server.url)
    theirs = made.folder / request.param
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("raise ImportError('this is the project\\'s own')\n")
    yield made
    made.stop()


def test_commands_are_ours(shop: Shop) -> None:
    shown = shop.ask_apart("status")
    assert "spend" in shown.stdout, shown.stderr


@pytest.mark.slow
def test_processes_are_ours(shop: Shop) -> None:
    shop.start("watch")
    shop.start("worker")
    write(shop.folder / "drops/a.parquet", purchases((1, 0, 2.0)))
    eventually(lambda: shop.online("spend", 1), within=60)
    since = shop.project.event_log.last_id()
    file = shop.folder / "definitions.py"
    file.write_text(file.read_text().replace('["sum", "count"]', '["sum", "count", "max"]'))
    eventually(lambda: (shop.online("spend", 1) or {}).get("amount__max__7d") == 2.0, within=60)
    kinds = {entry.kind for entry in shop.project.event_log.read(since)}
    assert "definitions_broken" not in kinds


def test_python_m_mlforge_finds_a_checkout_that_it_is_run_in() -> None:
    root = Path(__file__).resolve().parents[2]
    asked = subprocess.run(
        [sys.executable, "-S", "-c", "import sys; print(sys.flags.safe_path)"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert asked.stdout.strip() == "False"
    shown = subprocess.run(
        [sys.executable, "-m", "mlforge", "--version"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.startswith("mlforge ")
