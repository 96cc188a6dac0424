"""A store that several definitions share: a feature and a service are kept by one of them, until it lets go or hands over."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

from mlforge import Definitions, Service
from mlforge.cli import main
from mlforge.core.keeper import DefinedNames
from mlforge.definitions.keeping import take_over
from mlforge.errors import BuildError, DefinitionError, IntegrityError, MlforgeError, StoreError
from mlforge.features.feature import Feature
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.registry.renaming import rename
from mlforge.services.keeping import keep, kept_versions
from mlforge.store import LocalStore, ObjectStore
from mlforge.validators import greater_than
from tests.support.commands import as_json, printed
from tests.support.objects import MemoryObjects
from tests.support.projects import Project, rows
from worker.project import Project as WorkerProject
from worker.project import Settings
from worker.reconcile.reconciler import retire as end_online
from worker.reconcile.service_keeper import ServiceKeeper
from worker.service.process import refuse_a_store_in_use
from worker.service.retiring import Holdings, retire

SUM, COUNT = "amount__sum__7d", "amount__count__7d"
BY_SHOP = (
    r"'shop', which share this store, have another feature 'spend'.*of 'bank'.*mlforge adopt spend"
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.drop("a", rows((1, 0, 1.0), (2, 1, 5.0)))
    return project


@pytest.fixture(params=["folder", "bucket"])
def anywhere(request: pytest.FixtureRequest, project: Project) -> Project:
    """The project over each kind of store."""
    if request.param == "folder":
        return project
    cache = project.root / "cache"
    return project.on(ObjectStore("s3://memory/store", cache, objects=MemoryObjects()))


def scaled(df: pl.DataFrame, by: float) -> pl.DataFrame:
    return df.select("user_id", "at", pl.col("amount") * by)


def share(project: Project, name: str, *features: Feature, **options: Any) -> Definitions:
    return project.definitions(*features, name=name, partial=True, **options)


def versions(project: Project, name: str = "spend") -> list[str]:
    return list(map(str, project.store.versions(name)))


def keeper(project: Project, name: str = "spend") -> str | None:
    kept = project.store.books(name).keeper
    return kept and kept.name


def others(project: Project) -> dict[str, Callable[[], Feature]]:
    """Features of one name, each with another meaning than the usual one's."""
    return {
        "code": lambda: project.define(partial(scaled, by=2.0)),
        "metrics": lambda: project.define(metrics=[Rolling("7d", {"amount": ["sum"]})]),
        "keys": lambda: project.define(keys=["user_id", "amount"], metrics=[]),
        "source": lambda: project.define(source="events/*.parquet"),
        "validators": lambda: project.define(validators={"amount": [greater_than(2)]}),
        "defaults": lambda: project.define(defaults={SUM: 7.0}),
        "incremental": lambda: project.define(incremental=False),
    }


@pytest.mark.parametrize(
    "what", ["code", "metrics", "keys", "source", "validators", "defaults", "incremental"]
)
def test_a_feature_that_other_definitions_keep_is_refused_by_name_and_nothing_changes(
    project: Project, what: str
) -> None:
    share(project, "shop").build()
    books = project.store.books("spend")
    for _ in range(2):
        bank = share(project, "bank", others(project)[what]())
        with pytest.raises(BuildError, match=BY_SHOP):
            bank.build()
        with pytest.raises(BuildError, match=BY_SHOP):
            bank.plan()
        with pytest.raises(DefinitionError, match=BY_SHOP):
            bank.refresh("spend", attended=False)
    assert (versions(project), project.store.books("spend")) == (["1.0.0"], books)
    project.drop("b", rows((1, 2, 2.0)))
    assert share(project, "shop").build()["spend"].version == "1.0.1"


def test_a_table_elsewhere_is_another_definition(project: Project) -> None:
    def beside(df: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
        return df.join(table, on="user_id")

    for name in ("one", "other"):
        pl.DataFrame({"user_id": [1, 2]}).write_parquet(project.root / f"{name}.parquet")
    one, other = (
        project.define(beside, tables={"table": f"{n}.parquet"}) for n in ("one", "other")
    )
    share(project, "shop", one).build()
    with pytest.raises(BuildError, match=BY_SHOP):
        share(project, "bank", other).build()


def test_one_helper_applied_twice_is_two_features_to_a_shared_store(project: Project) -> None:
    share(project, "shop", project.define(partial(scaled, by=2.0))).build()
    with pytest.raises(BuildError, match=BY_SHOP):
        share(project, "bank", project.define(partial(scaled, by=3.0))).build()
    share(project, "bank", project.define(partial(scaled, by=2.0))).build()
    assert (versions(project), keeper(project)) == (["1.0.0"], "shop")


def test_definitions_that_define_a_feature_alike_both_refresh_it_and_its_keeper_alone_changes_it(
    project: Project,
) -> None:
    share(project, "shop").build()
    project.drop("b", rows((1, 2, 2.0)))
    told = project.define(description="the same", engine="duckdb", owner="bank")
    assert share(project, "bank", told).build()["spend"].version == "1.0.1"
    assert keeper(project) == "shop"
    wider = project.define(metrics=[Rolling("7d", {"amount": ["sum", "count", "mean"]})])
    share(project, "shop", wider).build()
    with pytest.raises(BuildError, match=BY_SHOP):
        share(project, "bank").build()
    share(project, "bank", wider).build()


def test_definitions_that_no_longer_name_a_feature_have_let_go_of_it(anywhere: Project) -> None:
    project = anywhere
    share(project, "shop").build()
    bank = share(project, "bank", others(project)["code"]())
    with pytest.raises(BuildError, match=BY_SHOP):
        bank.build()
    share(project, "shop", project.define(name="other")).build()
    assert bank.build()["spend"].version == "1.1.0"
    assert keeper(project) == "bank"
    with pytest.raises(BuildError, match="'bank', which share this store, have another feature"):
        share(project, "shop").build()


def test_a_feature_that_is_taken_over_is_kept_before_its_new_keeper_builds(
    project: Project,
) -> None:
    share(project, "shop").build()
    share(project, "bank", project.define(name="other")).build()
    bank = share(project, "bank", project.define(name="other"), others(project)["code"]())
    assert take_over(bank, "spend") == "shop"
    with pytest.raises(BuildError, match="'bank', which share this store, have another feature"):
        share(project, "shop").build()


def test_a_feature_that_nobody_shared_is_the_first_s_who_does(project: Project) -> None:
    project.build()
    assert keeper(project) is None
    share(project, "shop").build()
    with pytest.raises(BuildError, match=BY_SHOP):
        share(project, "bank", others(project)["code"]()).build()
    alone = project.definitions(others(project)["code"](), name="bank")
    with pytest.raises(BuildError, match=r"If these are those definitions, say .*name='shop'"):
        alone.build()
    project.definitions(others(project)["code"](), name="shop").build()
    assert (versions(project)[-1], keeper(project)) == ("1.1.0", "shop")


def test_a_feature_with_another_name_is_still_its_keeper_s(anywhere: Project) -> None:
    project = anywhere
    share(project, "shop").build()
    project.store.rename("spend", "spending")
    other = others(project)["code"]()
    renamed = project.define(other.function, name="spending")
    with pytest.raises(BuildError, match="have another feature 'spending'"):
        share(project, "bank", renamed).build()
    share(project, "shop", project.define(name="spending")).build()
    with pytest.raises(BuildError, match="have another feature 'spending'"):
        share(project, "bank", renamed).build()


def test_a_feature_is_renamed_by_its_keeper_alone(anywhere: Project) -> None:
    project = anywhere
    share(project, "shop").build()
    bank = share(project, "bank")
    with pytest.raises(StoreError, match=r"spend is kept by the definitions 'shop'.*adopt spend"):
        rename(bank, "spend", "spending")
    assert rename(share(project, "shop"), "spend", "spending").after == "spending"
    with pytest.raises(StoreError, match="spending is kept by the definitions 'shop'"):
        rename(bank, "spending", "spend")


def test_a_note_of_names_that_cannot_be_written_or_read_ends_no_build(project: Project) -> None:
    folder = LocalStore(project.root / "store").path / "_metadata" / "definitions"
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way")
    assert share(project, "shop").build()["spend"].version == "1.0.0"
    folder.unlink()
    share(project, "shop").build()
    [note] = folder.iterdir()
    assert json.loads(note.read_text())["features"] == ["spend"]
    note.write_text('{"features": 3}')
    with pytest.raises(IntegrityError, match="delete it, and build with these definitions again"):
        project.store.defined_names("shop")
    note.unlink()
    share(project, "shop").build()
    assert project.store.defined_names("shop") == DefinedNames(frozenset({"spend"}))


def test_a_service_is_let_go_of_and_handed_over_like_a_feature(anywhere: Project) -> None:
    project = anywhere
    spend = project.define()

    def with_service(name: str, *columns: str, shares: bool = True) -> Definitions:
        services = [Service("checkout", [spend[columns]])] if columns else []
        return project.definitions(spend, name=name, partial=shares, services=services)

    def kept() -> tuple[str, str]:
        last = kept_versions(project.store, "checkout")[-1]
        return str(last.version), last.keeper

    project.definitions(spend, services=[Service("checkout", [spend[SUM]])]).build()
    with_service("shop", SUM).build()
    assert kept() == ("1.0.1", "shop")
    with_service("bank", COUNT).build()
    assert kept() == ("1.0.1", "shop")
    with pytest.raises(DefinitionError, match=r"another service 'checkout'.*adopt checkout"):
        keep(
            with_service("bank", COUNT).services["checkout"],
            project.store,
            with_service("bank").keeper,
        )
    with_service("shop").build()
    with_service("bank", COUNT).build()
    assert kept() == ("2.0.0", "bank")
    shop = with_service("shop", SUM)
    assert take_over(shop, "checkout") == "bank"
    assert take_over(shop, "checkout") is None
    assert kept() == ("3.0.0", "shop")
    with_service("bank", SUM).build()
    assert kept() == ("3.0.0", "shop"), "the same: nothing to undo"
    alone = with_service("alone", SUM, shares=False)
    assert take_over(alone, "checkout") == "shop"
    with_service("shop", COUNT).build()
    assert kept() == ("3.0.1", "alone")
    with pytest.raises(DefinitionError, match="no feature or service 'check'"):
        take_over(alone, "check")


def test_a_running_worker_notes_names_once_and_again_after_a_failure(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = share(project, "shop")
    keeper_ = ServiceKeeper(cast(Any, SimpleNamespace(definitions=shop)))
    folder = LocalStore(project.root / "store").path / "_metadata" / "definitions"
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way")
    keeper_.look()
    folder.unlink()
    keeper_.look()
    assert project.store.defined_names("shop") == DefinedNames(frozenset({"spend"}))
    monkeypatch.setattr(LocalStore, "defined_names", lambda *_: pytest.fail("looked again"))
    keeper_.look()


TEXT = """
from mlforge import Definitions, Service, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore

@feature(keys=["user_id"], source="events/", timestamp="at", metrics=[Rolling("7d", {"amount": METRICS})])
def spend(df):
    return df.select("user_id", "at", "amount")

defs = Definitions(LocalStore("store"), [spend], name=NAME, partial=True, services=[Service("checkout", [spend])])
"""


def text_of(name: str, *metrics: str) -> str:
    return TEXT.replace("NAME", repr(name)).replace("METRICS", repr(list(metrics)))


def test_the_command_hands_a_feature_and_a_service_over(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project.root)
    monkeypatch.delenv("REDIS_URL", raising=False)
    for name, metrics in {"shop": ("sum",), "bank": ("sum", "count")}.items():
        (project.root / f"{name}.py").write_text(text_of(name, *metrics))
    printed(capsys, "build", "-d", "shop.py")
    assert main(["build", "-d", "bank.py"]) == 1
    assert "mlforge adopt spend" in " ".join(capsys.readouterr().err.split())
    assert main(["plan", "-d", "bank.py"]) == 1
    assert "'shop', which share this store" in " ".join(capsys.readouterr().err.split())
    adopted = as_json(capsys, "adopt", "spend", "-d", "bank.py")
    assert (adopted["feature"], adopted["kept_by"], adopted["written"]) == ("spend", "shop", None)
    assert as_json(capsys, "show", "spend", "-d", "bank.py")["keeper"] == "bank"
    assert main(["build", "-d", "bank.py"]) == 0
    assert "'mlforge adopt checkout'" in " ".join(capsys.readouterr().err.split())
    assert versions(project) == ["1.0.0", "1.1.0"]
    assert as_json(capsys, "show", "checkout", "-d", "bank.py")["keeper"] == "shop"
    told = " ".join(printed(capsys, "adopt", "checkout", "-d", "bank.py").split())
    assert "it was kept by 'shop'" in told
    assert as_json(capsys, "show", "checkout", "-d", "bank.py")["keeper"] == "bank"
    told = printed(capsys, "adopt", "checkout", "-d", "bank.py")
    assert "not kept by other definitions" in told
    assert main(["build", "-d", "shop.py"]) == 1
    assert "'bank', which share this store" in " ".join(capsys.readouterr().err.split())


def test_a_feature_that_others_keep_does_not_vanish_in_a_plan_until_they_let_go(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project.root)
    (project.root / "shop.py").write_text(text_of("shop", "sum"))
    (project.root / "bank.py").write_text(text_of("bank", "sum").replace("spend", "outlay"))
    for name in ("shop", "bank"):
        assert main(["build", "-d", f"{name}.py"]) == 0
    assert as_json(capsys, "plan", "-d", "bank.py")["vanish"] == []

    share(project, "shop", project.define(name="other")).build()
    [gone] = as_json(capsys, "plan", "-d", "bank.py")["vanish"]
    assert gone["feature"] == "spend"


def test_definitions_of_another_name_take_over_all_that_they_kept_under_the_former(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project.root)
    monkeypatch.delenv("REDIS_URL", raising=False)
    (project.root / "definitions.py").write_text(text_of("shop", "sum"))
    printed(capsys, "build")
    (project.root / "definitions.py").write_text(text_of("store", "sum", "count"))
    assert main(["build"]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "say Definitions(name='shop'), or take over all that they keep" in told
    assert as_json(capsys, "adopt", "--from", "bank") == {"kept_by": "bank", "names": []}
    assert "keeps nothing that" in printed(capsys, "adopt", "--from", "bank")
    told = " ".join(printed(capsys, "adopt", "--from", "shop").split())
    assert told.endswith("until now: spend, checkout")
    assert main(["adopt", "--from", "store"]) == 1
    assert "theirs already" in capsys.readouterr().err
    printed(capsys, "build")
    assert versions(project) == ["1.0.0", "1.1.0"]
    assert kept_versions(project.store, "checkout")[-1].keeper == "store"


def test_rows_online_of_a_feature_that_has_moved_to_other_definitions_stay(
    project: Project, monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    monkeypatch.chdir(project.root)
    monkeypatch.setattr(sys, "path", list(sys.path))
    files = {name: project.root / f"{name}.py" for name in ("shop", "bank")}
    for name, file in files.items():
        file.write_text(text_of(name, "sum"))

    def opened(name: str) -> WorkerProject:
        return WorkerProject.open(Settings(redis_url, f"{name}.py", project.root))

    shop = opened("shop")
    shop.definitions.build()
    shop.definitions.push("spend")
    shop.claim("spend")
    files["shop"].write_text(
        text_of("shop", "sum").replace("def spend", "def other").replace("[spend]", "[other]")
    )
    shop = opened("shop")
    shop.definitions.build()
    bank = opened("bank")
    bank.definitions.build()
    bank.definitions.push("spend")
    assert [gone.feature for gone in shop.gone()] == ["spend"]
    with pytest.raises(MlforgeError, match="kept by the definitions 'bank'"):
        retire(Holdings.of(shop), "spend", lambda _: True, keep_versions=False, force=True)
    assert end_online(shop, "spend") == 0
    assert shop.gone() == []
    online = RedisStore.from_url(redis_url)
    assert online.read("spend", {"user_id": 2}) == {SUM: 5.0}
    assert versions(project) == ["1.0.0"]
    files["bank"].write_text(files["shop"].read_text().replace("'shop'", "'bank'"))
    bank.claim("spend")
    bank = opened("bank")
    bank.definitions.build()
    assert end_online(bank, "spend") == 2, "nobody has it any more"


def test_watchers_of_partial_definitions_of_one_name_are_told_to_take_another(
    project: Project, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("shop", "bank"):
        (project.root / f"{name}.py").write_text(text_of("project", "sum"))
    text = (project.root / "bank.py").read_text().replace("spend", "other")
    (project.root / "bank.py").write_text(text)
    shop, bank = (
        WorkerProject.open(Settings(redis_url, f"{name}.py", project.root))
        for name in ("shop", "bank")
    )
    assert shop.scope == bank.scope
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(os, "getpid", lambda: 1)
        shop.presence.report([])
    with pytest.raises(DefinitionError, match="give one of them another name= than 'project'"):
        refuse_a_store_in_use(bank)
    refuse_a_store_in_use(shop)  # two processes of the same definitions do each other no harm
