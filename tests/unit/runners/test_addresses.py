"""Addresses of clusters: what is refused where it is written, and what is said where nobody is there."""

from __future__ import annotations

import socket
import socketserver
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

from mlforge.definitions.runners import check_runner
from mlforge.errors import (
    DefinitionError,
    MissingExtra,
    RunnerUnavailable,
    TaskFailed,
    TaskRefused,
)
from mlforge.runners import DaskRunner, RayRunner, SparkRunner
from mlforge.runners.cluster import ClusterRunner
from mlforge.runners.dask import open_dask
from mlforge.runners.ray import open_ray
from mlforge.runners.spark import open_spark


@pytest.fixture
def closed() -> str:
    """An address at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{bound.getsockname()[1]}"


CLIENTS: list[tuple[type[ClusterRunner], str, str, str]] = [
    (SparkRunner, "sc://", "pyspark.sql.connect.session", "extra 'spark'"),
    (SparkRunner, "spark://", "pyspark.core.context", "pip install pyspark"),
    (DaskRunner, "tcp://", "distributed", "extra 'dask'"),
    (RayRunner, "ray://", "ray", "extra 'ray'"),
    (RayRunner, "", "ray", "extra 'ray'"),
]


@pytest.mark.parametrize(("runner", "scheme"), [client[:2] for client in CLIENTS])
def test_a_cluster_that_is_not_there_is_named_by_its_address(
    runner: type[ClusterRunner], scheme: str, closed: str
) -> None:
    says = f"no {runner.kind} at {scheme}{closed}: nobody listens .*name another$"
    with pytest.raises(RunnerUnavailable, match=says):
        runner(f"{scheme}{closed}").answers(["{}"])


def test_a_master_among_several_that_listens_is_enough(closed: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        runner = SparkRunner(f"spark://{closed},127.0.0.1:{server.getsockname()[1]}")
        runner.check_listens()
    assert SparkRunner("sc://spark/;token=x").places() == [("spark", 15_002)]
    assert SparkRunner("yarn").places() == []


@pytest.mark.parametrize(("runner", "scheme", "module", "says"), CLIENTS)
def test_a_client_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch,
    runner: type[ClusterRunner],
    scheme: str,
    module: str,
    says: str,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, module.partition(".")[0], None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        made = runner(f"{scheme}127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(MissingExtra, match=says):
            made.answers(["{}"])


@pytest.mark.parametrize(
    "options",
    [
        {"address": ""},
        {"address": 7},
        {"address": "sc://spark:ui"},
        {"address": "spark://one:7077,two:70770"},
        {"at_once": 0},
        {"at_once": "2"},
        {"definitions": ""},
        {"start_within": 0},
    ],
)
def test_settings_are_checked_where_they_are_written(options: Any) -> None:
    with pytest.raises(DefinitionError, match="SparkRunner: "):
        SparkRunner(**{"address": "sc://spark", **options})


@pytest.mark.parametrize(
    "address", ["spark:15002", "http://spark", "tcp://spark:1", "sc://", "yarns"]
)
def test_an_address_that_is_none_of_sparks_is_not_taken_for_a_classic_master(address: str) -> None:
    with pytest.raises(
        DefinitionError, match=f"address='{address}' is none of Spark's; write sc://"
    ):
        SparkRunner(address)


@pytest.mark.parametrize(
    "address", ["sc://s", "spark://s:7077", "k8s://https://s:443", "yarn", "local", "local[2]"]
)
def test_each_kind_of_sparks_addresses_is_taken(address: str) -> None:
    assert SparkRunner(address).address == address


@pytest.mark.parametrize(
    ("name", "variable", "opened"),
    [
        ("spark", "SPARK_REMOTE", open_spark),
        ("dask", "DASK_SCHEDULER_ADDRESS", open_dask),
        ("ray", "RAY_ADDRESS", open_ray),
    ],
)
def test_a_runner_by_name_takes_the_address_of_the_clusters_own_clients(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    variable: str,
    opened: Callable[[object], ClusterRunner],
) -> None:
    monkeypatch.delenv(variable, raising=False)
    assert check_runner(name) == name
    if name == "ray":
        assert opened(None).address == "auto"
    else:
        with pytest.raises(DefinitionError, match=f"set {variable}"):
            opened(None)

    address = "sc://cluster:1" if name == "spark" else "tcp://cluster:1"
    monkeypatch.setenv(variable, address)
    assert opened(None).address == address


def test_errors_of_clients_tell_a_cluster_that_is_lost_from_one_that_has_no_mlforge() -> None:
    runner = SparkRunner("sc://spark")
    assert isinstance(runner.failure(OSError("StatusCode.UNAVAILABLE")), RunnerUnavailable)
    missing = runner.failure(RuntimeError("worker: No module named 'mlforge'"))
    assert isinstance(missing, TaskRefused)
    other = runner.failure(RuntimeError("Task 3 failed 4 times"))
    assert isinstance(other, TaskFailed)
    assert "sc://spark did not end: RuntimeError: Task 3 failed 4 times" in str(other)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("sc://spark:15002/;use_ssl=true;token=a@b/SECRET", "sc://spark:15002"),
        ("sc://spark;token=SECRET", "sc://spark"),
        ("spark://me:SECRET@one:7077,two:7077", "spark://one:7077,two:7077"),
        ("k8s://https://kubernetes:443", "k8s://https://kubernetes:443"),
        ("local[2]", "local[2]"),
    ],
)
def test_no_message_has_the_secrets_of_an_address(address: str, shown: str) -> None:
    runner = SparkRunner(address)
    said = [
        runner.idle(),
        runner.unavailable(f"cannot open {address}"),
        runner.failure(ValueError(f"no such URL: {address}")),
        runner.failure(ConnectionError(f"Connection refused by {address}")),
        runner.failure(ImportError("No module named 'mlforge'")),
    ]
    assert runner.shown == shown
    assert all(shown in str(error) and "SECRET" not in str(error) for error in said)


@pytest.mark.parametrize(
    ("runner", "module", "opens", "error", "kind"),
    [
        (DaskRunner, "distributed", "Client", OSError("Timed out trying"), RunnerUnavailable),
        (DaskRunner, "distributed", "Client", TimeoutError("after 6 s"), RunnerUnavailable),
        (RayRunner, "ray", "init", RuntimeError("Version mismatch"), TaskFailed),
    ],
)
def test_a_client_that_cannot_connect_raises_no_error_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
    runner: type[ClusterRunner],
    module: str,
    opens: str,
    error: Exception,
    kind: type[Exception],
) -> None:
    def refuses(*args: object, **options: object) -> None:
        raise error

    client = ModuleType(module)
    client.is_initialized = lambda: False  # type: ignore[attr-defined]
    setattr(client, opens, refuses)
    monkeypatch.setitem(sys.modules, module, client)
    monkeypatch.setattr(DaskRunner, "_check_speaks", lambda self: None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        made = runner(f"127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(kind, match=f"{made.address}.*{error}"):
            made.answers(["{}"])


@pytest.mark.parametrize("scheme", ["sc", "spark"])
@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+PONG\r\n"])
def test_a_port_whose_listener_answers_otherwise_is_no_spark(
    scheme: str, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlforge.runners.spark_greeting.SPEAKS_S", 0.1)
    with _listener(said) as port:
        made = SparkRunner(f"{scheme}://127.0.0.1:{port}")
        with pytest.raises(RunnerUnavailable, match=f"no Spark at {made.address}: whoever listens"):
            made.check_speaks()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("sc://127.0.0.1:{}", b"\0\0\x06\x04\0\0\0\0\0" + bytes(6)),
        ("sc://127.0.0.1:{}", b"\x15\x03\x03\0\x02\x02\x16"),
        ("sc://127.0.0.1:{}/;token=x", b""),
        ("spark://127.0.0.1:{}", struct.pack(">QB", 60, 8) + bytes(51)),
        ("spark://127.0.0.1:{}", struct.pack(">QB", 60, 5) + bytes(51)),
    ],
)
def test_an_answer_of_spark_or_of_tls_is_left_to_sparks_own_client(
    address: str, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlforge.runners.spark_greeting.SPEAKS_S", 0.1)
    with _listener(said) as port:
        SparkRunner(address.format(port)).check_speaks()


@contextmanager
def _listener(said: bytes) -> Iterator[int]:
    """The port of a listener that says this to each caller, whatever comes, and hangs up where that is anything."""

    class Says(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4_096)
            self.request.sendall(said)
            if not said:
                self.request.recv(4_096)  # until the caller has had enough

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Says) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_a_port_whose_listener_does_not_greet_is_no_scheduler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = ModuleType("distributed")
    client.Client = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "distributed", client)
    monkeypatch.setattr("mlforge.runners.dask._SPEAKS_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        made = DaskRunner(f"tcp://127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(RunnerUnavailable, match=r"whoever listens there has not greeted"):
            made.answers(["{}"])
