"""Versions of services: kept by a build, told by a plan, read by `name@major` in training and online."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

from mlforge import (
    Definitions,
    Service,
    aget_online_features,
    get_online_features,
    get_training_data,
    training_set,
)
from mlforge.core import clock
from mlforge.core.keeper import Keeper
from mlforge.core.values import Version, to_us
from mlforge.definitions.services import keep_services
from mlforge.errors import (
    DefinitionError,
    FeatureNotFound,
    IntegrityError,
    LockMismatch,
    RetrievalError,
)
from mlforge.features.feature import Feature
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.services.keeping import keep, kept_versions
from mlforge.store import LocalStore
from tests.support.commands import as_json, printed
from tests.support.projects import Project, at, rows
from worker.reconcile.service_keeper import ServiceKeeper

NOW = at(5)
SUM, COUNT, MEAN = "amount__sum__7d", "amount__count__7d", "amount__mean__7d"
ENTITIES = [{"user_id": user} for user in (1, 9)]
SPINE = pl.DataFrame({"user_id": [1, 9], "at": [NOW, NOW]})


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.drop("a", rows((1, 0, 1.0), (1, 3, 2.0), (2, 5, 5.0)))
    return project


def spend_of(project: Project, *aggregations: str, window: str = "7d", **changes: Any) -> Feature:
    metrics = [Rolling(window, {"amount": list(aggregations or ("sum", "count"))})]
    return project.define(name="spend", metrics=metrics, **changes)


def build(
    project: Project, online: RedisStore, feature: Feature, *services: Service
) -> Definitions:
    definitions = project.definitions(feature, services=services)
    definitions.online_store = online
    with clock.fixed(to_us(NOW)):
        definitions.build(online=True)
    return definitions


def versions(project: Project, name: str = "checkout") -> list[tuple[str, str | None]]:
    return [(str(kept.version), kept.bump) for kept in kept_versions(project.store, name)]


def answers(project: Project, online: RedisStore, service: str) -> list[dict[str, Any]]:
    """The values of users 1 and 9, the same from a set, in training, online and asynchronously."""
    kept = Service.at(project.store, service)
    with clock.fixed(to_us(NOW)):
        trained = get_training_data(SPINE, service, store=project.store)
        assert get_training_data(SPINE, kept, store=project.store).equals(trained)
        served = get_online_features(kept, ENTITIES, store=online)
        assert asyncio.run(aget_online_features(kept, ENTITIES, store=online)) == served
    assert trained.drop("at").to_dicts() == served
    return [{name: row[name] for name in row if name != "user_id"} for row in served]


def test_a_build_keeps_a_version_for_each_change_and_none_for_none(
    project: Project, online: RedisStore
) -> None:
    spend = spend_of(project)
    build(project, online, spend, Service("checkout", [spend]), Service("other", [spend[SUM]]))
    assert versions(project) == versions(project, "other") == [("1.0.0", None)]
    project.drop("b", rows((1, 4, 4.0)))
    build(project, online, spend, Service("checkout", [spend]))
    assert versions(project) == [("1.0.0", None)]
    build(project, online, spend, Service("checkout", [spend], owner="risk"))
    wider = spend_of(project, "sum", "count", "mean")
    build(project, online, wider, Service("checkout", [wider], owner="risk"))
    other = spend_of(project, "sum", "count", "mean", window="14d")
    build(project, online, other, Service("checkout", [other], owner="risk"))
    assert versions(project) == [
        ("1.0.0", None),
        ("1.0.1", "patch"),
        ("1.1.0", "minor"),
        ("2.0.0", "major"),
    ]
    assert versions(project, "other") == [("1.0.0", None)]


def test_versions_are_served_side_by_side_while_their_columns_are_what_they_were(
    project: Project, online: RedisStore
) -> None:
    spend = spend_of(project, "sum", "count", "mean")
    first = Service("checkout", [spend], defaults={SUM: 0}, max_age="9d")
    build(project, online, spend, first)
    second = Service(
        "checkout",
        [spend.as_("buyer", user_id="buyer_id")[SUM]],
        derive={"twice": f"buyer__{SUM} * 2"},
    )
    build(project, online, spend, second)
    one = [
        {f"spend__{SUM}": 3.0, f"spend__{COUNT}": 2, f"spend__{MEAN}": 1.5},
        {f"spend__{SUM}": 0.0, f"spend__{COUNT}": 0, f"spend__{MEAN}": None},
    ]
    assert versions(project) == [("1.0.0", None), ("2.0.0", "major")]
    for name in ("checkout@1", "checkout@1.0.0"):
        assert answers(project, online, name) == one
    with clock.fixed(to_us(NOW)):
        two = get_online_features(
            Service.at(project.store, "checkout@2"), [{"buyer_id": 1}], online
        )
    assert two == [{"buyer_id": 1, f"buyer__{SUM}": 3.0, "twice": 6.0}]
    project.drop("b", rows((1, 4, 4.0)))
    wider = spend_of(project, "sum", "count", "mean", "max")
    build(
        project,
        online,
        wider,
        Service(
            "checkout",
            [wider.as_("buyer", user_id="buyer_id")[SUM]],
            derive={"twice": f"buyer__{SUM} * 2"},
        ),
    )
    assert answers(project, online, "checkout@1")[0] == {
        f"spend__{SUM}": 7.0,
        f"spend__{COUNT}": 3,
        f"spend__{MEAN}": 7 / 3,
    }
    made = training_set(SPINE, "checkout@1", project.store, project.root / "set")
    assert made.read().columns[2:] == list(one[0])
    assert made.blast_radius(project.store).rows.is_empty()
    assert Service.at(project.store, "checkout@1").lock(project.store).columns == (
        kept_versions(project.store, "checkout")[0].lock.columns
    )


def test_a_version_reads_the_features_as_the_service_names_them_by_then(
    project: Project, online: RedisStore
) -> None:
    spend = spend_of(project)
    build(project, online, spend)
    project.drop("b", rows((1, 4, 4.0)))
    build(project, online, spend, Service("checkout", [(spend, "1.0.0")]))
    build(project, online, spend, Service("checkout", [(spend, "1.0.1")]))
    build(project, online, spend, Service("checkout", [spend]))
    build(project, online, spend, Service("checkout", [spend]))
    assert [str(version) for version in project.store.versions("spend")] == ["1.0.0", "1.0.1"]
    assert versions(project) == [("1.0.0", None), ("1.0.1", "patch"), ("1.0.2", "patch")]
    sums = [
        get_training_data(SPINE, f"checkout@{version}", store=project.store)[f"spend__{SUM}"][0]
        for version in ("1.0.0", "1.0.1", "1.0.2", "1")
    ]
    assert sums == [3.0, 7.0, 7.0, 7.0]


def test_a_default_that_moves_between_feature_and_service_is_kept_where_it_is(
    project: Project, online: RedisStore
) -> None:
    of_feature = spend_of(project, "sum", defaults={SUM: 0})
    build(project, online, of_feature, Service("checkout", [of_feature]))
    build(project, online, of_feature, Service("checkout", [of_feature], defaults={SUM: 0}))
    plain = spend_of(project, "sum")
    build(project, online, plain, Service("checkout", [plain], defaults={SUM: 0}))
    assert versions(project) == [("1.0.0", None), ("1.0.1", "patch")]
    assert answers(project, online, "checkout@1")[1] == {f"spend__{SUM}": 0.0}
    with pytest.raises(LockMismatch, match="the value in place of null"):
        answers(project, online, "checkout@1.0.0")


@pytest.mark.parametrize("gone", ["column", "meaning", "default", "keys", "type"])
def test_a_version_whose_columns_changed_is_refused_by_name_everywhere(
    project: Project, online: RedisStore, gone: str
) -> None:
    spend = spend_of(project, "sum", "mean", defaults={SUM: 0})
    build(project, online, spend, Service("checkout", [spend]))
    kept = Service.at(project.store, "checkout@1")
    changes: dict[str, Any] = {"defaults": {SUM: 1 if gone == "default" else 0}}
    functions = {
        "meaning": lambda df: df.with_columns(amount=pl.col("amount") * 1),
        "keys": lambda df: df.with_columns(shop=pl.lit(1)),
        "type": lambda df: df.with_columns(amount=pl.col("amount").cast(pl.Int64)),
    }
    if gone == "keys":
        changes["keys"] = ["user_id", "shop"]
    if gone in functions:
        changes["function"] = functions[gone]
    aggregations = ["sum", "count"] if gone == "column" else ["sum", "mean"]
    metrics = [Rolling("7d", {"amount": aggregations})]
    other = project.define(name="spend", metrics=metrics, **changes)
    build(project, online, other, Service("checkout", [other]))
    assert versions(project)[1] == ("2.0.0", "major")
    entities = [{"user_id": 1, **({"shop": 1} if gone == "keys" else {})}]
    with clock.fixed(to_us(NOW)):
        for ask in (
            lambda: get_training_data(SPINE, "checkout@1", store=project.store),
            lambda: get_online_features(kept, entities, store=online),
            lambda: training_set(SPINE, "checkout@1", project.store, project.root / "set"),
            lambda: Service.at(project.store, "checkout@1").lock(project.store),
        ):
            with pytest.raises(LockMismatch):
                ask()
        with pytest.raises(LockMismatch, match=r"checkout@1\.0\.0 is not served any more: .*spend"):
            get_online_features(Service.at(project.store, "checkout@1"), ENTITIES, store=online)


def test_a_text_that_names_no_version_is_told(project: Project, online: RedisStore) -> None:
    spend = spend_of(project)
    build(project, online, spend, Service("checkout", [spend]))
    for text, message in {
        "checkout@2": "no such version is kept",
        "checkout@1.0.1": "did you mean '1.0.0'",
        "checkout@": "no such version is kept",
        "chekout@1": "no version of a service 'chekout' is kept",
        "checkout@1@1": "no such version is kept",
        "@1": "names no service; write 'checkout@1'",
        "../x@1": "names no service",
    }.items():
        with pytest.raises(RetrievalError, match=message):
            get_training_data(SPINE, text, store=project.store)
    for store in (None, online):
        with pytest.raises(RetrievalError, match="kept by an offline store such as LocalStore"):
            Service.at(cast(Any, store), "checkout@1")
    with pytest.raises(RetrievalError, match=r"Service\.at\(LocalStore"):
        get_online_features("checkout@1", ENTITIES, store=online)


def test_a_worker_keeps_what_has_changed_and_looks_again_only_where_something_has(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    spend = spend_of(project)
    services = [Service("other", [spend[SUM]]), Service("checkout", [spend])]
    definitions = project.definitions(spend, services=services)
    keeper = ServiceKeeper(cast(Any, SimpleNamespace(definitions=definitions)))
    keeper.look()
    assert versions(project) == []
    definitions.refresh("spend", attended=False)
    folder = project.store.path / "_metadata" / "services"
    folder.write_text("in the way")
    keeper.look()
    folder.unlink()
    keeper.look()
    assert versions(project) == versions(project, "other") == [("1.0.0", None)]
    looked: list[str] = []
    read = project.store.service_versions
    monkeypatch.setattr(
        project.store, "service_versions", lambda name: looked.append(name) or read(name)
    )
    keeper.look()
    assert looked == []
    project.drop("b", rows((1, 4, 4.0)))
    definitions.refresh("spend", attended=False)
    keeper.look()
    assert looked == ["other", "checkout"]
    monkeypatch.undo()
    assert versions(project) == [("1.0.0", None)]
    wider = spend_of(project, "sum", "count", "mean")
    other = project.definitions(wider, services=[Service("checkout", [wider])])
    other.refresh("spend", attended=False)
    (folder / "checkout" / "1.0.0.json").write_text("{")
    ServiceKeeper(cast(Any, SimpleNamespace(definitions=other))).look()
    with pytest.raises(IntegrityError, match=r"1\.0\.0"):
        versions(project)


def test_commands_name_versions_of_services(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    file = project.root / "definitions.py"
    text = """
from mlforge import Definitions, Service, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore

@feature(keys=["user_id"], source="events/", timestamp="at", metrics=[Rolling("7d", {"amount": AGGREGATIONS})])
def spend(df):
    return df

defs = Definitions(store=LocalStore("store"), features=[spend], services=[Service("checkout", [spend])])
"""
    file.write_text(text.replace("AGGREGATIONS", '["sum", "count"]'))
    assert as_json(capsys, "services")["services"][0]["version"] is None
    [first] = as_json(capsys, "plan")["services"]
    assert (first["service"], first["from"], first["to"]) == ("checkout", None, "1.0.0")
    printed(capsys, "build")
    assert as_json(capsys, "services")["services"][0]["version"] == "1.0.0"
    assert as_json(capsys, "plan")["services"] == []
    printed(capsys, "plan", "--exit-code")
    file.write_text(text.replace("AGGREGATIONS", '["sum"]'))
    shown = " ".join(printed(capsys, "plan").split())
    assert "the service checkout would be kept as 1.0.0 -> 2.0.0 (MAJOR)" in shown
    printed(capsys, "plan", "--exit-code", code=12)
    assert as_json(capsys, "services")["services"][0]["version"] == "1.0.0"
    printed(capsys, "build")
    document = as_json(capsys, "services", "checkout")
    assert (document["version"], document["versions"]) == ("2.0.0", ["1.0.0", "2.0.0"])
    with pytest.raises(FeatureNotFound, match="'mlforge services checkout' tells of it"):
        LocalStore("store").list_versions("checkout")
    printed(capsys, "lock", "checkout@2")
    SPINE.write_parquet(project.root / "spine.parquet")
    printed(capsys, "train", "checkout@2", "--spine", "spine.parquet", "--out", "set")
    printed(capsys, "lock", "checkout@1", code=1)
    misfit = 'Service("checkout", [spend], defaults={"amount__sum__7d": "much"})'
    file.write_text(
        text.replace("AGGREGATIONS", '["sum"]').replace('Service("checkout", [spend])', misfit)
    )
    shown = " ".join(printed(capsys, "plan").split())
    assert "no version of the service checkout would be kept: checkout: the default of" in shown
    assert as_json(capsys, "plan")["services"] == []


def test_a_plan_names_a_service_that_would_go_though_a_lock_is_of_it(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    file = project.root / "definitions.py"
    text = """
from mlforge import Definitions, Service, feature
from mlforge.store import LocalStore

@feature(keys=["user_id"], source="events/", timestamp="at")
def spend(df):
    return df

defs = Definitions(store=LocalStore("store"), features=[spend], services=[SERVICES])
"""
    both = 'Service("checkout", [spend]), Service("refunds", [spend])'
    file.write_text(text.replace("SERVICES", both))
    printed(capsys, "build")
    printed(capsys, "lock", "checkout", "--model", "fraud")
    assert as_json(capsys, "plan")["going"] == []
    file.write_text(text.replace("SERVICES", ""))
    [going] = as_json(capsys, "plan")["going"]
    assert going == {"service": "checkout", "version": "1.0.0", "models": ["fraud"]}
    told = " ".join(printed(capsys, "plan").split())
    assert "the service checkout would go: the definitions no longer name it" in told
    printed(capsys, "plan", "--exit-code", code=12)
    assert as_json(capsys, "plan", "--features", "spend")["going"] == []
    printed(capsys, "locks", "--remove", "fraud")
    assert as_json(capsys, "plan")["going"] == []


def test_versions_of_services_are_pruned_by_the_rule_of_features_and_majors_and_locks_keep_theirs(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spend = spend_of(project)
    project.build(spend)
    store = project.store
    for owner in range(54):
        columns = spend[SUM] if owner < 2 else spend[SUM, COUNT]
        keep_services([Service("checkout", [columns], owner=f"team {owner}")], store)
    kept = list(map(str, store.service_versions("checkout")))
    # The newest of each MINOR and the last fifty: 1.0.1 stays for the first reason.
    assert kept == ["1.0.1", *(f"1.1.{patch}" for patch in range(2, 52))]
    keep_services([Service("checkout", [spend[COUNT]])], store)
    store.register_lock("fraud", Service.at(store, "checkout@1.0.1").lock(store))
    store.register_lock("risk", Service.at(store, "checkout@1.1.9").lock(store))
    monkeypatch.chdir(project.root)
    prune = ("prune", "--keep", "1", "--store", "store")
    dry = as_json(capsys, *prune, "--dry-run")
    done = as_json(capsys, *prune)
    assert done["services"] == dry["services"]
    assert [each["service"] for each in done["services"]] == ["checkout"]
    assert list(map(str, store.service_versions("checkout"))) == ["1.1.51", "2.0.0"]
    assert as_json(capsys, "prune", "spend", "--store", "store")["services"] == []
    assert "checkout" in printed(capsys, *prune)
    get_training_data(SPINE, "checkout@1", store=store)


def test_another_service_of_that_name_of_definitions_that_share_the_store_is_refused_by_name(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spend = spend_of(project)

    def share(name: str, *columns: str) -> Definitions:
        return project.definitions(
            spend, services=[Service("checkout", [spend[columns]])], name=name, partial=True
        )

    share("shop", SUM).build()
    share("bank", COUNT).build()
    assert versions(project) == [("1.0.0", None)]
    with pytest.raises(DefinitionError, match=r"'shop'.*another service 'checkout'"):
        keep(share("bank", COUNT).services["checkout"], project.store, Keeper("bank", True))
    share("bank", SUM).build()
    share("shop", SUM, COUNT).build()
    assert versions(project) == [("1.0.0", None), ("1.1.0", "minor")]


def test_a_version_whose_answer_was_lost_counts_as_kept_by_who_wrote_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.definitions(spend_of(project)).build()
    service, create = Service("checkout", features=["spend"]), project.store.create_service_version
    monkeypatch.setattr(
        project.store, "create_service_version", lambda *version: create(*version) and False
    )
    kept = keep(service, project.store)
    assert kept is not None
    assert str(kept.version) == "1.0.0"
    assert keep(service, project.store) is None

    def anothers(service: str, version: Version, document: Mapping[str, Any]) -> bool:
        assert create(service, version, {**document, "details": ["of another process"]})
        return False

    monkeypatch.setattr(project.store, "create_service_version", anothers)
    changed = Service("checkout", features=["spend"], max_age="1h")
    assert keep(changed, project.store) is None, "the version is there, by who was faster"
    assert len(project.store.service_versions("checkout")) == 2
