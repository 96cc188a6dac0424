"""MLflow: what a model was made with goes into its run, and comes back from there for serving."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mlforge.core.arguments import shown
from mlforge.core.lock import FILE, Lock
from mlforge.core.schema import Schema
from mlforge.errors import MissingExtra, RetrievalError
from mlforge.training_sets.document import DOCUMENT
from mlforge.training_sets.training_set import TrainingSet

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run
    from mlflow.tracking import MlflowClient

FOLDER = "mlforge"
"""The folder of a run's artifacts."""
_TYPES = {
    "Boolean": "boolean",
    "Date": "datetime",
    "Float32": "float",
    "Float64": "double",
    "Int8": "integer",
    "Int16": "integer",
    "Int32": "integer",
    "Int64": "long",
    "String": "string",
    "UInt8": "integer",
    "UInt16": "integer",
    "UInt32": "long",
}
_TEXT = 5000  # characters of a tag that every tracking server takes
_DIGEST = 32  # of the 36 that MLflow keeps


def log(training_set: TrainingSet) -> None:
    """Put into the active run what a training set was made from: lock, document, versions, a dataset input.

    Artifacts `mlforge/features.lock` and `mlforge/training_set.json`; tags `mlforge.service`, `mlforge.store`,
    `mlforge.training_set` (its folder), `mlforge.blast_radius` (the command that tells which of its rows would differ
    today) and `mlforge.version.FEATURE`; the set as an input of context "training".
    Raises RetrievalError without an active run, or where the tracking server refuses; MissingExtra without MLflow.
    """
    if not isinstance(training_set, TrainingSet):
        raise RetrievalError(
            f"log takes a training set, as training_set() and TrainingSet.open give it, not {shown(training_set)}"
        )
    lock, document = training_set.lock, training_set.document
    with _client() as client:
        run_id = _active(client).info.run_id
        client.log_text(run_id, lock.text, f"{FOLDER}/{FILE}")
        client.log_text(run_id, document.to_text(), f"{FOLDER}/{DOCUMENT}")
        client.log_inputs(run_id, [_input(training_set, lock)])
        for key, value in _tags(training_set, lock).items():
            client.set_tag(run_id, key, value[:_TEXT])


def load(uri: str) -> Lock:
    """The lock that a model was made with, to be given as `lock=` to reads and to `store.register_lock`.

    uri: a run's id or `runs:/ID`; a model as `models:/NAME/VERSION`, `models:/NAME@ALIAS` or `models:/m-ID`, whose run
    is then asked. Raises RetrievalError where there is no such run or model, or `log` put no lock into it; MissingExtra
    without MLflow.
    """
    if type(uri) is not str or not uri:
        raise RetrievalError(f"load takes a run's id or a model's URI, not {shown(uri)}")
    with _client() as client:
        run_id = _run_of(uri, client)
        artifacts = {artifact.path for artifact in client.list_artifacts(run_id, FOLDER)}
        if f"{FOLDER}/{FILE}" not in artifacts:
            raise RetrievalError(
                f"the run {run_id} has no lock; mlforge.mlflow.log(training_set) puts one into the active run"
            )
        from mlflow.artifacts import load_text

        text = load_text(f"runs:/{run_id}/{FOLDER}/{FILE}")
    return Lock.from_text(text, f"the lock of the run {run_id}")


@contextmanager
def _client() -> Iterator[MlflowClient]:
    """A client of the tracking server that MLflow is set to; what goes wrong there becomes a RetrievalError."""
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ModuleNotFoundError as error:
        raise MissingExtra.of("mlforge.mlflow", "mlflow") from error
    try:
        yield MlflowClient()
    except (MlflowException, OSError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise RetrievalError(f"MLflow says: {first}") from error


def _active(client: MlflowClient) -> Run:
    from mlflow import active_run

    run = active_run()
    if run is None:
        raise RetrievalError(
            "no run is active; call log inside `with mlflow.start_run():`, where the model is trained"
        )
    return client.get_run(run.info.run_id)


def _tags(training_set: TrainingSet, lock: Lock) -> dict[str, str]:
    """The tags of a run by key: what it was made from, to search runs by."""
    versions: dict[str, list[str]] = {}
    for text in lock.versions:
        name, _, version = text.partition("@")
        versions.setdefault(name, []).append(version)
    return {
        **({"mlforge.service": lock.service} if lock.service else {}),
        "mlforge.store": lock.store,
        "mlforge.training_set": training_set.address,
        "mlforge.blast_radius": f"mlforge blast {shlex.quote(training_set.address)}",
        **{f"mlforge.version.{name}": ", ".join(own) for name, own in versions.items()},
    }


def _input(training_set: TrainingSet, lock: Lock) -> DatasetInput:
    """The training set as an input of a run: equal digests have equal rows."""
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    document = training_set.document
    dataset = Dataset(
        name=lock.service or training_set.address.rpartition("/")[2],
        digest=document.rows_hash[:_DIGEST],
        source_type="local",
        source=json.dumps({"uri": training_set.address}),
        schema=_schema((*document.spine, *document.columns)),
        profile=json.dumps({"num_rows": document.rows, "versions": list(lock.versions)}),
    )
    return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, "training")])


def _schema(columns: Schema) -> str:
    """The columns as MLflow has them, without those of types that it has no word for."""
    specs: list[dict[str, Any]] = [
        {"type": kind, "name": column.name, "required": True}
        for column in columns
        for kind in [_TYPES.get(column.dtype, _of_instants(column.dtype))]
        if kind is not None
    ]
    return json.dumps({"mlflow_colspec": specs})


def _of_instants(dtype: str) -> str | None:
    return "datetime" if dtype.startswith("Datetime") else None


def _run_of(uri: str, client: MlflowClient) -> str:
    """The id of the run that a URI means, or whose model it means."""
    scheme, separator, rest = uri.partition(":/")
    if not separator:
        return str(client.get_run(uri).info.run_id)
    name, _, version = rest.strip("/").partition("/")
    if scheme == "runs":
        return str(client.get_run(name).info.run_id)
    if scheme != "models":
        raise RetrievalError(f"{uri} names neither a run (runs:/ID) nor a model (models:/NAME/1)")
    run_id = _run_of_model(name, version, client)
    if not run_id:
        raise RetrievalError(f"the model {uri} was made in no run, so no lock was logged with it")
    return run_id


def _run_of_model(name: str, version: str, client: MlflowClient) -> str | None:
    """The id of the run that made a model, None or empty where none did; a name without a version is a model's own id."""
    registered, _, alias = name.partition("@")
    run_id: str | None
    if alias:
        run_id = client.get_model_version_by_alias(registered, alias).run_id
    elif version == "latest":
        versions = client.get_registered_model(name).latest_versions
        run_id = max(versions, key=lambda each: int(each.version)).run_id if versions else None
    elif version:
        run_id = client.get_model_version(name, version).run_id
    else:
        run_id = client.get_logged_model(name).source_run_id
    return run_id
