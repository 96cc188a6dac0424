"""What the worker's commands say when something is not as they need it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from tests.support.workers import DEFINITIONS, ask
from worker.queue import ForgeSimpleWorker
from worker.state.sign_of_life import give_sign

NO_SERVER = "redis://:secret@127.0.0.1:1/0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    return tmp_path


def mlforge(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key != "REDIS_URL"}
    return subprocess.run(
        [sys.executable, "-m", "mlforge", *command],
        cwd=folder,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refused(run: subprocess.CompletedProcess[str], *says: str) -> None:
    assert run.returncode != 0
    for text in says:
        assert text in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    "command",
    ["status", *(pytest.param(name, marks=pytest.mark.slow) for name in ("watch", "worker"))],
)
def test_without_a_server_each_command_says_where_one_comes_from(folder, command):
    run = ask(folder, command) if command == "status" else mlforge(folder, command)
    refused(run, "REDIS_URL is not set", "mlforge up")


def test_a_server_that_does_not_answer_is_named_without_its_password(folder):
    run = ask(folder, "status", REDIS_URL=NO_SERVER)
    refused(run, "no Redis answers at redis://:***@127.0.0.1:1/0")
    assert "secret" not in run.stderr


@pytest.mark.parametrize("command", ["worker", pytest.param("watch", marks=pytest.mark.slow)])
def test_definitions_that_do_not_import_end_a_process_at_its_start(folder, server, command):
    (folder / "definitions.py").write_text("import no_such_module")
    refused(mlforge(folder, command, REDIS_URL=server.url), "no_such_module")


def test_what_no_feature_reads_cannot_be_waited_for(folder, server):
    run = ask(folder, "wait", "elsewhere.parquet", REDIS_URL=server.url)
    refused(run, "neither a feature nor a file of one", f"spend reads {folder / 'drops'}")


def test_waiting_without_a_worker_says_what_is_missing(folder, server):
    run = ask(folder, "wait", "spend", "--timeout", "0.2", REDIS_URL=server.url)
    refused(run, "not refreshed in time: spend", "no worker listens")


def test_a_probe_fails_where_no_worker_reports_and_not_where_nobody_can_be_asked(folder, server):
    redis, host = Redis.from_url(server.url), socket.gethostname()
    redis.delete(f"mlforge-alive:{host}")
    refused(ask(folder, "worker", "--alive", REDIS_URL=server.url), f"no worker on {host}")
    give_sign(redis, host, "somebody", 60)
    assert ask(folder, "worker", "--alive", REDIS_URL=server.url).returncode == 0
    run = ask(folder, "worker", "--alive", REDIS_URL=NO_SERVER)
    assert run.returncode == 0
    assert "the server at REDIS_URL does not tell" in run.stderr
    assert "secret" not in run.stderr
    refused(
        ask(folder, "worker", "--alive", REDIS_URL="redis://:secret@h:port/0"), "no URL of Redis"
    )


def test_a_worker_that_a_job_keeps_from_reporting_is_alive_for_as_long_as_the_job_may_take(server):
    redis = Redis.from_url(server.url)
    worker = ForgeSimpleWorker(connection=redis)
    worker.heartbeat(3_660)
    worker.register_death()
    assert redis.ttl(f"mlforge-alive:{socket.gethostname()}") > 3_600


def test_without_the_extras_the_one_to_install_is_named(folder):
    code = (
        "import sys; sys.modules['redis'] = None; from mlforge.cli import main; "
        "sys.exit(main(['status']))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    refused(run, "mlforge status needs the extra 'worker'")
