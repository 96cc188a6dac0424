"""A project as an orchestrator sees it: found by an absolute place, built with nobody looking on, fresh or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlforge.core import clock
from mlforge.errors import DefinitionError, MissingExtra
from mlforge.integrations.project import Attempt, Fresh, Project, build, note, outcome
from mlforge.online import RedisStore
from mlforge.registry.live import live_of
from mlforge.store import LocalStore
from mlforge.store.opening import store_at
from tests.support import projects
from tests.support.projects import at, rows


@pytest.fixture
def project(tmp_path: Path) -> projects.Project:
    made = projects.Project(tmp_path / "p")
    made.drop("a", rows(*((user, 1, 1.0) for user in range(10))))
    return made


@pytest.mark.parametrize(
    "place", ["definitions.py", "shop/definitions.py", "./shop", "", "../x.py"]
)
def test_a_relative_place_is_refused(place: str) -> None:
    with pytest.raises(DefinitionError, match="absolute path"):
        Project(place)


def test_a_relative_store_lies_beside_the_definitions_whatever_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/definitions.py").write_text(
        "from mlforge import Definitions\nfrom mlforge.store import LocalStore\n"
        "defs = Definitions(LocalStore('feature_store'), [])\n"
    )
    monkeypatch.chdir(tmp_path)
    loaded = Project(str(tmp_path / "shop")).load()
    assert loaded.store.address == str(tmp_path / "shop/feature_store")
    assert store_at(str(loaded.store.address)).address == loaded.store.address


def test_a_build_that_nobody_looks_at_holds_what_a_person_would_be_asked(
    project: projects.Project,
) -> None:
    definitions = project.definitions()
    [first] = build(definitions).values()
    assert outcome(first) | {"warnings": []} == {
        "feature": "spend",
        "version": "1.0.0",
        "rows": 10,
        "changed": True,
        "reason": "first_build",
        "held": None,
        "quarantined": {},
        "rows_dropped": {},
        "warnings": [],
    }
    (project.events / "a.parquet").unlink()
    project.drop("b", rows((1, 2, 1.0)))
    attempt = Attempt.of(definitions, ["spend"])
    [told] = attempt.holds
    assert told.startswith("spend is held: ")
    assert told.endswith("'mlforge approve spend' publishes it")
    assert (attempt.results["spend"].version, attempt.results["spend"].changed) == ("1.0.0", False)
    assert [*attempt.served] == ["spend"], "its rows online follow the clock all the same"


def test_features_are_built_although_one_fails_behind_those_that_they_read(
    project: projects.Project,
) -> None:
    spend = project.define()
    peak = project.define(lambda df: df, name="peak", source=spend, metrics=())
    bad = project.define(lambda df: df.select("nothing"), name="bad")
    attempt = Attempt.of(project.definitions(peak, bad, spend))
    assert [*attempt.served] == ["spend", "peak"]
    [told] = attempt.failures
    assert "nothing" in told


def test_versions_of_a_schedule_are_in_the_event_log_of_the_workers(
    project: projects.Project, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    definitions = project.definitions(online_store=RedisStore.from_url(redis_url))
    note(definitions, Attempt.of(definitions).pushed(definitions).results)
    note(definitions, Attempt.of(definitions).pushed(definitions).results)  # nothing has changed
    live = live_of(definitions, redis_url)
    assert live is not None
    [entry] = live.recent(9)
    live.close()
    definitions.close()
    assert (entry.kind, entry.feature) == ("scheduled", "spend")
    assert (entry.details["version"], entry.details["keys_written"]) == ("1.0.0", 10)


def test_a_feature_is_fresh_by_its_newest_event(project: projects.Project) -> None:
    store = project.store
    assert Fresh(within="1h").met(store, "spend") is None
    build(project.definitions())
    with clock.fixed(at(2)):
        assert Fresh(within="1h").met(store, "spend") is None
        met = Fresh(within="1d").met(store, "spend")
        assert Fresh(after="2026-01-02T00:00").met(store, "spend") == met
        assert Fresh(after="2026-01-02T01:00:00+01:00").met(store, "spend") == met
        assert Fresh(after="2026-01-02T00:00:01").met(store, "spend") is None
    assert met == {
        "feature": "spend",
        "version": "1.0.0",
        "rows": 10,
        "newest": "2026-01-02T00:00:00.000000Z",
    }


def test_how_fresh_is_said_in_one_way_that_can_be_read(tmp_path: Path) -> None:
    for within, after in ((None, None), ("1h", "2026-01-01")):
        with pytest.raises(DefinitionError, match="how fresh"):
            Fresh(within, after)
    with pytest.raises(DefinitionError, match="within"):
        Fresh(within="soon").since(0)
    with pytest.raises(DefinitionError, match="after='soon' is no instant"):
        Fresh(after="soon").since(0)


@pytest.mark.parametrize("name", ["airflow", "dagster"])
def test_what_is_not_installed_is_named_with_its_extra(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib
    import sys

    for module in (name, f"{name}.sdk"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"mlforge.integrations.{name}", raising=False)
    with pytest.raises(MissingExtra, match=f"needs the extra '{name}'"):
        importlib.import_module(f"mlforge.integrations.{name}")
    monkeypatch.undo()
    sys.modules.pop(f"mlforge.integrations.{name}", None)


def test_a_store_says_by_which_text_another_process_opens_it(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    assert store_at(store.address).address == store.address
    with store.draft() as draft:
        assert draft.address is None
