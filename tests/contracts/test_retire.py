"""`mlforge retire`: a feature goes, online and in the store, where nobody uses it and somebody says yes."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from redis import Redis

from mlforge import Service
from mlforge.cli import main
from mlforge.definitions.loader import load
from mlforge.errors import MlforgeError
from mlforge.online import RedisStore
from mlforge.store import ObjectStore
from mlforge.store.objects import removal
from mlforge.training_sets.making import training_set
from mlforge.training_sets.training_set import TrainingSet
from tests.support.commands import as_json, printed
from tests.support.objects import MemoryObjects
from worker.project import Project, Settings
from worker.service.retiring import Holdings, retire

DEFINITIONS = """
from mlforge import Definitions, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore

@feature(keys=["user_id"], source="events/", timestamp="at", metrics=[Rolling("7d", {"amount": ["sum"]})])
def spend(df):
    return df.select("user_id", "at", "amount")

@feature(keys=["user_id"], source=spend, timestamp="at", metrics=[Rolling("7d", {"amount__sum__7d": "max"})])
def peaks(df):
    return df

@feature(keys=["user_id"], source="users.parquet")
def profile(df):
    return df

defs = Definitions(LocalStore("store"), [spend, peaks, profile], name="shop")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("MLFORGE_DEFINITIONS", "MLFORGE_PROFILE", "REDIS_URL_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("REDIS_URL", redis_url)
    Path("definitions.py").write_text(DEFINITIONS)
    Path("events").mkdir()
    at = [datetime(2025, 1, 1, tzinfo=UTC)]
    frame = {"user_id": ["ann-of-arles"], "at": at, "amount": [2.5]}
    pl.DataFrame(frame).write_parquet("events/a.parquet")
    pl.DataFrame({"user_id": ["ann-of-arles"], "city": ["Ulm"]}).write_parquet("users.parquet")
    return tmp_path


def keep(*names: str) -> None:
    text = DEFINITIONS.replace("[spend, peaks, profile]", f"[{', '.join(names)}]")
    Path("definitions.py").write_text(text)


def served(redis_url: str, folder: Path) -> Project:
    """The project, whose features were pushed by a worker of it."""
    project = Project.open(Settings(redis_url, None, folder))
    for name in project.definitions.features:
        project.definitions.refresh(name)
        project.definitions.push(name)
        project.claim(name)
    return project


def stored(folder: Path, name: str) -> set[str]:
    return {path.name for path in (folder / "store" / name).iterdir()}


def test_a_feature_that_is_gone_leaves_the_store_and_redis(
    capsys: pytest.CaptureFixture[str], folder: Path, redis_url: str
) -> None:
    project = served(redis_url, folder)
    keep("profile")
    asked: list[str] = []
    named = replace(project, definitions=load(None, here=folder).placed(None, project.online, None))
    named = replace(named, settings=replace(project.settings, profile="prod"))
    held = Holdings.of(named)
    with pytest.raises(MlforgeError, match="nothing was deleted"):
        retire(held, "peaks", lambda q: bool(asked.append(q)), keep_versions=False, force=False)
    assert asked[0].startswith("delete the online rows of peaks and 1 version of it in the store, ")
    assert f"(profile prod, {project.online}, LocalStore(" in asked[0]
    assert main(["retire", "peaks"]) == 1
    assert "nothing was deleted; --yes" in capsys.readouterr().err
    assert load(None, here=folder).store.versions("peaks")
    document = as_json(capsys, "retire", "peaks", "--yes")
    assert document == {"feature": "peaks", "rows": 1, "versions": 1}
    assert stored(folder, "peaks") <= {".refreshing", ".publishing"}
    assert "deleted online, 1 version" in printed(capsys, "retire", "spend", "--yes")
    with Redis.from_url(redis_url) as client:
        left = [key for key in client.scan_iter() if b"peaks" in key or b"spend" in key]
        assert left == []
    store = load(None, here=folder).store
    assert (store.features(), list(store.index())) == (["profile"], ["profile"])
    assert RedisStore.from_url(redis_url).books("profile") is not None
    keep("spend", "peaks", "profile")
    results = {r["feature"]: r["version"] for r in as_json(capsys, "build", "--online")["features"]}
    assert results == {"spend": "1.0.0", "peaks": "1.0.0", "profile": "1.0.0"}


def test_what_is_used_stays_and_its_users_are_named(
    capsys: pytest.CaptureFixture[str], folder: Path, redis_url: str
) -> None:
    project = served(redis_url, folder)
    spine = pl.DataFrame({"user_id": ["ann-of-arles"], "at": [datetime(2025, 1, 2, tzinfo=UTC)]})
    store = project.definitions.store
    training_set(spine, ["spend"], store, "train")
    store.register_lock(
        "fraud", Service("checkout", [project.definitions.features["spend"]]).lock(store)
    )
    assert main(["retire", "spend", "--yes"]) == 1
    assert "spend is in the definitions; take it out there" in capsys.readouterr().err
    keep("profile")
    assert main(["retire", "spend", "--yes"]) == 1
    told = capsys.readouterr().err
    assert (
        f"spend is used by the feature peaks, the model fraud, the training set {folder}/train; end that first, by "
        f"'mlforge retire peaks', 'mlforge locks --remove fraud', 'mlforge release {folder}/train', or take --force"
        in " ".join(told.split())
    )
    assert load(None, here=folder).store.versions("spend")
    assert RedisStore.from_url(redis_url).books("spend") is not None
    TrainingSet.open("train").release(load(None, here=folder).store)
    as_json(capsys, "retire", "spend", "--yes", "--force")
    assert load(None, here=folder).store.features() == ["peaks", "profile"]


def test_versions_may_stay_and_a_name_that_is_not_gone_is_refused(
    capsys: pytest.CaptureFixture[str], folder: Path, redis_url: str
) -> None:
    served(redis_url, folder)
    keep("profile")
    document = as_json(capsys, "retire", "spend", "--yes", "--keep-versions")
    assert document == {"feature": "spend", "rows": 1, "versions": 0}
    assert load(None, here=folder).store.versions("spend")
    assert RedisStore.from_url(redis_url).books("spend") is None
    for name in ("peak", "profile", "../store"):
        assert main(["retire", name, "--yes"]) == 1
    assert (
        "no feature 'peak' is gone from this project; did you mean 'peaks'?"
        in capsys.readouterr().err
    )
    text = Path("definitions.py").read_text().replace('name="shop"', 'name="shop", partial=True')
    Path("definitions.py").write_text(text)
    assert main(["retire", "peaks", "--yes"]) == 1  # another project's, for all that is known
    assert load(None, here=folder).store.versions("peaks")


def test_a_project_that_was_never_pushed_needs_no_server(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL")
    as_json(capsys, "build")
    keep("profile")
    assert main(["retire", "peaks", "--yes", "--keep-versions"]) == 1
    assert "peaks: there is no online store to delete rows from; set" in capsys.readouterr().err
    assert main(["retire", "peaks", "--yes"]) == 0
    told = capsys.readouterr()
    assert told.out == "peaks: 1 version deleted in the store\n"
    assert "rows online, if there are any, stay" in told.err
    assert load(None, here=folder).store.features() == ["profile", "spend"]


def test_rows_in_the_definitions_own_online_store_go_where_no_worker_ever_was(
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("REDIS_URL")
    end = f', name="shop", online_store={redis_url!r})'
    Path("definitions.py").write_text(DEFINITIONS.replace(', name="shop")', end))
    as_json(capsys, "build", "--online")
    text = Path("definitions.py").read_text()
    Path("definitions.py").write_text(text.replace("[spend, peaks, profile]", "[profile]"))
    document = as_json(capsys, "retire", "peaks", "--yes")
    assert document == {"feature": "peaks", "rows": 1, "versions": 1}
    assert RedisStore.from_url(redis_url).books("peaks") is None
    load(None, here=folder).store.rename("spend", "outlay")
    document = as_json(capsys, "retire", "spend", "--yes")
    assert document == {"feature": "spend", "rows": 1, "versions": 0}, "of a former name, too"
    assert RedisStore.from_url(redis_url).books("spend") is None


def test_a_retire_that_ended_before_former_names_were_free_is_ended_by_the_next(
    capsys: pytest.CaptureFixture[str], folder: Path, redis_url: str
) -> None:
    served(redis_url, folder)
    store = load(None, here=folder).store
    store.rename("profile", "people")
    note = (folder / "store/_metadata/renamed.json").read_bytes()
    keep("spend", "peaks")
    as_json(capsys, "retire", "people", "--yes")
    (folder / "store/_metadata/renamed.json").write_bytes(note)  # as a release before left it
    keep("spend", "peaks", "profile")
    assert main(["build", "--features", "profile"]) == 1
    assert "profile was renamed to people" in capsys.readouterr().err
    as_json(capsys, "retire", "people", "--yes")
    as_json(capsys, "build", "--features", "profile")


def test_a_retire_in_a_bucket_that_is_killed_at_any_deletion_is_ended_from_another_machine(
    folder: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "_BATCH", 1)
    monkeypatch.setattr(removal, "_ABANDONED_US", -1)
    built = MemoryObjects()

    def machine(name: str, objects: MemoryObjects) -> Project:
        project = Project.open(Settings(redis_url, None, folder))
        project.definitions.store = ObjectStore("s3://memory/store", folder / name, objects=objects)
        return project

    machine("first", built).definitions.build()
    keep("spend", "peaks")

    def end(project: Project) -> None:
        held = Holdings.of(project)
        retire(held, "profile", lambda question: True, keep_versions=False, force=False)

    for number in range(1, 20):
        objects, left = MemoryObjects(dict(built.stored)), [number]

        def die(deed: str, key: str, left: list[int] = left) -> None:
            left[0] -= deed == "delete"
            if left[0] == 0:
                raise KeyboardInterrupt

        objects.after = die
        try:
            end(machine(f"dying{number}", objects))
        except KeyboardInterrupt:
            again = MemoryObjects(objects.stored)
            if [
                key for key in again.stored if key.startswith("profile/_") and "_latest" not in key
            ]:
                end(machine(f"again{number}", again))
            assert [key for key in again.stored if key.startswith("profile/")] == [
                "profile/_latest.json"
            ]
        else:
            assert number > 3
            return
    pytest.fail("it goes on dying")
