"""Addresses of clusters: what is refused where it is written, and what is said where nobody is there."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest

from mlforge.definitions.runners import check_runner
from mlforge.errors import DefinitionError, MissingExtra, RunnerUnavailable
from mlforge.runners import SparkRunner
from mlforge.runners.spark import open_spark


@pytest.fixture
def closed() -> str:
    """An address at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["sc", "spark"])
def test_a_cluster_that_is_not_there_is_named_by_its_address(scheme: str, closed: str) -> None:
    with pytest.raises(RunnerUnavailable, match=f"no Spark at {scheme}://{closed}: .*fallback="):
        SparkRunner(f"{scheme}://{closed}").answers(["{}"])


def test_a_master_among_several_that_listens_is_enough(closed: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        runner = SparkRunner(f"spark://{closed},127.0.0.1:{server.getsockname()[1]}")
        runner.check_listens(*runner._places())
    assert SparkRunner("sc://spark/;token=x")._places() == [("spark", 15_002)]
    assert SparkRunner("yarn")._places() == []


@pytest.mark.parametrize(
    ("scheme", "module", "says"),
    [("sc", "pyspark.sql.connect.session", "extra 'spark'"), ("spark", "pyspark.core.context", "pip install pyspark")],
)  # fmt: skip
def test_a_client_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, scheme: str, module: str, says: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        runner = SparkRunner(f"{scheme}://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(MissingExtra, match=says):
            runner.answers(["{}"])


@pytest.mark.parametrize(
    "options",
    [{"address": ""}, {"address": 7}, {"at_once": 0}, {"at_once": "2"}, {"definitions": ""}],
)
def test_settings_are_checked_where_they_are_written(options: Any) -> None:
    with pytest.raises(DefinitionError, match="SparkRunner: "):
        SparkRunner(**{"address": "sc://spark", **options})


def test_spark_by_name_takes_the_address_of_its_own_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SPARK_REMOTE", raising=False)
    assert check_runner("spark") == "spark"
    with pytest.raises(DefinitionError, match="set SPARK_REMOTE"):
        open_spark(None)

    monkeypatch.setenv("SPARK_REMOTE", "sc://spark:1")
    assert open_spark(None).address == "sc://spark:1"
