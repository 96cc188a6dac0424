"""Fixtures that several test files share.

What the process that hands out the tests needs is imported here, and by the fixtures what they need: it starts first,
and all others wait for it.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.covering import beyond
from tests.support.order import LONGEST, longest_first

if TYPE_CHECKING:
    from redis import Redis

    from tests.support.clusters import Cluster
    from tests.support.workers import Shop
    from worker.service.embedded_redis import EmbeddedServer

# Modules are compiled once, also where the environment says to keep nothing: the processes that tests start would
# compile all of mlforge each time, and both processes of the run all tests.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

MEMORY, ROOM = Path("/dev/shm"), 4 << 30


def _holds_files(folder: Path) -> bool:
    """Whether tests may put their files into a folder in memory: it is there, has room for them, and programs run from it."""
    if not os.access(folder, os.W_OK):
        return False
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize >= ROOM and not found.f_flag & os.ST_NOEXEC


# What is imported and collected stays: the garbage collector begins when the tests do.
gc.disable()

UNIT = Path(__file__).parent / "unit"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Four processes on two cores: some work while others wait for what they have started. Unit tests wait for none, and slow ones for less."""
    if _are_unit_tests_alone(config):
        return 2
    return 4 if _leaves_slow_ones_out(config) else 3


def _are_unit_tests_alone(config: pytest.Config) -> bool:
    paths = (Path(argument.partition("::")[0]).resolve() for argument in config.args)
    return all(path.is_relative_to(UNIT) for path in paths)


def _leaves_slow_ones_out(config: pytest.Config) -> bool:
    return bool(config.getoption("markexpr") == "not slow")


def pytest_configure(config: pytest.Config) -> None:
    """Put the files of tests into memory, let processes that they start hear Ctrl-C, and draw the same examples in each run.

    A store syncs each file that it writes, which takes a disk a few milliseconds each time, and memory none.
    `python -m tests.property.proof` draws new examples, and unit tests draw none.
    """
    if _holds_files(MEMORY):
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it in its background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    runs_tests = config.getoption("dist", "no") == "no" or hasattr(config, "workerinput")
    if runs_tests and not _are_unit_tests_alone(config):
        from hypothesis import settings

        settings.register_profile("same", derandomize=True, deadline=None)
        settings.load_profile("same")


def pytest_collection(session: pytest.Session) -> None:
    """Import the test modules, each process of a run beginning with others.

    Whoever imports a test module of a fresh checkout first compiles it for all, which takes longer than the import. In one order, each
    process would compile each of them at the same time as the others.
    """
    process = getattr(session.config, "workerinput", None)
    if process is None:
        return
    from tests.support.importing import import_all, in_turn

    folders = [path for path in map(Path, session.config.args) if path.is_dir()]
    modules = sorted(path.resolve() for folder in folders for path in folder.rglob("test_*.py"))
    number = int(process["workerid"].removeprefix("gw"))
    import_all(in_turn(modules, number, process["workercount"]))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Iterator[None]:
    """Leave to the slow run what large products of parameters have beyond a covering part, and begin with what is long."""
    for item in beyond(items):
        item.add_marker(pytest.mark.slow)
    yield
    longest = () if _leaves_slow_ones_out(config) else LONGEST
    processes = getattr(config, "workerinput", {}).get("workercount", 1)
    items[:] = longest_first(items, processes, longest)


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what was imported and collected, which it would look at each time, and come less often."""
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end what long runs counted, whichever process they ran in."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")


@pytest.fixture(autouse=True)
def _own_logs_and_end() -> Iterator[None]:
    """What a command configures of the logs ends with its test; what one before made of SIGTERM has ended, too."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    import structlog

    structlog.reset_defaults()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The URL of a real server that lives as long as the session."""
    from tests.support.servers import running

    with running() as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The URL of an empty database."""
    import redis

    with redis.Redis.from_url(redis_server) as client:
        client.flushdb()
    return redis_server


@pytest.fixture(scope="session")
def cluster_server() -> Iterator[Cluster]:
    """A real cluster of three that lives as long as the session."""
    from tests.support.clusters import cluster

    with cluster() as nodes:
        yield nodes


@pytest.fixture
def empty_cluster(cluster_server: Cluster) -> Cluster:
    """The cluster, empty."""
    cluster_server.flush()
    return cluster_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """The server that `mlforge up` brings along, for the tests of one module."""
    from worker.service.embedded_redis import EmbeddedServer

    with EmbeddedServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def redis(server: EmbeddedServer) -> Iterator[Redis]:
    """A client of that server, which holds nothing."""
    from redis import Redis

    client = Redis.from_url(server.url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture(scope="module")
def shop(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop on that server, with its watcher and one worker running."""
    from tests.support.workers import running_shop

    with running_shop(server, tmp_path_factory.mktemp("shop")) as made:
        yield made
