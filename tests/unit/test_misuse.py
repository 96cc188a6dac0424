"""Arguments of the wrong kind at the public API: an error of ours that says what was given and what would work, before anything is asked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlforge import explain, training_set
from mlforge.build.diff import diff
from mlforge.client import Client
from mlforge.errors import MlforgeError
from mlforge.maintenance.operations import pin, prune, rollback, verify
from mlforge.maintenance.retention import Retention
from mlforge.online import RedisStore
from mlforge.runners import DaskRunner, SparkRunner
from mlforge.store import LocalStore, ObjectStore

NOBODY: Any = RedisStore(port=1)
STORE: Any = LocalStore("/no/store")
NO_STORE: Any = Path("/no/store")
SPARK, BUCKET, SERVER = "sc://here:1", "s3://bucket/store", "http://here:1"
ROW = {"user_id": 1, "score": 0.5}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: NOBODY.read("f", 1), r"f: an entity must be a dict, not 1"),
        (lambda: NOBODY.read("f", {1: 2}), r"each key of f: an entity must be a text"),
        (lambda: NOBODY.read(["f"], {"user_id": 1}), r"a feature's name must be a text"),
        (lambda: NOBODY.exists("f", None), r"f: an entity must be a dict, not None"),
        (lambda: NOBODY.read_batch("f", {"user_id": 1}), r"f: entities must be a list"),
        (lambda: NOBODY.delete("f", "x"), r"f: an entity must be a dict, not 'x'"),
        (lambda: NOBODY.write("f", {"user_id": 1}, 3), r"f: values must be a dict, not 3"),
        (lambda: NOBODY.write("f", 7, {}), r"f: an entity must be a dict, not 7"),
        (
            lambda: NOBODY.write_batch("f", [ROW], ["id"]),
            r"f: a record lacks id, .* it has user_id, score",
        ),
        (lambda: NOBODY.write_batch("f", ROW, "user_id"), r"f: records must be a list"),
        (lambda: NOBODY.write_batch("f", [ROW], 3), r"f: entity_key_columns must be a list"),
        (lambda: explain("f", {"user_id": 1}, NO_STORE), r"store must be of Store"),
        (lambda: explain("f", {}, STORE, online=NO_STORE), r"store must be of OnlineStore"),
        (lambda: rollback(NO_STORE, "f"), r"rollback: store must be a Store"),
        (lambda: pin(NO_STORE, "f"), r"pin: store must be a Store"),
        (lambda: prune(NO_STORE, [], Retention()), r"prune: store must be a Store"),
        (lambda: prune(STORE, [], 3), r"prune: rule must be a Retention"),  # type: ignore[arg-type]
        (lambda: verify(NO_STORE, []), r"verify: store must be a Store"),
        (lambda: verify(STORE, 3), r"verify: names must be a list"),  # type: ignore[arg-type]
        (lambda: diff(NO_STORE, "f", "1.0.0", "1.0.1"), r"diff: store must be a Store"),
        (lambda: training_set([], ["f"], STORE, "out", runner=3), r"runner is 3"),  # type: ignore[arg-type]
        (lambda: training_set([], ["f"], STORE, "out", part_rows=10**30), r"part_rows is 10"),
        (lambda: SparkRunner(SPARK, config="x"), r"config must be a dict"),  # type: ignore[arg-type]
        (lambda: SparkRunner(SPARK, config={"a": 1}), r"config: a must be a text"),  # type: ignore[dict-item]
        (lambda: DaskRunner("here:1", start_within=float("nan")), r"start_within=nan"),
        (lambda: ObjectStore(BUCKET, options=["x"]), r"options must be a dict"),  # type: ignore[arg-type]
        (lambda: ObjectStore(BUCKET, packing=3), r"packing must be a Packing"),  # type: ignore[arg-type]
        (lambda: ObjectStore(BUCKET, cache_bytes=-1), r"cache_bytes=-1 is below 0"),
        (lambda: Client(3), r"3 is no URL of a server"),  # type: ignore[arg-type]
        (lambda: Client(SERVER, key=""), r"key is no API key"),
        (lambda: Client(SERVER, verify=3), r"verify is 3"),  # type: ignore[arg-type]
        (lambda: Client(SERVER, cert="app.crt"), r"cert is 'app.crt'; name two files"),  # type: ignore[arg-type]
    ],
)
def test_an_argument_of_the_wrong_kind_is_told(call: Callable[[], object], said: str) -> None:
    with pytest.raises(MlforgeError, match=said):
        call()


def test_columns_to_read_are_a_list(tmp_path: Path) -> None:
    from tests.support.projects import Project, rows

    project = Project(tmp_path)
    project.drop("a", rows((1, 0, 1.0)))
    definitions = project.definitions(project.define())
    definitions.build()
    with pytest.raises(MlforgeError, match="spend: columns must be a list, not 3"):
        definitions.store.read("spend", columns=3)  # type: ignore[arg-type]
