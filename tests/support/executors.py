"""Clusters on loopback whose executors run a build's tasks, and projects that are built by them as a user would.

Their packages take hundreds of megabytes, so .ci/run makes environments for them: MLFORGE_RUNNERS names the Python that has
Sail, Ray and Dask, MLFORGE_SPARK that which has the whole of Spark.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from mlforge.store import LocalStore
from tests.support.projects import rows
from tests.support.workers import eventually

TASKS, FILES = 6, 12
DEFINITIONS = """
import os
import signal
import time
from pathlib import Path

import mlforge.build.full
import mlforge.build.intake_by_tasks.tasks
from functools import partial
from mlforge import Definitions, Service, feature
from mlforge.core import failpoints
from mlforge.metrics import Rolling
from mlforge.online import batches, shared_push
from mlforge.store import LocalStore, ObjectStore
from mlforge.training_sets.by_tasks import shared_writing
{imports}

HERE = Path(__file__).parent
mlforge.build.full.rows_at_once = lambda spec: 40
batches.EVENTS_HELD, shared_push.PARTS = 5, 1
shared_writing.TASK_BYTES = 0
if (HERE / "in-groups").exists():
    mlforge.build.intake_by_tasks.tasks.GROUP_FILES = 2


@feature(keys=["user_id"], source="drops/", timestamp="at", metrics=[Rolling("7d", {{"amount": ["count", "sum", "mean", "std"]}})])
def spend(df):
    return df


def once(name):
    try:
        (HERE / name).unlink()
    except FileNotFoundError:
        return False
    return True


def fault():
    if (HERE / "watch").exists():
        with (HERE / "watch").open("a") as watch:
            print(f"{{os.getpid()}}-{{time.time_ns()}}", file=watch)
    if (HERE / "fail").exists():
        raise RuntimeError("the disk of this executor is on fire")
    if (HERE / "always").exists() or once("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    while (HERE / "hold").exists() and len(list(HERE.glob("feature_store/spend/.tasks/*.json"))) > 2:
        time.sleep(0.01)


def ran(what):
    if (HERE / "watch").exists():
        with (HERE / "watch").open("a") as watch:
            print(f"{{what}}-{{os.getpid()}}-{{time.time_ns()}}", file=watch)
    if once(f"kill-{{what}}"):
        os.kill(os.getpid(), signal.SIGKILL)


failpoints.arm("task.written", fault)
failpoints.arm("task.ingested", partial(ran, "ingested"))
failpoints.arm("task.put", partial(ran, "put"))
failpoints.arm("task.set", partial(ran, "set"))
services = [Service("checkout", features=[spend])]
defs = Definitions({store}, [spend], services=services, distribute_above=0, {settings})
"""


SPARK = "from mlforge.runners import SparkRunner"
SPARK_HERE = {"SPARK_LOCAL_IP": "127.0.0.1"}


def python_with(variable: str, module: str) -> str:
    """The interpreter of an environment that has a module; skips the test where there is none."""
    named = os.environ.get(variable)
    if named is None and not _is_installed(module):
        pytest.skip(f"{variable} names no Python with {module}: .ci/run makes one")
    return named or sys.executable


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it would be in
        return False


@dataclass(frozen=True)
class Cluster:
    """A cluster at an address: `runner` is how definitions name it, `python` that of whoever builds.

    survives: whether it goes on when a process that runs tasks is killed. pushes: whether it has part in pushes.
    """

    address: str
    runner: str
    python: str
    imports: str = ""
    survives: bool = True
    pushes: bool = True


HOME = Cluster("", '"local"', sys.executable)
"""No cluster: a build by one process alone."""
PROCESSES = Cluster(
    "this machine",
    '"local", memory_limit=8 << 30',
    sys.executable,
    "from mlforge.core import machine\nmachine.cores, machine.memory = lambda: 2, lambda: 8 << 30",
    pushes=False,
)
"""Two processes of this machine, whatever its cores and its memory."""


def project(
    folder: Path,
    cluster: Cluster,
    settings: str = "",
    files: int = FILES,
    store: str = 'LocalStore("feature_store")',
) -> Path:
    """A project of so many weeks, a file each, of amounts whose sums round, and a file that is none."""
    (folder / "drops").mkdir(parents=True)
    for week in range(files):
        events = [(n % 3, week * 7 + n / 3, (n + 1) / 7 + week**5 / 3) for n in range(20)]
        rows(*events).write_parquet(folder / "drops" / f"w{week:02}.parquet")
    (folder / "drops" / "damaged.parquet").write_bytes(b"PAR1 and no more")
    define(folder, cluster, settings, store)
    return folder


def define(
    folder: Path,
    cluster: Cluster,
    settings: str = "",
    store: str = 'LocalStore("feature_store")',
) -> None:
    """Write a project's definitions, which name the cluster."""
    about = f"runner={cluster.runner}, {settings}"
    text = DEFINITIONS.format(imports=cluster.imports, settings=about, store=store)
    (folder / "definitions.py").write_text(text)


def command(cluster: Cluster, *arguments: str) -> list[str]:
    """The line that builds a project, or that of another command."""
    return [cluster.python, "-P", "-m", "mlforge", *(arguments or ("build",))]


def build(
    folder: Path, cluster: Cluster, *arguments: str, **others: str
) -> subprocess.CompletedProcess[str]:
    """`mlforge build`, or another command, in a project's folder; what it said is told where a test fails."""
    built = subprocess.run(
        command(cluster, *arguments),
        cwd=folder,
        env=environment(cluster.python, **others),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    sys.stdout.write(f"{built.args}: {built.returncode}\n{built.stdout}\n{built.stderr}\n")
    return built


def environment(python: str, **others: str) -> dict[str, str]:
    """The environment of a process of an interpreter, whose programs come first."""
    path = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONWARNINGS": "ignore", **others}


def published(project: Path) -> list[tuple[str, str]]:
    """The parts of the project's version, with the hashes of their bytes."""
    return [
        (part.file, part.hash)
        for part in LocalStore(project / "feature_store").read_metadata("spend").parts
    ]


def result_files(project: Path) -> list[Path]:
    """The results of tasks that lie in the store."""
    documents = (project / "feature_store" / "spend" / ".tasks").glob("*.json")
    return [path for path in documents if '"parts"' in path.read_text()]


@contextmanager
def started(
    command: list[str], log: Path, python: str, **others: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with all that it starts, killed at the end."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env=environment(python, **others),
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def said(log: Path, pattern: str) -> str:
    """What a process said, once it has."""
    found: list[str] = []

    def says() -> bool:
        found[:] = re.findall(pattern, log.read_text(errors="replace"))
        return bool(found)

    eventually(says)
    return found[0]


@contextmanager
def sail(folder: Path, **others: str) -> Iterator[Cluster]:
    """Sail, which speaks Spark Connect and runs tasks as threads of its server."""
    python, log = python_with("MLFORGE_RUNNERS", "pysail"), folder / "sail.log"
    command = [_beside(python, "sail"), "spark", "server", "--port", "0"]
    with started(command, log, python, **others):
        address = f"sc://{said(log, r'server on (127.0.0.1:[1-9][0-9]*)')}"
        yield Cluster(address, f"SparkRunner({address!r})", python, SPARK, survives=False)


@contextmanager
def spark_master(folder: Path) -> Iterator[Cluster]:
    """A standalone cluster of Spark, by its master, with a worker of two cores."""
    python, log = python_with("MLFORGE_SPARK", "pyspark.core"), folder / "master.log"
    if shutil.which("java") is None:
        pytest.skip("no Java on this machine: Spark needs 17 or later")
    spark_class = [_beside(python, "spark-class")]
    master = "org.apache.spark.deploy.master.Master --host 127.0.0.1 --port 0 --webui-port 0"
    with started([*spark_class, *master.split()], log, python, **SPARK_HERE):
        address = said(log, r"Starting Spark master at (spark://\S+)")
        worker = f"org.apache.spark.deploy.worker.Worker --host 127.0.0.1 --cores 2 --memory 1g --webui-port 0 {address}"
        work = {**SPARK_HERE, "SPARK_WORKER_DIR": str(folder / "work")}
        with started([*spark_class, *worker.split()], folder / "worker.log", python, **work):
            said(folder / "worker.log", "Successfully registered with master")
            yield Cluster(address, f"SparkRunner({address!r})", python, SPARK)


@contextmanager
def spark_connect(folder: Path) -> Iterator[Cluster]:
    """A Spark Connect server that has a standalone cluster of Spark to itself."""
    with spark_master(folder) as cluster:
        submit = f"{_beside(cluster.python, 'spark-submit')} --master {cluster.address} --conf spark.ui.enabled=false"
        server = "--conf spark.connect.grpc.binding.port=0 --class org.apache.spark.sql.connect.service.SparkConnectServer"
        log, here = folder / "connect.log", {**SPARK_HERE, "PYSPARK_PYTHON": cluster.python}
        with started(f"{submit} {server} spark-internal".split(), log, cluster.python, **here):
            port = said(log, r"Spark Connect server started at: \S*?:([0-9]+)")
            address = f"sc://127.0.0.1:{port}"
            yield replace(cluster, address=address, runner=f"SparkRunner({address!r})")


@contextmanager
def dask(folder: Path) -> Iterator[Cluster]:
    """A scheduler of Dask with two workers, each of which a nanny starts again."""
    python = python_with("MLFORGE_RUNNERS", "distributed")
    with dask_scheduler(folder) as cluster:
        work = f"worker {cluster.address} --host 127.0.0.1 --nworkers 2 --nthreads 1 --no-dashboard --local-directory {folder}"
        with started([_beside(python, "dask"), *work.split()], folder / "workers.log", python):
            said(folder / "workers.log", "Registered to")
            yield cluster


@contextmanager
def dask_scheduler(folder: Path) -> Iterator[Cluster]:
    """A scheduler of Dask without a worker."""
    python, log = python_with("MLFORGE_RUNNERS", "distributed"), folder / "scheduler.log"
    serve = "scheduler --host 127.0.0.1 --port 0 --dashboard-address 127.0.0.1:0"
    with started([_beside(python, "dask"), *serve.split()], log, python):
        address = said(log, r"Scheduler at:\s+(tcp://\S+)")
        runner = f"DaskRunner({address!r}, start_within=20)"
        yield Cluster(address, runner, python, "from mlforge.runners import DaskRunner")


@contextmanager
def ray(folder: Path, **environment: str) -> Iterator[Cluster]:
    """A Ray of one machine with two cores, reached by its server for clients."""
    python, port = python_with("MLFORGE_RUNNERS", "ray"), _free_port()
    start = f"start --head --node-ip-address=127.0.0.1 --port={_free_port()} --ray-client-server-port={port} --num-cpus=2"
    quiet = (
        "--include-dashboard=false --disable-usage-stats --object-store-memory=100000000 --block"
    )
    with tempfile.TemporaryDirectory(
        prefix="ray"
    ) as short:  # paths of sockets have at most 107 bytes
        command = [_beside(python, "ray"), *start.split(), *quiet.split(), f"--temp-dir={short}"]
        with started(command, folder / "ray.log", python, **environment):
            eventually(lambda: _listens(port))
            address = f"ray://127.0.0.1:{port}"
            runner = f"RayRunner({address!r})"
            yield Cluster(address, runner, python, "from mlforge.runners import RayRunner")


def _beside(python: str, program: str) -> str:
    return str(Path(python).with_name(program))


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False
