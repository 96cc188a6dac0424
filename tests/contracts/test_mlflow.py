"""A model's run in MLflow: what it was made with goes in, and its lock comes back, from a real tracking store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import polars as pl
import pytest

from mlforge import Service, TrainingSet, get_training_data, training_set
from mlforge.errors import LockMismatch, MissingExtra, RetrievalError
from mlforge.metrics import Rolling
from mlforge.mlflow import load, log
from tests.support.paths import ROOT
from tests.support.projects import Project, at, identity, rows
from tests.support.servers import free_port
from tests.support.workers import eventually

SPINE = pl.DataFrame({"user_id": [1, 2], "at": [at(4), at(4)], "label": [True, False]})
METRICS = [Rolling("7d", {"amount": ["sum", "last_3"]})]


def by_itself(function: Callable[[Path], None], folder: Path, tracking: str) -> None:
    """Run a function in a process of its own: MLflow starts threads and warns where it is imported."""
    module = function.__module__
    code = f"from pathlib import Path\nfrom {module} import {function.__name__} as f\nf(Path({str(folder)!r}))"
    settings = {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **settings, "MLFLOW_TRACKING_URI": tracking},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def a_set(folder: Path) -> tuple[Project, Service, TrainingSet]:
    project = Project(folder)
    project.drop("a", rows((1, 0, 1.0), (1, 3, 2.0), (2, 1.5, 5.0)))
    spend = project.define(metrics=METRICS)
    project.build(spend)
    service = Service("checkout", [spend])
    return project, service, training_set(SPINE, service, project.store, folder / "set")


@pytest.fixture
def whole_mlflow(tmp_path: Path) -> Iterator[str]:
    """The address of a server over SQLite, of an MLflow in an environment of its own: it needs a pyarrow of before ours."""
    python = os.environ.get("MLFORGE_MLFLOW")
    if python is None:
        pytest.skip("MLFORGE_MLFLOW names no python that has a whole MLflow")
    port, settings = free_port(), {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    store = [
        *("--backend-store-uri", f"sqlite:///{tmp_path}/runs.db"),
        *("--artifacts-destination", str(tmp_path / "artifacts")),
    ]
    command = [python, "-m", "mlflow", "server", *store, "--port", str(port), "--workers", "1"]
    with (tmp_path / "server.log").open("wb") as told:
        server = subprocess.Popen(
            command, env=settings, stdout=told, stderr=told, start_new_session=True
        )
    try:
        eventually(lambda: server.poll() is not None or _answers(port), within=180)
        assert server.poll() is None, (tmp_path / "server.log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def _answers(port: int) -> bool:
    with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
        return bool(answer.status == 200)
    return False


def a_lock_goes_into_its_run_and_comes_back(folder: Path) -> None:
    import mlflow
    from mlflow.tracking import MlflowClient

    project, service, made = a_set(folder)
    with pytest.raises(
        RetrievalError, match=r"no run is active; call log inside `with mlflow\.start"
    ):
        log(made)
    with mlflow.start_run() as run:
        log(made)
        log(made)  # a cell that is run again
    run_id, client = run.info.run_id, MlflowClient()
    kept = client.get_run(run_id)
    assert {k: v for k, v in kept.data.tags.items() if k.startswith("mlforge.")} == {
        "mlforge.service": "checkout",
        "mlforge.store": made.document.store,
        "mlforge.training_set": str(made.path),
        "mlforge.blast_radius": f"mlforge blast {made.path}",
        "mlforge.version.spend": "1.0.0",
    }
    [dataset] = {entry.dataset.digest: entry for entry in kept.inputs.dataset_inputs}.values()
    assert (dataset.dataset.name, dataset.tags[0].value) == ("checkout", "training")
    assert json.loads(dataset.dataset.source) == {"uri": str(made.path)}
    assert json.loads(dataset.dataset.profile)["num_rows"] == 2
    typed = {c["name"]: c["type"] for c in json.loads(dataset.dataset.schema)["mlflow_colspec"]}
    assert typed == {
        "user_id": "long",
        "at": "datetime",
        "label": "boolean",
        "spend__amount__sum__7d": "double",
    }
    model = client.create_registered_model("fraud").name
    number = client.create_model_version(model, f"runs:/{run_id}/model", run_id=run_id).version
    client.set_registered_model_alias(model, "champion", number)
    logged = client.create_logged_model(run.info.experiment_id, source_run_id=run_id).model_id
    for uri in (run_id, f"runs:/{run_id}", f"runs:/{run_id}/model", f"models:/fraud/{number}",
                "models:/fraud@champion", "models:/fraud/latest", f"models:/{logged}"):  # fmt: skip
        assert load(uri) == made.lock, uri
    # The lock that comes back is one to serve by.
    project.store.register_lock("fraud", load("models:/fraud@champion"))
    assert get_training_data(SPINE, service, project.store, lock=load(run_id)).height == 2
    other = project.define(lambda df: identity(df).with_columns(amount=0.0), metrics=METRICS)
    project.build(other)
    with pytest.raises(LockMismatch, match="the function's code changed"):
        get_training_data(SPINE, service, project.store, lock=load(run_id))
    with mlflow.start_run() as bare:
        pass
    none_is_told(bare.info.run_id)


def none_is_told(run_id: str) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    number = client.create_model_version("fraud", "s3://bucket/model").version
    for uri, words in [
        (run_id, r"has no lock; mlforge\.mlflow\.log\(training_set\) puts one"),
        ("nosuch", "MLflow says: .*Run .*nosuch.* not found"),
        ("runs:/nosuch", "MLflow says: .*Run .*nosuch.* not found"),
        ("models:/nosuch/1", "MLflow says: .*nosuch"),
        ("models:/nosuch/latest", "MLflow says: .*nosuch"),
        ("models:/nosuch@champion", "MLflow says: .*nosuch"),
        ("models:/fraud/7", "MLflow says: .*7"),
        (f"models:/fraud/{number}", "was made in no run"),
        ("models:/m-1", "MLflow says: .*m-1"),
        ("s3://bucket/model", "neither a run .* nor a model"),
    ]:
        with pytest.raises(RetrievalError, match=words):
            load(uri)
    client.log_text(run_id, "{", "mlforge/features.lock")
    with pytest.raises(RetrievalError, match=f"the lock of the run {run_id} is no lock"):
        load(run_id)


@pytest.mark.slow
def test_a_lock_goes_into_its_run_and_comes_back_or_it_is_told_why_not(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    runs = (tmp_path / "runs").as_uri()
    by_itself(a_lock_goes_into_its_run_and_comes_back, tmp_path, runs)


@pytest.mark.slow
def test_a_server_that_keeps_its_runs_in_sqlite_serves_as_well(
    whole_mlflow: str, tmp_path: Path
) -> None:
    by_itself(a_lock_goes_into_its_run_and_comes_back, tmp_path, whole_mlflow)


def test_without_mlflow_its_extra_is_named_and_wrong_arguments_are_told_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mlflow", "mlflow.exceptions", "mlflow.tracking"):
        monkeypatch.setitem(sys.modules, name, None)
    _, _, made = a_set(tmp_path)
    calls: list[Callable[[], Any]] = [lambda: log(made), lambda: load("runs:/x")]
    for call in calls:
        with pytest.raises(MissingExtra, match=r"mlforge\.mlflow needs the extra 'mlflow'"):
            call()
    with pytest.raises(RetrievalError, match=r"log takes a training set, .*not 'set'"):
        log("set")  # type: ignore[arg-type]
    for uri in (3, ""):
        with pytest.raises(RetrievalError, match="load takes a run's id or a model's URI"):
            load(uri)  # type: ignore[arg-type]
