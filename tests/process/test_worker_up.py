"""`mlforge up`: everything in one terminal, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from mlforge.online import RedisStore
from tests.support.workers import DEFINITIONS, ask, eventually, purchases, write
from worker.service.embedded_redis import EmbeddedServer


def processes() -> list[int]:
    """All process ids there are."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def command_of(pid: int) -> bytes:
    """A process's command line; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def parent_of(pid: int) -> int:
    """The process that started a process; 0 if it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])


class Terminal:
    """A running `mlforge up`, as somebody at a terminal sees it."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.folder = folder
        self.log = folder / f"terminal-{len(list(folder.glob('terminal-*.log')))}.log"
        inherited = {key: value for key, value in os.environ.items() if key != "REDIS_URL"}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlforge", "up", "--workers", "1", *arguments],
                cwd=folder,
                env={**inherited, **environment},
                stdout=output,
                stderr=output,
            )

    @property
    def text(self) -> str:
        return self.log.read_text()

    def sees(self, pattern: str) -> re.Match[str]:
        try:
            return eventually(lambda: re.search(pattern, self.text, re.MULTILINE))
        except AssertionError as error:
            raise AssertionError(f"{pattern!r} is nowhere in:\n{self.text}") from error

    def family(self) -> list[int]:
        """The processes that run for this project."""
        return [pid for pid in processes() if self._has(pid)]

    def children(self) -> list[int]:
        """The processes of the project that `mlforge up` has started itself."""
        return [pid for pid in self.family() if parent_of(pid) == self.process.pid]

    def _has(self, pid: int) -> bool:
        try:
            here = Path(f"/proc/{pid}/cwd").readlink()
        except OSError:
            return False
        return here.is_relative_to(self.folder)

    def end(self, sig: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(sig)
        return self.process.wait(60)

    def kill(self) -> None:
        """End it, if it has not ended, and all that it started."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        eventually(lambda: not self.family())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    (tmp_path / "drops").mkdir()
    return tmp_path


@pytest.fixture
def terminal(folder: Path) -> Iterator[Callable[..., Terminal]]:
    """Starts `mlforge up` in a terminal of its own; none outlives the test, however it ends."""
    terminals = []

    def start(*arguments: str, **environment: str) -> Terminal:
        terminals.append(Terminal(folder, *(arguments or ["--no-serve"]), **environment))
        return terminals[-1]

    yield start
    for each in terminals:
        each.kill()


@pytest.fixture
def up(terminal: Callable[..., Terminal]) -> Terminal:
    return terminal()


def test_up_tells_each_drop_refuses_a_second_and_stops_cleanly(terminal, up, folder):
    url = up.sees(r"^REDIS_URL=(.*)$")[1]
    up.sees("watching")
    write(folder / "drops" / "first.parquet", purchases((2, 0, 2.0)))
    up.sees(r"spend +1\.0\.0")  # by the event, or by the refresh that every start makes
    write(folder / "drops" / "a.parquet", purchases((1, 0, 2.0)))
    version = up.sees(
        r"spend +(1\.0\.[1-9]\d*) .* \d rows? recomputed · 1 entity pushed .* ms from close to readable"
    )[1]
    assert RedisStore.from_url(url).read("spend", {"user_id": 1})["amount__sum__7d"] == 2.0
    second = terminal()
    second_text = second.process.wait(60), second.text
    assert second_text[0] == 1
    assert f"runs here already (process {up.process.pid})" in second_text[1]
    status = ask(folder, "status", "--json")
    found = {entry["feature"]: entry for entry in json.loads(status.stdout)["features"]}
    assert (found["spend"]["state"], found["spend"]["online_version"]) == ("ready", version)
    assert up.end() == 0
    assert up.family() == []


@pytest.mark.slow
def test_of_two_that_start_at_once_one_runs_and_the_other_says_where(terminal, folder):
    both = [terminal(), terminal()]
    ended = eventually(lambda: [up for up in both if up.process.poll() is not None])
    [lost] = ended
    [won] = [up for up in both if up is not lost]
    assert lost.process.returncode == 1
    url = won.sees(r"^REDIS_URL=(.*)$")[1]
    assert f"runs here already (process {won.process.pid}); use it: REDIS_URL={url}," in lost.text
    won.sees("watching")
    write(folder / "drops" / "a.parquet", purchases((1, 0, 2.0)))
    won.sees(r"spend +1\.0\.0")
    assert won.end() == 0
    assert won.family() == []


@pytest.mark.slow
def test_a_killed_up_leaves_nothing_and_its_data_is_there_again(terminal, up, folder):
    url = up.sees(r"^REDIS_URL=(.*)$")[1]
    up.sees("watching")
    write(folder / "drops" / "a.parquet", purchases((1, 0, 2.0)))
    Redis.from_url(url).set("mine", "kept")
    up.sees(r"1\.0\.0")  # by the event, or by the scan at the start
    up.process.kill()
    up.process.wait()
    eventually(lambda: not up.family())
    again = terminal()
    assert again.sees(r"^REDIS_URL=(.*)$")[1] == url, "a pasted REDIS_URL goes on to work"
    assert RedisStore.from_url(url).read("spend", {"user_id": 1})
    assert again.end(signal.SIGTERM) == 0
    assert again.family() == []


@pytest.mark.slow
def test_workers_give_way_to_readers_and_a_dead_child_is_started_again(up):
    up.sees("watching")
    # Its forks, which come and go, have the same command line: the worker is the one that this process started.
    [worker] = eventually(lambda: [pid for pid in up.children() if b"\0worker" in command_of(pid)])
    niceness = [os.getpriority(os.PRIO_PROCESS, pid) for pid in (up.process.pid, worker)]
    assert niceness[1] == min(niceness[0] + 5, 19), "it gives way to what answers readers"
    assert {os.getsid(pid) for pid in up.children()} == {os.getsid(up.process.pid)}, (
        "nice values count within a session alone"
    )
    os.kill(worker, signal.SIGKILL)
    up.sees("worker-1 ended .killed by SIGKILL.; it starts again")
    assert up.end() == 0


@pytest.mark.slow
def test_up_uses_a_server_of_ones_own(terminal, folder, tmp_path_factory):
    with EmbeddedServer(tmp_path_factory.mktemp("redis")) as server:
        up = terminal(REDIS_URL=server.url)
        up.sees("redis +your own")
        assert ":***@" in up.text
        up.sees("watching")
        assert up.end() == 0
        assert not (folder / ".mlforge" / "redis").exists()


def test_the_embedded_server_keeps_freed_memory_at_hand_unless_it_is_told_otherwise(
    tmp_path, monkeypatch
):
    told, environments, begin = "glibc.malloc.tcache_count=9", [], subprocess.Popen

    def noted(*arguments: Any, env: Mapping[str, str], **options: Any) -> subprocess.Popen[bytes]:
        environments.append(env)
        return begin(*arguments, env=env, **options)

    monkeypatch.setenv("GLIBC_TUNABLES", told)
    monkeypatch.setattr(subprocess, "Popen", noted)
    with EmbeddedServer(tmp_path / "redis") as server:
        assert Redis.from_url(server.url).ping()
    [environment] = environments
    assert environment == os.environ | {
        "GLIBC_TUNABLES": f"glibc.malloc.tcache_count=2048:{told}"  # the last counts
    }


@pytest.mark.slow
def test_up_answers_over_http_also_while_edited_definitions_are_taken_up(terminal, folder):
    up = terminal("--port", "0")
    url = up.sees(r"server: serving .* at (http://127.0.0.1:\d+);")[1]
    write(folder / "drops" / "a.parquet", purchases((1, 0, 2.0)))
    up.sees(r"spend +1\.0\.0 .* pushed")
    edited = DEFINITIONS.replace('"7d"', '"8d"')
    assert edited != DEFINITIONS
    (folder / "definitions.py").write_text(edited)

    def columns() -> set[str]:
        """Each request is answered: the socket outlives the process that answers on it."""
        with urllib.request.urlopen(f"{url}/v1/features/spend", timeout=60) as answer:
            return {column["name"] for column in json.load(answer)["columns"]}

    eventually(lambda: any("8d" in column for column in columns()))
    up.sees(r"definitions taken up")
    eventually(lambda: up.text.count("server: serving") > 1)  # its line may come behind its answers
    assert up.text.count("server: serving") == 2, "at the start, and with the edited definitions"
    first = next(pid for pid in up.family() if b"\0serve" in command_of(pid))
    os.kill(first, signal.SIGKILL)
    up.sees("server ended .killed by SIGKILL.; it starts again")
    assert columns()
    assert up.end() == 0
    assert up.family() == []


@pytest.mark.parametrize(
    ("definitions", "url", "says"),
    [
        pytest.param(
            "this is not python",
            None,
            "definitions.py:1: does not import",
            marks=pytest.mark.slow,
        ),
        (DEFINITIONS, "redis://127.0.0.1:1/0", "no Redis answers at redis://127.0.0.1:1/0"),
        pytest.param(
            DEFINITIONS, "not a url", "no Redis answers at not a url", marks=pytest.mark.slow
        ),
    ],
)
def test_what_cannot_start_says_why_in_one_line(terminal, folder, definitions, url, says):
    (folder / "definitions.py").write_text(definitions)
    up = terminal(**({"REDIS_URL": url} if url else {}))
    assert up.process.wait(60) == 1
    assert says in up.text
    assert "Traceback" not in up.text
    assert up.family() == []
