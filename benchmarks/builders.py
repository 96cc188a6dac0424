"""Processes that build one project in full, again and again, and the clusters whose executors they have at work."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.freshness import until
from benchmarks.harness import Bench, check
from mlforge.store import LocalStore
from worker.child_process import bound_to_parent

_CODE = Path(__file__).parents[1]
_START_S = 120.0
_FILE = """
import polars as pl

from mlforge import Definitions, feature
from mlforge.metrics import Rolling
from mlforge.runners import SparkRunner
from mlforge.store import LocalStore


@feature(keys=["user_id"], source="events/", timestamp="event_time", metrics=[Rolling({windows}, {{"amount": {aggregations}}})])
def spend(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "event_time", "amount")


defs = Definitions(LocalStore("feature_store"), [spend], runner={runner}, distribute_above=0, fallback="local")
"""


@dataclass(frozen=True)
class Columns:
    """The columns that are built: aggregations of the amounts over windows."""

    aggregations: Sequence[str]
    windows: Sequence[str]


@dataclass(frozen=True)
class Builder:
    """A process that builds a project by a runner."""

    root: Path
    process: subprocess.Popen[str]

    def build(self) -> float:
        """Seconds of a full build."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        check(bool(answer), f"the build in {self.root} failed")
        return float(answer)

    @property
    def parts(self) -> list[str]:
        """The hashes of the parts that are served."""
        manifest = LocalStore(self.root / "feature_store").read_metadata("spend")
        return [part.hash for part in manifest.parts]


@dataclass(frozen=True)
class Server:
    """A Spark Connect server, or Sail, with its executors: its runner as code, and the Python of who builds by it."""

    runner: str
    python: str
    pid: int


@contextmanager
def builder(
    bench: Bench,
    columns: Columns,
    runner: str = '"local"',
    python: str = sys.executable,
    cores: Collection[int] | None = None,
    **environment: str,
) -> Iterator[Builder]:
    """A builder of all of the history. cores: those that it may use, None for all."""
    root = bench.new_folder("built")
    (root / "events").mkdir()
    for file in bench.history():
        os.link(file, root / "events" / file.name)
    wanted = {"windows": [*columns.windows], "aggregations": [*columns.aggregations]}
    (root / "definitions.py").write_text(_FILE.format(runner=runner, **wanted))
    process = subprocess.Popen(
        bound_to_parent([python, "-m", "benchmarks.building", str(root)]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_environment(python, **environment),
    )
    if cores is not None:  # before it starts a thread
        os.sched_setaffinity(process.pid, cores)
    with process:
        yield Builder(root, process)
        assert process.stdin is not None
        process.stdin.close()


@contextmanager
def sail(bench: Bench, python: str, at_once: int | None = None) -> Iterator[Server]:
    """Sail, whose executors are threads of its server. at_once: the most tasks at once."""
    log = bench.new_folder("sail") / "log"
    with _started(
        [_beside(python, "sail"), *["spark", "server", "--port", "0"]], log, python
    ) as pid:
        address = _said(log, r"server on (127.0.0.1:[1-9][0-9]*)")
        yield Server(f"SparkRunner('sc://{address}', at_once={at_once})", python, pid)


@contextmanager
def spark(bench: Bench, python: str) -> Iterator[Server]:
    """A Spark Connect server with a standalone cluster of Spark, of one worker with two cores, to itself."""
    folder = bench.new_folder("spark")
    here = {
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_DIRS": str(folder),
        "PYSPARK_PYTHON": python,
    }
    start = partial(_started, python=python, **here, SPARK_WORKER_DIR=str(folder / "work"))
    spark_class = [_beside(python, "spark-class")]
    master = "org.apache.spark.deploy.master.Master --host 127.0.0.1 --port 0 --webui-port 0"
    worker = "org.apache.spark.deploy.worker.Worker --host 127.0.0.1 --cores 2 --memory 1g --webui-port 0"
    server = "--class org.apache.spark.sql.connect.service.SparkConnectServer spark-internal"
    with start([*spark_class, *master.split()], folder / "master.log"):
        address = _said(folder / "master.log", r"Starting Spark master at (spark://\S+)")
        with start([*spark_class, *worker.split(), address], folder / "worker.log"):
            _said(folder / "worker.log", "(Successfully registered with master)")
            ports = [
                "--conf",
                "spark.connect.grpc.binding.port=0",
                "--conf",
                "spark.ui.enabled=false",
            ]
            submit = [_beside(python, "spark-submit"), "--master", address, *ports, *server.split()]
            with start(submit, folder / "connect.log") as pid:
                port = _said(
                    folder / "connect.log", r"Spark Connect server started at: \S*?:([0-9]+)"
                )
                yield Server(f"SparkRunner('sc://127.0.0.1:{port}')", python, pid)


@contextmanager
def _started(command: list[str], log: Path, python: str, **environment: str) -> Iterator[int]:
    """The id of a process, killed at the end with all that it has started."""
    with log.open("w") as out:
        process = subprocess.Popen(
            bound_to_parent(command),
            stdout=out,
            stderr=out,
            start_new_session=True,
            env=_environment(python, **environment),
        )
    try:
        yield process.pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _environment(python: str, **others: str) -> dict[str, str]:
    """The environment of a process whose programs come first, with the code that is measured for each that it starts."""
    path = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    return {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(_CODE),
        "PYTHONWARNINGS": "ignore",
        **others,
    }


def _said(log: Path, pattern: str) -> str:
    """What a process said, once it has."""
    until(lambda: re.search(pattern, log.read_text(errors="replace")) is not None, _START_S)
    [said, *_] = re.findall(pattern, log.read_text(errors="replace"))
    return str(said)


def _beside(python: str, program: str) -> str:
    return str(Path(python).with_name(program))
