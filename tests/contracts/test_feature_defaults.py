"""Defaults of a feature: in answers of training and online alike, never in what is stored."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import (
    Definitions,
    Service,
    TrainingSet,
    get_online_features,
    get_training_data,
    training_set,
)
from mlforge.core import clock
from mlforge.core.values import to_us
from mlforge.definitions.services import keep_services
from mlforge.errors import BuildError, DefinitionError, LockMismatch
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.online.staleness import behind
from mlforge.registry.locks import lock_changes
from tests.support.commands import as_json, printed
from tests.support.projects import Project, at, rows

NOW = at(5)
SUM, MEAN = "amount__sum__7d", "amount__mean__7d"
METRICS = [Rolling("7d", {"amount": ["sum", "mean", "count"]})]
ENTITIES = [{"user_id": user} for user in (1, 9)]
SPINE = pl.DataFrame({"user_id": [1, 9], "at": [NOW, NOW]})


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.drop("a", rows((1, 0, 1.0), (1, 3, 2.0), (2, 5, 5.0)))
    return project


def build(project: Project, online: RedisStore, defaults: Any, **changes: Any) -> Definitions:
    spend = project.define(name="spend", defaults=defaults, **{"metrics": METRICS, **changes})
    definitions = project.definitions(spend)
    definitions.online_store = online
    with clock.fixed(to_us(NOW)):
        definitions.build(online=True)
    return definitions


def answers(
    definitions: Definitions, features: Any, **options: Any
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The values of users 1 and 9 in training and online, without keys."""
    with clock.fixed(to_us(NOW)):
        trained = get_training_data(SPINE, features, store=definitions.store, **options)
        served = get_online_features(features, ENTITIES, store=definitions.online_store, **options)
    return (
        trained.drop("user_id", "at").to_dicts(),
        [{name: row[name] for name in row if name != "user_id"} for row in served],
    )


def test_a_default_fills_answers_by_name_and_by_object_and_makes_no_version(
    project: Project, online: RedisStore
) -> None:
    before = build(project, online, None)
    stored = before.store.read("spend")
    hashes = before.features["spend"].code_hash
    after = build(project, online, {SUM: 0, MEAN: 1.5})
    assert [str(version) for version in after.store.versions("spend")] == ["1.0.0"]
    assert after.features["spend"].code_hash == hashes
    assert after.store.read("spend").equals(stored)
    spend = after.features["spend"]
    empty = {f"spend__{SUM}": 0.0, f"spend__{MEAN}": 1.5, "spend__amount__count__7d": 0}
    full = {f"spend__{SUM}": 3.0, f"spend__{MEAN}": 1.5, "spend__amount__count__7d": 2}
    for features in (["spend"], [spend], [(spend, "1.0.0")]):
        trained, served = answers(after, features)
        assert trained == served == [full, empty]
        assert isinstance(served[1][f"spend__{SUM}"], float)
    trained, served = answers(after, [spend[SUM].as_("buyer")])
    assert trained == served == [{f"buyer__{SUM}": 3.0}, {f"buyer__{SUM}": 0.0}]
    with clock.fixed(to_us(NOW)):
        [_, row] = get_online_features(["spend"], ENTITIES, store=online, details=True)
        assert after.audit("spend").mismatches == 0
    details = row["details"][f"spend__{SUM}"]
    assert (details.status, details.why) == (
        "empty",
        "the entity has no events in the windows; the default takes its place",
    )


def test_a_changed_default_is_behind_until_it_is_pushed_and_none_leaves_no_trace(
    project: Project, online: RedisStore
) -> None:
    definitions = build(project, online, {SUM: 0})
    store = definitions.store
    changed = project.definitions(project.define(name="spend", metrics=METRICS, defaults={SUM: 7}))
    with clock.fixed(to_us(NOW)):
        assert behind(store, online, "spend") is None
        changed.build()
        assert (
            behind(store, online, "spend") == "its defaults online are not those of the definitions"
        )
    assert answers(definitions, ["spend"])[1][1][f"spend__{SUM}"] == 0
    again = build(project, online, {SUM: 7})
    assert answers(again, ["spend"])[1][1][f"spend__{SUM}"] == 7
    with clock.fixed(to_us(NOW)):
        assert behind(store, online, "spend") is None
    without = build(project, online, None)
    assert answers(without, ["spend"])[1][1][f"spend__{SUM}"] is None
    assert "defaults" not in store.books("spend").to_json()
    assert online.books("spend").defaults == {}  # type: ignore[union-attr]
    assert [str(version) for version in store.versions("spend")] == ["1.0.0"]


def test_a_service_s_default_wins_and_its_derived_columns_see_the_feature_s(
    project: Project, online: RedisStore
) -> None:
    definitions = build(
        project, online, {SUM: 2, MEAN: 4}, derive={"own": f"{SUM} + 1", "kept": f"{MEAN} + 1"}
    )
    spend = definitions.features["spend"]
    service = Service(
        "checkout",
        [spend[SUM, MEAN, "own"]],
        derive={"both": f"spend__{SUM} * spend__{MEAN}"},
        defaults={SUM: 10},
    )
    trained, served = answers(definitions, service)
    assert trained == served
    assert trained[1] == {
        f"spend__{SUM}": 10.0,
        f"spend__{MEAN}": 4.0,
        "spend__own": None,
        "both": 40.0,
    }
    lock = service.lock(definitions.store)
    assert answers(definitions, service, lock=lock) == (trained, served)
    other = build(
        project, online, {SUM: 2, MEAN: 5}, derive={"own": f"{SUM} + 1", "kept": f"{MEAN} + 1"}
    )
    with pytest.raises(LockMismatch, match=f"spend__{MEAN}"):
        answers(other, service, lock=lock)


def test_a_training_set_keeps_the_defaults_that_it_was_made_with(
    project: Project, online: RedisStore, tmp_path: Path
) -> None:
    definitions = build(project, online, {SUM: 0})
    made = training_set(SPINE, ["spend"], definitions.store, tmp_path / "set")
    assert made.read()[f"spend__{SUM}"].to_list() == [3.0, 0.0]
    assert TrainingSet.open(tmp_path / "set").document == made.document
    store = definitions.store
    assert made.blast_radius(store).rows.is_empty()
    build(project, online, {SUM: 7})
    radius = made.blast_radius(store)
    assert radius.rows.to_dicts() == [{"row": 1, "columns": [f"spend__{SUM}"], "files": []}]
    assert (radius.versions, radius.redefined) == ({}, ("spend",))
    project.drop("b", rows((1, 4, 4.0)))
    build(project, online, {SUM: 0})
    radius = made.blast_radius(store)
    assert radius.rows["row"].to_list() == [0]
    assert (radius.by_file, radius.redefined) == ({"events/b.parquet": 1}, ())


@pytest.mark.parametrize(
    ("defaults", "message"),
    [
        ({"amount__sum__8d": 0}, "no column 'amount__sum__8d'; did you mean 'amount__sum__7d'"),
        ({"user_id": 0}, "'user_id' is a key or the timestamp"),
        ({SUM: None}, "must be a number, a text"),
        ({SUM: float("nan")}, "must be a number, a text"),
        ({SUM: [0]}, "must be a number, a text"),
        ([SUM], "defaults"),
    ],
)
def test_a_default_that_no_column_could_have_is_refused_at_once(
    project: Project, defaults: Any, message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        project.define(name="spend", metrics=METRICS, defaults=defaults)


def test_a_default_that_its_column_does_not_hold_is_refused_by_the_build(
    project: Project, online: RedisStore
) -> None:
    for value in ("none", True, date(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC)):
        with pytest.raises(BuildError, match=f"spend: defaults: '{SUM}' is Float64, not"):
            build(project, online, {SUM: value})
    with pytest.raises(BuildError, match="no column 'amuont'; did you mean 'amount'"):
        build(project, online, {"amuont": 0}, metrics=[])
    assert project.store.versions("spend") == []


def test_a_worker_holds_a_default_that_would_break_a_lock_and_a_plan_names_it(
    project: Project, online: RedisStore, capsys: pytest.CaptureFixture[str]
) -> None:
    before = build(project, online, {SUM: 0})
    store = before.store
    service = Service("checkout", [before.features["spend"][SUM, MEAN]], defaults={MEAN: 4})
    store.register_lock("fraud", service.lock(store))
    for harmless in ({SUM: 0, MEAN: 1.5}, {SUM: 0, "amount__count__7d": 1}, {SUM: 0.0}):
        definitions = project.definitions(
            project.define(name="spend", metrics=METRICS, defaults=harmless)
        )
        assert definitions.refresh("spend", attended=False).held is None
    build(project, online, {SUM: 0})
    for breaking in ({SUM: 7}, {}):
        changed = project.definitions(
            project.define(name="spend", metrics=METRICS, defaults=breaking)
        )
        held = changed.refresh("spend", attended=False).held
        assert held is not None
        assert "model fraud (service checkout)" in held
        assert f"spend__{SUM}: the value in place of null 0.0 became" in held
        assert store.books("spend").defaults == {SUM: 0}
    assert behind(store, online, "spend") is None
    assert (
        project.definitions(before.features["spend"]).refresh("spend", attended=False).held is None
    )
    assert store.books("spend").hold is None


def test_a_default_of_a_column_that_is_null_so_far_counts_once_it_has_a_dtype(
    project: Project, online: RedisStore
) -> None:
    events = rows((1, 0, 1.0)).with_columns(discount=None, city=None)
    project.drop("a", events)
    changes: dict[str, Any] = {"function": lambda df: df, "metrics": []}
    defaults = {"discount": 5, "city": "none"}
    definitions = build(project, online, defaults, **changes)
    trained, served = answers(definitions, ["spend"])
    assert trained == served
    assert trained[1]["spend__discount"] is None
    metrics = [Rolling("7d", {"city": "last"})]
    named = {"city__last__7d": "x"}
    project.build(project.define(lambda df: df, name="m", metrics=metrics, defaults=named))
    project.drop("b", events.with_columns(discount=pl.lit(2), city=pl.lit("x")))
    definitions = build(project, online, defaults, **changes)
    trained, served = answers(definitions, ["spend"])
    assert trained == served
    assert (trained[1]["spend__discount"], trained[1]["spend__city"]) == (5, "none")
    with pytest.raises(BuildError, match="'discount' is Int32, not 'much'"):
        build(project, online, {"discount": "much"}, **changes)


def test_a_lock_whose_default_is_another_by_now_is_told_as_broken(
    project: Project, online: RedisStore
) -> None:
    spend = build(project, online, {SUM: 0}).features["spend"]
    services = [Service("plain", [spend]), Service("own", [spend], defaults={SUM: 0})]
    keep_services(services, project.store)
    locks = [service.lock(project.store) for service in services]
    for defaults, says in (
        ({SUM: 0}, []),
        ({SUM: 7}, [f"spend__{SUM}: the value in place of null 0.0 became 7.0"]),
        ({}, [f"spend__{SUM}: the value in place of null 0.0 became none"]),
        ({SUM: 0, MEAN: 1}, [f"spend__{MEAN}: the value in place of null none became 1.0"]),
    ):
        definitions = build(project, online, defaults)
        of_own = [told for told in says if SUM not in told]
        for service, lock, expected in zip(services, locks, (says, of_own), strict=True):
            assert [str(change) for change in lock_changes(project.store, lock)] == expected
            with pytest.raises(LockMismatch) if expected else nullcontext():
                answers(definitions, service, lock=lock)


def test_a_default_that_the_version_of_then_does_not_hold_leaves_null(
    project: Project, online: RedisStore
) -> None:
    project.drop("a", rows((1, 0, 1.0)))
    first = build(project, online, {"amount": 0.5}, metrics=[])
    text = project.define(
        lambda df: df.with_columns(amount=pl.lit("much")),
        name="spend",
        metrics=[],
        defaults={"amount": "none"},
    )
    second = project.definitions(text)
    second.online_store = online
    with clock.fixed(to_us(NOW)):
        second.build(online=True)
    assert [answer[1] for answer in answers(second, ["spend"])] == [{"spend__amount": "none"}] * 2
    old = get_training_data(SPINE, [("spend", "1.0.0")], store=first.store)
    assert old["spend__amount"].to_list() == [1.0, None]
    with clock.fixed(to_us(NOW)):
        second.rollback("spend", "1.0.0")
    assert [answer[1] for answer in answers(second, ["spend"])] == [{"spend__amount": None}] * 2


DEFINITIONS = """
from mlforge import Definitions, Service, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore

@feature(keys=["user_id"], source="events/", timestamp="at", metrics=[Rolling("7d", {"amount": "sum"})], defaults=DEFAULTS)
def spend(df):
    return df

checkout = Service("checkout", [spend], defaults={"amount__sum__7d": 5})
defs = Definitions(store=LocalStore("store"), features=[spend], services=[checkout])
"""


def test_commands_name_defaults(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    file = project.root / "definitions.py"
    file.write_text(DEFINITIONS.replace("DEFAULTS", f'{{"{SUM}": 0}}'))
    build_command = ("build", "--features", "spend")
    printed(capsys, *build_command)
    assert as_json(capsys, "plan")["defaults"] == {}
    shown = as_json(capsys, "show", "feature:spend")["columns"]
    assert {column["name"]: column["default"] for column in shown}[SUM] == 0
    assert "sum of amount over 7d, 0 in place of null" in printed(capsys, "show", "feature:spend")
    [column] = as_json(capsys, "show", "service:checkout")["columns"]
    assert (column["name"], column["default"]) == (f"spend__{SUM}", 5)
    page = printed(capsys, "explain", "spend", "user_id=9")
    assert "default          in answers" in page
    [value] = as_json(capsys, "explain", "spend", "user_id=9")["values"]
    assert (value["value"], value["default"]) == (None, 0)
    file.write_text(DEFINITIONS.replace("DEFAULTS", f'{{"{SUM}": 7}}'))
    assert f"spend: the default of {SUM} would change: 0 -> 7" in printed(capsys, "plan")
    assert as_json(capsys, "plan")["defaults"] == {"spend": {SUM: {"from": 0, "to": 7}}}
    printed(capsys, *build_command)
    assert as_json(capsys, "plan")["defaults"] == {}
