"""Turns of a watcher for `benchmarks.queue_load`: made up, or of files that another process writes."""

from __future__ import annotations

import io
import multiprocessing
import random
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from mlforge.core import clock
from mlforge.sources.source import Source
from worker.logs import configure
from worker.project import Project, Settings
from worker.queue.requests import Requests
from worker.state.pending import PendingRequest, merge_into
from worker.watch.watcher import DEBOUNCE_MS, Timing, Watcher

_TURN_S = DEBOUNCE_MS / 1_000
_SEED = 7
_DEFINITIONS = """
import polars as pl

from mlforge import Definitions, feature
from mlforge.store import LocalStore


@feature(keys=["user_id"], source="events/")
def spend(df: pl.DataFrame) -> pl.DataFrame:
    return df


defs = Definitions(LocalStore("feature_store"), [spend])
"""


@dataclass(frozen=True)
class Load:
    """So many drops a second into so many sources, each of which some features read.

    workers: so many refreshes run at once, each of which takes `refresh_s`. root: the folder of all, which lies on the server at `url`.
    """

    root: Path
    url: str
    sources: int
    features: int
    rate: float
    seconds: float
    workers: int
    refresh_s: float

    def project(self) -> Project:
        """The project whose queue it is; its features are asked for by names alone."""
        file = self.root / "definitions.py"
        if not file.exists():
            file.write_text(_DEFINITIONS)
        return Project.open(Settings(self.url, str(file), self.root))

    def names(self, source: int) -> list[str]:
        """The features of a source."""
        return [f"feature_{source}_{number}" for number in range(self.features)]

    def folder(self, source: int) -> Path:
        """The folder of a source."""
        return self.root / "sources" / f"source_{source}"


class Sent(NamedTuple):
    """What a watcher's turns came to: drops, marks and turns.

    seconds: from the first drop to the end of the last turn. cpu_s: CPU time of the process. longest_s: the longest time that a turn
    took to request what it had seen.
    """

    drops: int
    marks: int
    turns: int
    seconds: float
    cpu_s: float
    longest_s: float


class _Sender:
    """A sender of what each turn has seen, as `mlforge watch` sends it."""

    def __init__(self, load: Load) -> None:
        configure("watcher", "WARNING")
        self._project = load.project()
        self._requests = Requests(self._project)
        self._marks = self._turns = 0
        self._longest_s = 0.0
        self.begin()

    def begin(self) -> None:
        """Count time from now on."""
        self._begun, self._cpu = time.perf_counter(), time.process_time()

    def __call__(self, pending: Mapping[str, PendingRequest]) -> None:
        began = time.perf_counter()
        self._requests.each(pending)
        self._project.counts.add_drops(pending)
        self._longest_s = max(self._longest_s, time.perf_counter() - began)
        self._marks, self._turns = self._marks + len(pending), self._turns + 1

    def sent(self, drops: int) -> Sent:
        """The sum of all turns, of which this was the last."""
        seconds, cpu = time.perf_counter() - self._begun, time.process_time() - self._cpu
        return Sent(drops, self._marks, self._turns, seconds, cpu, self._longest_s)


def made_up(load: Load) -> Sent:
    """Turns at a watcher's intervals, each of which has seen the drops of its time, into sources by chance."""
    send, chosen, drops = _Sender(load), random.Random(_SEED), 0
    begun = time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < load.seconds:
        pending: dict[str, PendingRequest] = {}
        while drops < elapsed * load.rate:
            file = f"drop-{drops:09d}.parquet"
            request = PendingRequest(f"{file} came", clock.now(), paths=frozenset([file]))
            names = load.names(chosen.randrange(load.sources))
            merge_into(pending, dict.fromkeys(names, request))
            drops += 1
        send(pending)
        time.sleep(max(0.0, _TURN_S - (time.perf_counter() - begun - elapsed)))
    return send.sent(drops)


def process() -> ProcessPoolExecutor:
    """A process of its own."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def watched(load: Load) -> Sent:
    """Turns of a watcher that sees files which another process drops, until it has told of the last."""
    for number in range(load.sources + 1):
        load.folder(number).mkdir(parents=True)
    sources = {
        name: Source.of(f"{load.folder(number)}/", load.root)
        for number in range(load.sources + 1)
        for name in load.names(number)
    }
    send, last = _Sender(load), load.names(load.sources)[0]
    stands, stop = threading.Event(), threading.Event()

    def request(pending: Mapping[str, PendingRequest]) -> None:
        send(pending)
        if stands.is_set() and last in pending:
            stop.set()

    watching = Watcher(sources, request, Timing(), on_start=stands.set)
    thread = threading.Thread(target=watching.run, args=(stop,))
    thread.start()
    stands.wait()
    with process() as pool:
        send.begin()
        drops = pool.submit(_dropped, load).result()
        thread.join()
    return send.sent(drops)


def _dropped(load: Load) -> int:
    """Drop files into sources by chance, and at the end one into a source beside them; returns how many."""
    small = io.BytesIO()
    pl.DataFrame({"user_id": [1], "amount": [2.0]}).write_parquet(small)
    content, chosen, drops = small.getvalue(), random.Random(_SEED), 0
    begun = time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < load.seconds:
        while drops < elapsed * load.rate:
            _drop(load.folder(chosen.randrange(load.sources)), drops, content)
            drops += 1
        time.sleep(0.001)
    _drop(load.folder(load.sources), drops, content)
    return drops + 1


def _drop(folder: Path, number: int, content: bytes) -> None:
    hidden = folder / f".drop-{number:09d}"
    hidden.write_bytes(content)
    hidden.rename(folder / f"drop-{number:09d}.parquet")
