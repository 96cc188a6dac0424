"""`no_drift`: the rows that a version adds are held against those of the served one, and only where a feature asks for it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

import mlforge.validators as v
from mlforge import Definitions, feature
from mlforge.build import drifting
from mlforge.build.drifting import FOR_DRIFT
from mlforge.build.result import BuildResult
from mlforge.core import clock
from mlforge.core.manifest import Part
from mlforge.core.validators import Rule
from mlforge.core.values import BEGINNING, TimeRange
from mlforge.errors import BuildError, DefinitionError
from mlforge.maintenance.operations import rollback
from mlforge.metrics import Rolling
from mlforge.profiles import table
from mlforge.store import Books, DriftNote, LocalStore, ObjectStore
from tests.support.objects import MemoryObjects
from tests.support.projects import Project, at, rows

SUM = "amount__sum__1d"
USERS = 60


def days(first: int, count: int, scale: float = 1.0, users: int = USERS) -> pl.DataFrame:
    """An event of each user a day; what they spend differs from user to user."""
    return rows(
        *((u, d, scale * (1 + u)) for d in range(first, first + count) for u in range(users))
    )


def ruled(project: Project, *rules: Rule, column: str = SUM, **changes: Any) -> Definitions:
    """The definitions, with rules of a column; without any, with none."""
    validators = {column: rules} if rules else {}
    metrics = [Rolling("1d", {"amount": "sum"})]
    return project.definitions(
        project.define(validators=validators, **{"metrics": metrics, **changes})
    )


def refreshed(definitions: Definitions, *, attended: bool = False) -> BuildResult:
    return definitions.refresh("spend", attended=attended)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "p")


def test_a_store_in_a_bucket_holds_for_every_machine(project: Project, tmp_path: Path) -> None:
    bucket = MemoryObjects()

    def machine(name: str) -> tuple[Definitions, ObjectStore]:
        objects = MemoryObjects(bucket.stored)
        store = ObjectStore("s3://memory/store", tmp_path / name, objects=objects)
        return ruled(project.on(store), v.no_drift()), store

    here, store = machine("here")
    project.drop("a", days(0, 6))
    refreshed(here)
    project.drop("b", days(6, 2, scale=10))
    assert refreshed(here).reason == "held"
    there, other = machine("there")
    assert str(other.books("spend").hold).startswith(FOR_DRIFT)
    assert refreshed(there, attended=True).version == "1.0.1"
    assert store.books("spend").hold is None
    assert other.books("spend").drift[SUM].is_drift


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_rows_that_have_drifted_hold_the_feature_until_a_person_goes_on(
    tmp_path: Path, engine: str
) -> None:
    project = Project(tmp_path / "p", engine)
    definitions, store = ruled(project, v.no_drift(psi=0.2)), project.store
    project.drop("a", days(0, 6))
    assert refreshed(definitions).version == "1.0.0"
    project.drop("b", days(6, 2))
    assert refreshed(definitions).version == "1.0.1"
    steady = store.books("spend").drift[SUM]
    assert (steady.limit, steady.version, steady.is_drift) == (0.2, "1.0.1", False)
    project.drop("c", days(8, 2, scale=10))
    held = refreshed(definitions)
    books = store.books("spend")
    assert (held.reason, held.version, held.changed) == ("held", "1.0.1", False)
    assert held.held == books.hold
    assert str(books.hold).startswith(f"{FOR_DRIFT} from the rows of 1.0.1, until 2026-01-08")
    assert f"{SUM} has an index of " in str(books.hold)
    assert "no_drift(0.2) allows less than 0.2; 'mlforge approve spend' or a build goes on" in str(
        books.hold
    )
    assert not books.by_person
    assert store.list_versions("spend") == ["1.0.0", "1.0.1"]
    assert refreshed(definitions).held == books.hold
    [planned] = definitions.plan().values()
    assert planned.version == "1.0.2"
    assert any("a worker would hold the feature for it" in text for text in planned.warnings)
    assert store.books("spend") == books
    approved = refreshed(definitions, attended=True)
    assert (approved.version, approved.rows) == ("1.0.2", 10 * USERS)
    assert store.books("spend").hold is None
    assert store.books("spend").drift[SUM].is_drift
    assert refreshed(definitions).reason == "unchanged"


def test_a_hold_for_drift_ends_by_itself_once_the_rows_are_mended(project: Project) -> None:
    definitions = ruled(project, v.no_drift())
    project.drop("a", days(0, 6))
    refreshed(definitions)
    project.drop("b", days(6, 2, scale=100))
    assert refreshed(definitions).reason == "held"
    project.drop("b", days(6, 2))
    assert refreshed(definitions).version == "1.0.1"
    assert project.store.books("spend").hold is None


@pytest.mark.parametrize("interval", [None, "1d"])
def test_rows_ahead_of_the_clock_keep_none_from_being_judged(
    project: Project, interval: str | None
) -> None:
    definitions = ruled(project, v.no_drift(), interval=interval)
    for name, first, count, today in (("a", 0, 6, 6), ("b", 6, 3, 9)):
        project.drop(name, pl.concat([days(first, count), days(9_000, 3, scale=100, users=50)]))
        with clock.fixed(at(today)):
            refreshed(definitions)
    steady = project.store.books("spend").drift[SUM]
    assert (steady.version, steady.is_drift) == ("1.0.1", False)
    project.drop("c", days(9, 3, scale=10))
    with clock.fixed(at(12)):
        assert str(refreshed(definitions).held).startswith(f"{FOR_DRIFT} from the rows of 1.0.1")


def test_rows_up_to_the_last_one_served_are_none_of_those_behind_it() -> None:
    part = Part("data.parquet", drifting.FEWEST, TimeRange(0, 99), "")
    served: Any = SimpleNamespace(parts=(part,), frontier=(99,), reached=lambda now: now - 10)
    candidate: Any = SimpleNamespace(parts=(part,), spec=SimpleNamespace(interval=None))
    compared = TimeRange(BEGINNING, 40), TimeRange(41, 50)
    assert drifting._compared(served, candidate, 50) == compared


def test_drift_begins_at_the_index_of_the_rule() -> None:
    for psi, is_broken in ((0.2, True), (0.21, False)):
        judgement = drifting.Judgement({SUM: (v.no_drift(psi=psi),)}, {SUM: 0.2})
        assert (judgement.hold("spend") is not None) is is_broken


@pytest.mark.parametrize(("users", "reason"), [(99, "data_refresh"), (100, "held")])
def test_a_hundred_later_rows_are_enough_to_be_judged(
    project: Project, users: int, reason: str
) -> None:
    definitions = ruled(project, v.no_drift())
    project.drop("a", days(0, 6))
    refreshed(definitions)
    project.drop("b", days(6, 1, scale=100, users=users))
    assert refreshed(definitions).reason == reason


def test_rows_whose_windows_are_still_filling_are_no_drift(project: Project) -> None:
    definitions = ruled(
        project, v.no_drift(), metrics=[Rolling("5d", {"amount": "sum"})], column="amount__sum__5d"
    )
    project.drop("a", days(0, 8))
    refreshed(definitions)
    project.drop("b", days(8, 3))
    assert refreshed(definitions).version == "1.0.1"
    assert not project.store.books("spend").drift["amount__sum__5d"].is_drift


def test_a_rule_that_warns_publishes_and_notes_the_index_in_the_books(project: Project) -> None:
    both = (v.no_drift(psi=1000), v.no_drift(psi=0.2, on_fail="warn"))
    definitions, store = ruled(project, *both), project.store
    project.drop("a", days(0, 6))
    refreshed(definitions)
    assert "drift" not in store.books("spend").to_json()
    project.drop("b", days(6, 2, scale=10))
    result = refreshed(definitions)
    assert (result.version, result.held) == ("1.0.1", None)
    assert [text for text in result.warnings if text.startswith(FOR_DRIFT)] == list(result.warnings)
    noted = store.books("spend")
    assert noted.drift[SUM].is_drift
    assert noted.drift[SUM].version == "1.0.1"
    assert Books.from_json(json.loads(json.dumps(noted.to_json()))) == noted
    project.drop("c", days(8, 1, users=9))  # too few to tell: the last judgement stays
    assert refreshed(definitions).version == "1.0.2"
    assert store.books("spend").drift == noted.drift
    rollback(store, "spend", "1.0.0")
    served = store.latest("spend")
    assert served is not None
    assert served.version is not None
    assert store.books("spend").drift_at(served.version) == {}
    without = ruled(project)
    assert refreshed(without, attended=True).changed
    assert "drift" not in store.books("spend").to_json()


def test_few_rows_and_late_rows_are_not_judged(project: Project) -> None:
    definitions = ruled(project, v.no_drift())
    project.drop("a", days(0, 6))
    refreshed(definitions)
    project.drop("late", days(2, 2, scale=50, users=USERS).with_columns(pl.col("user_id") + 1000))
    project.drop("few", days(7, 1, scale=50, users=49))
    assert refreshed(definitions).version == "1.0.1"
    assert project.store.books("spend").drift == {}


def test_values_that_have_gone_are_drift_as_well(project: Project) -> None:
    definitions = ruled(project, v.no_drift(), column="amount", metrics=[])
    project.drop("a", days(0, 6))
    refreshed(definitions)
    project.drop("b", days(6, 2).with_columns(amount=pl.lit(None, pl.Float64)))
    assert refreshed(definitions).reason == "held"


def test_a_column_that_is_new_and_one_of_another_kind_are_not_judged(project: Project) -> None:
    project.drop("a", days(0, 6))
    refreshed(ruled(project, metrics=[Rolling("2d", {"amount": "sum"})]))
    project.drop("b", days(6, 2, scale=10))
    assert refreshed(ruled(project, v.no_drift())).version == "2.0.0"
    assert project.store.books("spend").drift == {}


def test_a_feature_without_the_rule_pays_nothing_and_a_rule_alone_makes_no_version(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(name: str, answer: Any) -> Any:
        def call(*_: Any) -> Any:
            calls.append(name)
            return answer

        return call

    for module in (drifting, table):
        monkeypatch.setattr(module, "profile_column", counted("profile_column", None))
    monkeypatch.setattr(drifting, "warm_from", counted("warm_from", {}))
    monkeypatch.setattr(LocalStore, "profiles", counted("profiles", {}))
    without = ruled(project)
    for name, frame in (("a", days(0, 6)), ("b", days(6, 2, scale=10))):
        project.drop(name, frame)
        assert refreshed(without).changed
    assert calls == []
    only = ruled(project, v.no_drift())
    plain, watched = without.features["spend"], only.features["spend"]
    assert watched.code_hash == plain.code_hash
    assert watched.validators == plain.validators == {}
    before = project.store.partials("spend")
    assert refreshed(only).reason == "unchanged"
    assert project.store.partials("spend") == before
    assert calls == []


def test_a_served_version_that_cannot_be_read_does_not_keep_its_successor_back(
    project: Project,
) -> None:
    definitions = ruled(project, v.no_drift())
    project.drop("a", days(0, 6))
    location = refreshed(definitions).location
    Path(str(location)).write_bytes(b"PAR1 this is no table PAR1")
    project.drop("b", days(6, 2, scale=10))
    assert refreshed(definitions).version == "1.0.1"
    assert project.store.books("spend").drift == {}


def test_rows_of_a_feature_above_are_judged_too(project: Project) -> None:
    spend = project.define(metrics=[Rolling("1d", {"amount": "sum"})])

    @feature(keys=["user_id"], source=spend, timestamp="at", validators={SUM: v.no_drift()})
    def peaks(df: pl.DataFrame) -> pl.DataFrame:
        return df

    definitions = project.definitions(spend, peaks)
    project.drop("a", days(0, 6))
    definitions.build()
    project.drop("b", days(6, 2, scale=10))
    planned = definitions.plan()
    assert planned["spend"].warnings == ()
    assert any("would hold" in text for text in planned["peaks"].warnings)
    assert refreshed(definitions).version == "1.0.1"
    assert definitions.refresh("peaks", attended=False).reason == "held"
    assert definitions.refresh("peaks").version == "1.0.1"


def test_a_rule_that_cannot_be_kept_is_refused_with_what_would_work(project: Project) -> None:
    for psi in (0, -1, float("nan"), float("inf"), True, "0.2", None):
        with pytest.raises(DefinitionError, match="write no_drift"):
            v.no_drift(psi=psi)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="use one of error, warn"):
        v.no_drift(on_fail="drop")
    with pytest.raises(DefinitionError, match="give it timestamp="):
        project.define(timestamp=None, metrics=[], validators={"amount": v.no_drift()})
    with pytest.raises(DefinitionError, match="a key or timestamp"):
        project.define(metrics=[], validators={"user_id": v.no_drift()})
    with pytest.raises(DefinitionError, match=r"days\(t - amount__last_time__1d\)"):
        project.define(
            metrics=[Rolling("1d", {"amount": "last_time"})],
            validators={"amount__last_time__1d": v.no_drift()},
        )
    with pytest.raises(DefinitionError, match="amount__sum__7d"):
        project.define(validators={"amount": v.no_drift()})
    project.drop("a", days(0, 1))
    with pytest.raises(BuildError, match=r"no_drift\(0.2\) of 'amuont': .* 'amount'"):
        ruled(project, v.no_drift(), column="amuont", metrics=[]).build()
    assert DriftNote(0.2, 0.2, "1.0.0").is_drift
