"""Faults for real processes: named places where one is killed or stopped, supervisors, servers that misbehave.

The definitions of a project arm every named place of the process that loads them, and of its forks: at
each the process looks for a file of that name in the project's folder `faults`, takes it away, and does to
itself what it says. So exactly one process obeys, at exactly that place.
"""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog
from redis import Redis

import mlforge
import worker
from mlforge.core import failpoints
from tests.support.paths import ROOT
from tests.support.workers import Shop, purchases, write
from worker.project import Project, Settings

FOLDER = "MLFORGE_TEST_FAULTS"


def places(package: Any) -> set[str]:
    """The named places in a package's code."""
    files = Path(package.__file__).parent.rglob("*.py")
    texts = (path.read_text(encoding="utf-8") for path in files)
    return {name for text in texts for name in re.findall(r"\breach\(\s*\"([^\"]+)\"", text)}


# -- in the process that is to fail


def arm() -> None:
    """Arm every place; definitions of tests call this, and it does nothing in the tests' own process."""
    if FOLDER in os.environ:
        folder = Path(os.environ[FOLDER])
        for place in places(mlforge) | places(worker):
            failpoints.arm(place, lambda place=place: _obey(folder, place))


def _obey(folder: Path, place: str) -> None:
    feature = structlog.contextvars.get_contextvars().get("feature")
    for order in (folder / place, folder / f"{place}@{feature}"):
        taken = order.with_name(f"done {os.getpid()} {order.name}")
        with suppress(FileNotFoundError):
            order.rename(taken)
            DEEDS[taken.read_text()]()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _take_the_worker_along() -> None:
    """Kill the parent alone; the kernel kills this process for it, at the latest in this wait."""
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _run_out_of_memory() -> None:
    raise MemoryError


DEEDS: dict[str, Callable[[], None]] = {
    "die": _die,
    "kill the worker": _take_the_worker_along,
    "stop": _stop,
    "run out of memory": _run_out_of_memory,
}


# -- in the test


HEAD = """
import sys
from pathlib import Path

import polars as pl

from mlforge import Definitions, feature
from mlforge.build import looking
from mlforge.metrics import Rolling
from mlforge.store import LocalStore
from tests.support import faults

faults.arm()
looking.MANY_FILES = 0  # jobs that are told which files changed look at these alone, however few there are
HERE = Path(__file__).parent
STORE = LocalStore(HERE / "feature_store")


def is_there(name: str) -> bool:
    # Past Python: a function of a feature may ask for no file.
    import ctypes

    return ctypes.CDLL(None).access(str(HERE / name).encode(), 0) == 0


def made(name, source="drops/", metrics=(), interval=None, **options):
    def function(df: pl.DataFrame) -> pl.DataFrame:
        return df.select("user_id", "at", "amount")

    return feature(
        name=name, keys=["user_id"], source=source, timestamp="at", interval=interval, metrics=metrics, **options
    )(function)


ROLLING = [Rolling(["7d", "30s"], {"amount": ["sum", "count"]})]
"""

USUAL = (
    HEAD
    + """
features = [
    made("spend", metrics=ROLLING),
    made("daily", interval="1d", metrics=[Rolling(["1d", "3d"], {"amount": ["sum", "max"]})]),
    made("newest"),
]
defs = Definitions(store=STORE, features=features, name="plant")
"""
)
ASKED = {name: [{"user_id": user} for user in range(1, 9)] for name in ("spend", "newest")}


def usual_with(feature: str, code: str) -> str:
    """The usual definitions and one feature more, which the code defines."""
    return USUAL.replace("features = [", f"{code}\n\nfeatures = [\n    {feature},")


@dataclass
class Plant(Shop):
    """A project whose processes can be told to fail."""

    text: str = USUAL
    extra: dict[str, str] = field(default_factory=dict)
    supervised: list[Supervised] = field(default_factory=list)
    drops: int = 0

    def __post_init__(self) -> None:
        (self.folder / "definitions.py").write_text(self.text)
        for name in ("drops", "faults"):
            (self.folder / name).mkdir()

    @property
    def environment(self) -> dict[str, str]:
        """What its processes are told."""
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        told = {FOLDER: str(self.folder / "faults"), "PYTHONPATH": path}
        return {**super().environment, **told, **self.extra}

    def reopened(self) -> Project:
        """The project of the definitions as they are now."""
        return Project.open(Settings(self.url, "definitions.py", self.folder))

    def order(self, place: str, deed: str = "die") -> Path:
        """Have the next process that comes to the place do something to itself; `place@feature` waits for one."""
        order = self.folder / "faults" / place
        hidden = order.with_name(f"{place}.tmp")
        hidden.write_text(deed)
        return hidden.rename(order)

    def obeyed(self, place: str) -> int | None:
        """The process that obeyed the last order at a place."""
        found = [
            path
            for path in (self.folder / "faults").glob("done *")
            if path.name.endswith(f" {place}")
        ]
        newest = max(found, key=lambda path: path.stat().st_ctime_ns, default=None)
        return int(newest.name.split()[1]) if newest else None

    def drop(
        self, *rows: tuple[int, int, float], name: str | None = None, into: str = "drops"
    ) -> Path:
        """Put a file there: two users of eight buy something, a minute after the last time."""
        self.drops += 1
        second = 60 * self.drops
        users = (self.drops % 8 + 1, (self.drops * 3) % 8 + 1)
        rows = rows or tuple((user, second, float(self.drops)) for user in users)
        return write(
            self.folder / into / f"{name or f'd{self.drops:05}'}.parquet", purchases(*rows)
        )

    def supervise(self, *command: str, procfile: bool = False) -> Supervised:
        """Keep a process running, as a service manager does."""
        line = procfile_line(command[0]) if procfile else None
        made = Supervised(self, command if line is None else tuple(line))
        self.supervised.append(made)
        return made

    def run_all(self, workers: int = 2) -> Self:
        """A watcher and workers as the Procfile starts them."""
        self.supervise("watcher", procfile=True)
        for _ in range(workers):
            self.supervise("worker", procfile=True)
        return self

    def stop(self) -> None:
        """End all of its processes."""
        for each in self.supervised:
            each.stop()
        super().stop()


def procfile_line(name: str) -> list[str]:
    """The command that the shipped Procfile gives a process."""
    for line in (ROOT / "Procfile").read_text().splitlines():
        found, _, command = line.partition(":")
        if found == name:
            return command.replace("exec ", "").split()
    raise AssertionError(f"no {name} in the Procfile")


class Supervised:
    """A process that is started again whenever it ends."""

    def __init__(self, plant: Plant, command: tuple[str, ...]) -> None:
        from sys import executable

        here = Path(executable).parent
        self._command = [str(here / command[0]), *command[1:]]
        self._plant, self.starts, self._ended = plant, 0, threading.Event()
        self._start()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """The process as it runs now."""
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL the process alone; it is started again."""
        self.process.kill()

    def stop(self) -> None:
        """Start it no more, and end it."""
        self._ended.set()
        self._thread.join()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
        self.process.terminate()

    def _start(self) -> None:
        self.starts += 1
        self.process: subprocess.Popen[bytes] = self._plant.run(self._command)

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            if self.process.poll() is not None:
                self._ended.wait(0.5)
                if not self._ended.is_set():
                    self._start()


@dataclass
class Proxy:
    """Stands between clients and a server, and may drop answers, delay them, or take no connection.

    drop_answers: so many answers are read and thrown away, and their connections cut: the server has done
    what it was asked, and the client does not know. drop_share: so is this share of all others, by chance.
    """

    server_port: int
    drop_answers: int = 0
    delay_s: float = 0.0
    cut: bool = False
    dropped: int = 0
    drop_share: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.close()
        self.cut_all()

    def cut_all(self) -> None:
        """Cut every connection that there is."""
        with self._lock:
            for each in self._open:
                _close(each)
            self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                if self.cut:
                    _close(client)
                    continue
                server = socket.create_connection(("127.0.0.1", self.server_port), timeout=60)
                server.settimeout(None)
            except OSError:
                if self._listener.fileno() < 0:
                    return
                with suppress(OSError, UnboundLocalError):
                    _close(client)
                continue
            with self._lock:
                self._open |= {client, server}
            for pair in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if answers and self.delay_s:
                    time.sleep(self.delay_s)
                if answers and self._drops():
                    break
                target.sendall(data)
        with self._lock:
            for each in (source, target):
                _close(each)
                self._open.discard(each)

    def _drops(self) -> bool:
        with self._lock:
            if self.drop_answers > 0:
                self.drop_answers -= 1
            elif self.chance.random() >= self.drop_share:
                return False
            self.dropped += 1
            return True


def _close(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


Copy = dict[bytes, tuple[int, bytes]]


_COPY = """
local held = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  table.insert(held, {key, redis.call('PTTL', key), redis.call('DUMP', key)})
end
return held
"""


def copy_of(client: Redis) -> Copy:
    """All that a server holds at one instant, with the life that it has left."""
    answer: Any = client.eval(_COPY, 0)
    return {key: (max(life, 0), content) for key, life, content in answer}


def restore(client: Redis, copy: Copy) -> None:
    """Take the server back to a copy in one step, as one that was started from an old file."""
    pipeline = client.pipeline()
    pipeline.flushall()
    for key, (life, content) in copy.items():
        pipeline.restore(key, life, content)
    pipeline.execute()


def running(plant: Plant) -> Iterator[Plant]:
    """For fixtures: a plant at work, stopped after."""
    try:
        yield plant
    finally:
        plant.stop()
