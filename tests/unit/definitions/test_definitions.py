"""What Definitions take, refuse and agree upon."""

from __future__ import annotations

import importlib
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import Definitions, Service, feature
from mlforge.build.result import Options
from mlforge.definitions.loader import load
from mlforge.errors import DefinitionError, UnsupportedStore
from mlforge.metrics import Rolling
from mlforge.store import LocalStore
from tests.support.projects import Project, rows


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path / "project")
    made.drop("a", rows((1, 1, 2.0), (2, 2, 3.0)))
    return made


@pytest.mark.parametrize("store", ["link/store", "link"])
def test_a_store_inside_a_source_is_refused_also_through_a_link(
    project: Project, store: str
) -> None:
    (project.root / "link").symlink_to(project.events)
    with pytest.raises(UnsupportedStore, match="lies inside the source"):
        Definitions(LocalStore(project.root / store), [project.define()], root=project.root)


@pytest.mark.parametrize("source", [".", "**/*.parquet", "*/*/*.parquet", ["events", "."]])
def test_a_source_that_takes_in_the_log_of_a_service_beside_other_files_is_refused(
    project: Project, source: Any
) -> None:
    spend = project.define(source=source)
    store = LocalStore(project.root.parent / "store")
    options: dict[str, Any] = {"root": project.root}
    Definitions(store, [spend], services=[Service("asked", [spend])], **options)
    with pytest.raises(DefinitionError, match=r"takes in the log of the service 'asked'"):
        Definitions(store, [spend], services=[Service("asked", [spend], log=0.5)], **options)
    for meant in ("served/asked", "served", "served/*/", "events"):
        read = project.define(source=meant)
        Definitions(store, [read], services=[Service("asked", [read], log=0.5)], **options)


def test_a_source_named_by_a_link_does_not_hide_the_store(project: Project) -> None:
    (project.root / "link").symlink_to(project.events)
    with pytest.raises(UnsupportedStore, match="lies inside the source"):
        Definitions(
            LocalStore(project.events / "store"),
            [project.define(source="link")],
            root=project.root,
        )


def test_the_hash_is_the_same_wherever_the_project_lies(tmp_path: Path) -> None:
    feature = Project(tmp_path / "project").define()
    made = Definitions(LocalStore("store"), [feature])
    hosts = [made.located_at(tmp_path / host) for host in ("a", "b")]
    assert {host.hash for host in hosts} == {made.hash}
    assert Definitions(LocalStore("other"), [feature]).hash != made.hash


def test_what_may_be_lost_and_how_large_a_file_may_be_are_settings(project: Project) -> None:
    strict = project.definitions(hold_above=0.1)
    strict.build()
    project.drop("a", rows((1, 1, 2.0)))
    assert strict.plan()["spend"].version == "1.0.1"
    held = strict.refresh("spend", attended=False)
    assert (held.version, held.changed) == ("1.0.0", False)
    project.drop("b", rows((3, 1, 2.0)))
    small = project.definitions(max_file_memory=1)
    assert [bad.path for bad in small.plan()["spend"].quarantined] == ["b.parquet"]
    assert len({made.hash for made in (strict, small, project.definitions())}) == 3


def test_the_settings_are_by_default_those_of_a_refresh(project: Project) -> None:
    settings, options = project.definitions().settings, Options()
    assert (settings.hold_above, settings.max_file_memory) == (
        options.hold_above,
        options.max_file_memory,
    )


@pytest.mark.parametrize(
    "setting",
    [
        {"hold_above": -0.1},
        {"hold_above": 1.5},
        {"hold_above": float("nan")},
        {"max_file_memory": 0},
        {"memory_limit": 1000},
        {"resident_memory": -1},
        {"publish_every": "2h"},
    ],
)
def test_settings_out_of_bounds_are_refused(project: Project, setting: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=next(iter(setting))):
        project.definitions(**setting)


def test_the_parts_of_a_full_build_are_the_same_whatever_the_memory_limit(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in range(6):
        project.drop(f"day-{day:02d}", rows(*((user, day, 0.1 * user) for user in range(5))))
    metrics = [Rolling(window, {"amount": ["sum", "std"]}) for window in ("1d", "all")]
    spend = project.define(metrics=metrics)
    monkeypatch.setattr("mlforge.engines.base._EVENT_BYTES", 100 << 20)
    contents = []
    for number, limit in enumerate((64 << 20, 2 << 30, 64 << 30), 1):
        definitions = project.definitions(spend, memory_limit=limit)
        built = definitions.build(full=True, version=f"{number}.0.0")["spend"].manifest
        assert built is not None
        contents.append((built.content_hash, len(built.parts)))
    assert contents == [contents[0]] * 3
    assert contents[0][1] > 1


def test_names_that_differ_in_case_only_are_refused(project: Project) -> None:
    features = [project.define(), project.define(name="Spend")]
    with pytest.raises(DefinitionError, match="'spend' and 'Spend' differ in case only"):
        project.definitions(*features)


def test_one_name_need_not_be_in_a_list(project: Project) -> None:
    features = [project.define(tags=["abc"]), project.define(name="other")]
    definitions = project.definitions(*features)
    assert list(definitions.build(features="other")) == ["other"]
    assert list(definitions.build(tags="abc")) == ["spend"]
    assert project.store.read("spend", columns="user_id").columns == ["user_id"]


@pytest.mark.parametrize("offset", ["0us", "0d", "00h", timedelta(0), None])
def test_no_offset_may_be_written_in_any_unit(offset: Any) -> None:
    assert Rolling("7d", {"amount": "sum"}, offset=offset).offset is None


def test_an_offset_into_the_future_is_refused_as_such() -> None:
    with pytest.raises(DefinitionError, match="negative, but no window ends after its point"):
        Rolling("7d", {"amount": "sum"}, offset=timedelta(days=-1))


def _named(name: str, column: str, **changes: Any) -> Any:
    return feature(
        **{
            "keys": ["user_id"],
            "source": "events",
            "timestamp": "at",
            "metrics": [Rolling("7d", {column: "sum"})],
            "name": name,
            **changes,
        }
    )(lambda df: df)


@pytest.mark.parametrize(
    "features",
    [
        (_named("a", "b__x"), _named("a__b", "x")),
        (_named("a__b", "x"), _named("a", "b__x")),
        (_named("a", "b__c__x"), _named("a__b__c", "x"), _named("z", "y")),
        (_named("a", "x"), _named("other", "y", keys=["user_id", "a__x__sum__7d"])),
        (_named("a", "x"), _named("other", "y", timestamp="a__x__sum__7d")),
        (_named("a", "x", keys=["a__x__sum__7d"]),),
    ],
)
def test_columns_that_would_have_one_name_in_an_answer_are_refused(features: Any) -> None:
    with pytest.raises(DefinitionError, match="in an answer"):
        Definitions(LocalStore("/store"), features)


def test_names_that_only_look_alike_go_together() -> None:
    features = [_named("a", "b__x"), _named("a__b", "y"), _named("b", "a__x")]
    assert len(Definitions(LocalStore("/store"), features).features) == 3


LOST = """
import mlforge
from mlforge import Definitions, feature as defined
from mlforge.store import LocalStore

@defined(name="first", keys=["user_id"], source="events/")
def _(df):
    return df

@mlforge.feature(
    name="second", keys=["user_id"], source="events/"
)
def _(df):
    return df

defs = Definitions(LocalStore("store"), [_])
"""


def test_a_feature_of_a_file_or_module_that_a_later_one_replaces_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    file = tmp_path / "namesakes_lost.py"
    file.write_text(LOST)
    told = r"namesakes_lost\.py:6: the feature that _\(\) makes is lost, as _\(\) is defined again in line 10"
    with pytest.raises(DefinitionError, match=told):
        load(str(file), here=tmp_path)
    module = importlib.import_module("namesakes_lost")
    with pytest.raises(DefinitionError, match=told):
        Definitions(LocalStore(tmp_path / "store"), [module], root=tmp_path)
    kept = LOST.replace("@mlforge", "earlier = _\n\n@mlforge")
    file.write_text(kept.replace("[_]", "[earlier, _]"))
    assert list(load(str(file), here=tmp_path).features) == ["first", "second"]
    other = LOST.replace("@mlforge.feature(", "@(lambda **_: lambda function: function)(")
    file.write_text(other.replace("[_]", "[]"))
    assert not load(str(file), here=tmp_path).features


def test_a_service_or_a_feature_that_means_another_feature_of_a_name_is_refused(
    project: Project,
) -> None:
    spend, same = project.define(), project.define()
    others = {
        "metrics": project.define(metrics=[Rolling("7d", {"amount": "sum"})]),
        "code": project.define(lambda df: df.head(1).select("user_id", "at", "amount")),
    }

    def defined(meant: Any, by: str) -> Definitions:
        if by == "service":
            return project.definitions(spend, services=[Service("checkout", [meant])])
        peaks = feature(
            keys=["user_id"],
            source=meant,
            timestamp="at",
            metrics=[Rolling("7d", {"amount__sum__7d": "max"})],
            name="peaks",
        )(lambda df: df)
        return project.definitions(spend, peaks)

    for by in ("service", "feature"):
        defined(spend, by)
        defined(same, by)
        for other in others.values():
            with pytest.raises(DefinitionError, match="takes another feature 'spend' than the one"):
                defined(other, by)
    defined(same["amount__sum__7d"].as_("buyer"), "service")
    defined("spend", "service")
    defined((spend, "1.0.0"), "service")
    with pytest.raises(DefinitionError, match="the service checkout takes another feature"):
        defined(others["metrics"].as_("buyer"), "service")


@pytest.mark.parametrize("own", [{"request": {"buyer": pl.Int64}}, {"derive": {"buyer": "1"}}])
def test_a_column_of_a_service_with_the_name_of_a_key_is_refused(
    project: Project, own: dict[str, Any]
) -> None:
    buyer = project.define().as_("buyer", user_id="buyer")
    with pytest.raises(DefinitionError, match="'buyer' of the service has the name of a key"):
        Service("checkout", [buyer], **own)
    with pytest.raises(DefinitionError, match="'user_id' of the service has the name of a key"):
        project.definitions(
            project.define(),
            services=[Service("checkout", ["spend"], request={"user_id": pl.Int64})],
        )
