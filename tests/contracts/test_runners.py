"""Full builds on clusters of other people: the bytes of home, and what they say of all that goes wrong.

Each cluster is a real one on loopback, started for these tests.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from redis import Redis

from mlforge import TrainingSet
from mlforge.store import ObjectStore
from tests.support import executors
from tests.support.executors import TASKS, Cluster, environment, published, result_files
from tests.support.object_servers import BUCKET, seaweed
from tests.support.workers import eventually

pytestmark = pytest.mark.slow
CLUSTERS: dict[str, Callable[[Path], AbstractContextManager[Cluster]]] = {
    "processes": lambda path: nullcontext(executors.PROCESSES),
    "sail": executors.sail,
    "dask": executors.dask,
    "ray": executors.ray,
    "spark": executors.spark_connect,
}


@pytest.fixture(scope="module", params=CLUSTERS)
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    with CLUSTERS[request.param](tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture(scope="module")
def at_home(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """The parts of a build by one process alone."""
    project = executors.project(tmp_path_factory.mktemp("home") / "project", executors.HOME)
    executors.build(project, executors.HOME)
    return published(project)


def test_parts_have_the_bytes_of_home_and_a_damaged_file_is_set_aside_as_there(
    cluster: Cluster, at_home: list[tuple[str, str]], tmp_path: Path
) -> None:
    project = executors.project(tmp_path / "project", cluster)

    built = executors.build(project, cluster)

    assert "spend: quarantined damaged.parquet" in built.stderr
    assert len(at_home) == TASKS
    assert published(project) == at_home
    assert not (project / "feature_store" / "spend" / ".tasks").exists()


@pytest.mark.slow
def test_files_are_read_by_executors_and_give_the_events_of_home(
    cluster: Cluster, at_home: list[tuple[str, str]], tmp_path: Path
) -> None:
    project = executors.project(tmp_path / "project", cluster)
    for name in ("in-groups", "watch", *(["kill-ingested"] if cluster.survives else [])):
        (project / name).touch()

    built = executors.build(project, cluster)

    assert "spend: quarantined damaged.parquet" in built.stderr
    assert published(project) == at_home
    assert not (project / "kill-ingested").exists()
    ran = (project / "watch").read_text().split()
    assert sum(line.startswith("ingested-") for line in ran) == 7 + cluster.survives
    assert not (project / "feature_store" / "spend" / ".tasks").exists()


def pushed(project: Path, by: Cluster, redis_url: str) -> dict[str, str]:
    """The rows online of a project that is built and pushed to an empty server."""
    with Redis.from_url(redis_url, decode_responses=True) as client:
        client.flushdb()
        executors.project(project, by, f"online_store={redis_url!r}")
        (project / "watch").touch()
        executors.build(project, by, "build", "--online")
        keys = [key for key in client.scan_iter("mlforge:spend:*") if client.type(key) == "string"]
        return {key: client.get(key) or "" for key in keys if len(key.rpartition(":")[2]) == 64}


@pytest.fixture(scope="module")
def pushed_at_home(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The rows online of a build and a push by one process alone."""
    return pushed(tmp_path_factory.mktemp("pushed") / "home", executors.HOME, redis_server)


@pytest.mark.slow
def test_a_push_of_all_rows_writes_those_of_home(
    cluster: Cluster, pushed_at_home: dict[str, str], redis_server: str, tmp_path: Path
) -> None:
    if not cluster.pushes:
        pytest.skip("it has no part in pushes")

    away = pushed(tmp_path / "away", cluster, redis_server)

    assert len(away) == 3
    assert away == pushed_at_home
    ran = (tmp_path / "away" / "watch").read_text().split()
    assert sum(line.startswith("put-") for line in ran) > 2


def trained(project: Path, by: Cluster, *faults: str) -> TrainingSet:
    """The training set of a project that one process alone has built. faults: those of whoever makes the set."""
    executors.project(project, executors.HOME)
    executors.build(project, executors.HOME)
    executors.define(project, by)
    spine = pl.read_parquet(project / "drops" / "w*.parquet").drop("amount")
    (project / "spine").mkdir()
    for number, some in enumerate(spine.reverse().iter_slices(90)):
        some.write_parquet(project / "spine" / f"{number}.parquet")
    for name in ("watch", *faults):
        (project / name).touch()
    train = ["train", "checkout", "--spine", "spine", "--out", "set", "--part-rows", "40"]
    assert executors.build(project, by, *train).returncode == 0
    return TrainingSet.open(project / "set")


@pytest.fixture(scope="module")
def trained_at_home(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    """The training set that one process makes alone."""
    return trained(tmp_path_factory.mktemp("trained") / "home", executors.HOME)


@pytest.mark.slow
def test_a_training_set_has_the_bytes_of_home_also_where_an_executor_is_killed(
    cluster: Cluster, trained_at_home: TrainingSet, tmp_path: Path
) -> None:
    away = trained(tmp_path / "away", cluster, *(["kill-set"] if cluster.survives else []))

    assert away.document.parts == trained_at_home.document.parts
    assert len(away.document.parts) == 6
    ran = (tmp_path / "away" / "watch").read_text().split()
    assert sum(line.startswith("set-") for line in ran) >= 12
    assert not (tmp_path / "away" / "kill-set").exists()


def test_a_task_that_fails_always_is_named_with_its_reason_and_nothing_is_published(
    cluster: Cluster, tmp_path: Path
) -> None:
    project = executors.project(tmp_path / "project", cluster)
    (project / "fail").touch()

    failed = executors.build(project, cluster)

    assert failed.returncode == 1
    assert "spend: the task " in failed.stderr
    assert "RuntimeError: the disk of this executor is on fire" in failed.stderr
    assert not (project / "feature_store" / "spend" / "_latest.json").exists()


def test_an_executor_that_is_killed_costs_no_more_than_its_task(
    cluster: Cluster, at_home: list[tuple[str, str]], tmp_path: Path
) -> None:
    if not cluster.survives:
        pytest.skip("its executors are threads of its server")
    project = executors.project(tmp_path / "project", cluster)
    (project / "kill").touch()

    executors.build(project, cluster)

    assert not (project / "kill").exists()
    assert published(project) == at_home


def test_a_task_that_ends_each_executor_is_given_up(cluster: Cluster, tmp_path: Path) -> None:
    if not cluster.survives:
        pytest.skip("its executors are threads of its server")
    project = executors.project(tmp_path / "project", cluster, files=4)
    (project / "always").touch()

    failed = executors.build(project, cluster)

    assert failed.returncode == 1
    assert "TaskFailed" in failed.stdout
    assert cluster.address in failed.stderr


def test_a_build_that_is_killed_midway_is_taken_up_with_the_parts_that_are_there(
    cluster: Cluster, at_home: list[tuple[str, str]], tmp_path: Path
) -> None:
    project = executors.project(tmp_path / "project", cluster)
    (project / "hold").touch()
    building = subprocess.Popen(
        executors.command(cluster),
        cwd=project,
        env=environment(cluster.python),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        eventually(lambda: result_files(project))
    finally:
        os.killpg(building.pid, signal.SIGKILL)
        building.wait()
    done = {path: path.stat().st_mtime_ns for path in result_files(project)}
    (project / "hold").unlink()
    (project / "watch").touch()

    executors.build(project, cluster)

    assert published(project) == at_home
    evaluated = (project / "watch").read_text().split()
    assert 0 < len(done) < TASKS
    assert len(set(evaluated)) <= TASKS - len(done)


def test_a_classic_master_takes_the_tasks_of_a_build_that_starts_its_own_java(
    at_home: list[tuple[str, str]], tmp_path: Path
) -> None:
    with executors.spark_master(tmp_path) as cluster:
        project = executors.project(tmp_path / "project", cluster)
        for name in ("in-groups", "watch"):
            (project / name).touch()
        executors.build(project, cluster)

    assert published(project) == at_home
    ran = (project / "watch").read_text().split()
    assert sum(line.startswith("ingested-") for line in ran) >= 7


def test_executors_need_share_no_disk_where_the_store_is_in_a_bucket(
    at_home: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cache(machine: str) -> str:
        return str(tmp_path / machine)

    with seaweed(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        url = f"s3://{BUCKET}/feature_store"
        store = f'ObjectStore("{url}", cache=os.environ["CACHE"])'
        with executors.sail(tmp_path, CACHE=cache("executor")) as cluster:
            project = executors.project(tmp_path / "project", cluster, store=store)
            executors.build(project, cluster, CACHE=cache("builder"))
        served = ObjectStore(url, cache("reader")).read_metadata("spend")

    assert [part.hash for part in served.parts] == [hash_ for _, hash_ in at_home]
    assert list(Path(cache("executor")).rglob("*.parquet"))


@pytest.mark.parametrize("cluster", ["spark"], indirect=True)
def test_a_setting_of_a_connect_servers_start_is_no_setting_of_a_build(
    cluster: Cluster, tmp_path: Path
) -> None:
    memory = f'SparkRunner({cluster.address!r}, config={{"spark.executor.memory": "1g"}})'
    with_more = replace(cluster, runner=memory)
    failed = executors.build(executors.project(tmp_path / "project", with_more), with_more)

    assert failed.returncode == 1
    assert "'spark.executor.memory' is no setting of a session" in failed.stderr


def test_a_cluster_without_executors_does_not_let_a_build_wait_for_ever(tmp_path: Path) -> None:
    with executors.dask_scheduler(tmp_path) as cluster:
        idle = replace(cluster, runner=f"DaskRunner({cluster.address!r}, start_within=0.2)")
        failed = executors.build(executors.project(tmp_path / "project", idle), idle)

    assert failed.returncode == 1
    assert f"no Dask scheduler at {cluster.address}: no executor has taken a task" in failed.stderr


def test_a_ray_that_fails_to_start_the_process_of_a_client_is_asked_again(
    at_home: list[tuple[str, str]], tmp_path: Path
) -> None:
    fails = tmp_path / "fails"
    fails.touch()
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"if '--mode=specific-server' in sys.orig_argv and os.path.exists({str(fails)!r}):\n"
        f"    os.unlink({str(fails)!r})\n    os._exit(1)\n"
    )
    soon = {"RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "5"}  # in place of 30, a few times
    with executors.ray(tmp_path, PYTHONPATH=str(tmp_path), **soon) as cluster:
        project = executors.project(tmp_path / "project", cluster)
        executors.build(project, cluster)

    assert not fails.exists()
    assert published(project) == at_home


def failed_at_a_mute_port(
    folder: Path, scheme: str, runner: str, python: str, patience: str
) -> str:
    """The errors of a build whose cluster would listen at a port that answers nothing, with "AT" for the address; patience: what is set to half a second."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"{scheme}://127.0.0.1:{mute.getsockname()[1]}"
        module = patience.rpartition(".")[0]
        imports = f"import {module}\nfrom mlforge.runners import {runner}\n{patience} = 0.5"
        nobody = Cluster(address, f"{runner}({address!r})", python, imports)
        failed = executors.build(executors.project(folder / "project", nobody), nobody)
    assert failed.returncode == 1
    return failed.stderr.replace(address, "AT")


def test_a_port_at_which_something_else_listens_is_no_ray_within_seconds(tmp_path: Path) -> None:
    python = executors.python_with("MLFORGE_RUNNERS", "ray")
    said = failed_at_a_mute_port(
        tmp_path, "ray", "RayRunner", python, "mlforge.runners.ray._SPEAKS_S"
    )
    assert "no Ray at AT: whoever listens there has not answered as Ray does" in said


@pytest.mark.parametrize("scheme", ["sc", "spark"])
def test_a_port_at_which_something_else_listens_is_no_spark_within_seconds(
    scheme: str, tmp_path: Path
) -> None:
    python = executors.python_with("MLFORGE_SPARK", "pyspark.core")
    said = failed_at_a_mute_port(
        tmp_path, scheme, "SparkRunner", python, "mlforge.runners.spark_greeting.SPEAKS_S"
    )
    assert "no Spark at AT: whoever listens there has not answered as Spark does" in said


def test_a_cluster_that_is_lost_midway_is_named_and_the_build_goes_on_alone_where_it_may(
    at_home: list[tuple[str, str]], tmp_path: Path
) -> None:
    with executors.sail(tmp_path) as lost:
        project = executors.project(tmp_path / "project", lost)
        (project / "kill").touch()

        failed = executors.build(project, lost)

    assert failed.returncode == 1
    assert f"no Spark at {lost.address}: it was lost amid the build" in failed.stderr
    alone = executors.project(tmp_path / "alone", lost, 'fallback="local"')
    executors.build(alone, lost)
    assert published(alone) == at_home


def test_executors_of_another_release_refuse_and_both_releases_are_named(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        'import os, sys\nif sys.argv[0].endswith("sail"):\n    import polars\n    polars.__version__ = "2.0.9"\n'
    )
    with executors.sail(tmp_path, PYTHONPATH=str(tmp_path)) as other:
        project = executors.project(tmp_path / "project", other, 'fallback="local"')
        refused = executors.build(project, other)

    assert refused.returncode == 1
    assert "this process has polars 2.0.9" in refused.stderr
    assert "spend: the task is of polars" in refused.stderr
