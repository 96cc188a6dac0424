"""What the tests of the worker share: one embedded server, and waiting on conditions."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from redis import Redis

from mlforge.cli import main
from mlforge.store import LocalStore
from tests.support import contents
from worker.project import Project, Settings
from worker.service.embedded_redis import EmbeddedServer
from worker.state.pending import PendingRequest
from worker.state.ticket import Ticket
from worker.state.work_queue import Request, WorkQueue

RQ_WORKER = [
    str(Path(sys.executable).with_name("rq")),
    *("worker", "-w", "worker.queue.ForgeWorker", "-S", "json", "mlforge"),
]


def eventually(condition: Callable[[], Any], within: float = 60.0, every: float = 0.02) -> Any:
    """Wait until the condition gives something true, and return that."""
    deadline = time.monotonic() + within
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within} s: {condition}"
        time.sleep(every)


def write(path: Path, content: bytes) -> Path:
    """Put a file there in one step, as a careful producer does."""
    contents.note(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".tmp")
    part.write_bytes(content)
    part.rename(path)
    return path


def requested(
    work_queue: WorkQueue,
    feature: str,
    reason: str,
    closed_at: int | None = None,
    afresh: bool = True,
    paths: Collection[str] | None = None,
) -> Request:
    """The answer to a request of one feature's refresh, as `PendingRequest` has it."""
    named = None if paths is None else frozenset(paths)
    pending = PendingRequest(reason, closed_at, afresh, named)
    answer = work_queue.request_each({feature: pending})[feature]
    assert isinstance(answer, Request)
    return answer


DEFINITIONS = """
import time
from pathlib import Path

import polars as pl

from mlforge import Definitions, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore

HERE = Path(__file__).parent


def is_there(name: str) -> bool:
    # Past Python: a function of a feature may ask for no file.
    import ctypes

    return ctypes.CDLL(None).access(str(HERE / name).encode(), 0) == 0


@feature(
    keys=["user_id"],
    source="drops/",
    timestamp="at",
    metrics=[Rolling(["7d"], {"amount": ["sum", "count"]})],
)
def spend(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", "amount")


@feature(keys=["user_id"], source="slow/", timestamp="at", incremental=True)
def slow(df: pl.DataFrame) -> pl.DataFrame:
    (HERE / "at_work").touch()
    while is_there("block"):
        time.sleep(0.01)
    return df.select("user_id", "at", "amount")


@feature(keys=["user_id"], source="poison/", timestamp="at", incremental=True)
def poison(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("no_such_column")


defs = Definitions(store=LocalStore(HERE / "feature_store"), features=[spend, slow, poison], name="shop")
"""


# As many features as a test names, each with a source of its own: one pair of processes for all of them.
SEVERAL = """
from pathlib import Path

import polars as pl

from mlforge import Definitions, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore

HERE = Path(__file__).parent


def is_there(name: str) -> bool:
    # Past Python: a function of a feature may ask for no file.
    import ctypes

    return ctypes.CDLL(None).access(str(HERE / name).encode(), 0) == 0


def events(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", "amount")


def rolling(name: str, source: str, **options: object):
    return feature(
        keys=["user_id"],
        source=source,
        timestamp="at",
        metrics=[Rolling(["7d"], {{"amount": ["sum", "count"]}})],
        name=name,
        **options,
    )(events)


SOURCES = {sources!r}
OPTIONS = {options!r}
defs = Definitions(
    store=LocalStore(HERE / "feature_store"),
    features=[rolling(name, source, **OPTIONS.get(name, {{}})) for name, source in SOURCES.items()],
    name="shop",
    **{settings!r},
)
"""


def several(
    sources: Mapping[str, str],
    options: Mapping[str, Mapping[str, object]] | None = None,
    settings: Mapping[str, object] | None = None,
) -> str:
    """Definitions of features by name and source: the sum and the count of a week; options by name."""
    return SEVERAL.format(
        sources=dict(sources), options=dict(options or {}), settings=dict(settings or {})
    )


def purchases(*rows: tuple[int, int, float]) -> bytes:
    """A parquet file of (user, second of 2024, amount)."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    frame = pl.DataFrame(
        {
            "user_id": [user for user, _, _ in rows],
            "at": [start + timedelta(seconds=second) for _, second, _ in rows],
            "amount": [amount for _, _, amount in rows],
        },
        schema={"user_id": pl.Int64, "at": pl.Datetime("us", "UTC"), "amount": pl.Float64},
    )
    return contents.as_parquet(frame)


def ask(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `mlforge ...` to its end in a folder, in the test's own process: a process takes a second to start."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("REDIS_URL", "REDIS_URL_FILE", "MLFORGE_DEFINITIONS"):
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        with redirect_stdout(out), redirect_stderr(err):
            code = main(command)
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


@dataclass
class Shop:
    """A project folder on a server, and the processes that run for it."""

    folder: Path
    url: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    definitions: str = DEFINITIONS
    sources: Sequence[str] = ("drops", "slow", "poison")

    def __post_init__(self) -> None:
        (self.folder / "definitions.py").write_text(self.definitions)
        for source in self.sources:
            (self.folder / source).mkdir(parents=True)

    @property
    def environment(self) -> dict[str, str]:
        """What its processes are told."""
        return {**os.environ, "REDIS_URL": self.url, "MLFORGE_DEFINITIONS": "definitions.py"}

    @cached_property
    def project(self) -> Project:
        """The project as these tests look at it."""
        return Project.open(Settings(self.url, "definitions.py", self.folder))

    @property
    def store(self) -> LocalStore:
        """Its offline store."""
        return LocalStore(self.folder / "feature_store")

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start `mlforge ...`; its output goes to a file that a failing test shows."""
        return self.run([sys.executable, "-m", "mlforge", *command])

    def run(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start any process of the project."""
        with (self.folder / "output.log").open("ab") as output:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=output, stderr=output
            )
        self.processes.append(process)
        return process

    def start_rq_workers(self, count: int) -> None:
        """Start so many workers as rq's own command does, and wait until they are ready: the first of this shop."""
        for _ in range(count):
            self.run(RQ_WORKER)
        eventually(lambda: len(self.log("worker ready")) == count)

    def ask(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run `mlforge ...` to its end, in the test's own process."""
        own = {name: self.environment[name] for name in ("REDIS_URL", "MLFORGE_DEFINITIONS")}
        return ask(self.folder, *command, **own)

    def ask_apart(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run `mlforge ...` to its end, in a process of its own."""
        return subprocess.run(
            [sys.executable, "-m", "mlforge", *command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def versions(self, feature: str) -> list[str]:
        """The feature's versions so far."""
        return [str(version) for version in self.store.versions(feature)]

    def online(self, feature: str, user: int) -> dict[str, Any] | None:
        """The user's row online."""
        return self.project.online.read(feature, {"user_id": user})

    def ticket(self, feature: str) -> Ticket:
        """How the feature stands."""
        return self.project.work_queue.read([feature])[0]

    def log(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """What its processes have logged so far: entries of an event that have these fields."""
        lines = (self.folder / "output.log").read_text().splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        found = [entry for entry in entries if event in entry["event"]]
        return [entry for entry in found if fields.items() <= entry.items()]

    def stop(self) -> None:
        """End all of its processes."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        sys.stdout.write((self.folder / "output.log").read_text() if self.processes else "")


@contextmanager
def running_shop(
    server: EmbeddedServer,
    folder: Path,
    commands: Sequence[Sequence[str]] = (["watch"], ["worker"]),
    **about: Any,
) -> Iterator[Shop]:
    """A shop on an emptied server, with these processes of `mlforge`; none outlives the block, however it ends."""
    Redis.from_url(server.url).flushall()
    made = Shop(folder, server.url, **about)
    try:
        for command in commands:
            made.start(*command)
        yield made
    finally:
        made.stop()
