"""`ToDate` and `"all"` from definition to answer: versions, manifests, training, `explain`, audits."""

from __future__ import annotations

import time
from pathlib import Path

import polars as pl
import pytest

from mlforge import explain, get_training_data
from mlforge.build.result import Options
from mlforge.engines import evaluation
from mlforge.engines.events import events_of
from mlforge.metrics import Rolling, ToDate
from mlforge.store.manifest_json import from_json, to_json
from tests.support.projects import Project, at, rows

BOTH = [ToDate(["1mo", "1y"], {"amount": "sum"}), Rolling("all", {"amount": ["sum", "count"]})]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Events of January, of which the first is at its very start, and of February."""
    project = Project(tmp_path)
    project.drop("a", rows((1, 0, 1.0), (1, 30.5, 10.0), (1, 31, 100.0), (2, 40, 1000.0)))
    return project


def test_values_are_those_since_the_month_and_year_began(project: Project) -> None:
    project.build(project.define(metrics=BOTH))
    days = (0, 30.9, 31, 33, 59, 366, 9_000)
    spine = pl.DataFrame({"user_id": 1, "at": [at(day) for day in days]})
    answers = get_training_data(spine, ["spend"], project.store)
    assert answers["spend__amount__sum__mtd"].to_list() == [1, 11, 100, 100, None, None, None]
    assert answers["spend__amount__sum__ytd"].to_list() == [1, 11, 111, 111, 111, None, None]
    assert answers["spend__amount__sum__all"].to_list() == [1, 11, *[111] * 5]


def test_of_an_aligned_feature_the_period_is_that_of_the_boundary(project: Project) -> None:
    project.build(project.define(metrics=BOTH, interval="12h"))
    spine = pl.DataFrame({"user_id": 1, "at": [at(day) for day in (0.4, 0.5, 31, 31.4, 31.5)]})
    answers = get_training_data(spine, ["spend"], project.store)
    assert answers["spend__amount__sum__mtd"].to_list() == [None, 1, None, None, 100]
    assert answers["spend__amount__sum__all"].to_list() == [None, 1, 11, 11, 111]


def test_as_a_period_begins_entities_of_the_one_before_are_affected(project: Project) -> None:
    project.build(project.define(metrics=[ToDate("1mo", {"amount": "sum"})]))
    events = events_of(project.store, project.store.resolve("spend"))

    def affected(before: float, after: float) -> list[int]:
        ends = (int(at(day).timestamp()) * 1_000_000 for day in (before, after))
        return sorted(evaluation.entities_affected_by_time(events, *ends)["user_id"])

    assert affected(41, 58) == []
    assert affected(41, 59) == [1, 2]
    assert affected(60, 300) == []
    active = evaluation.active_entities(events, int(at(31).timestamp()) * 1_000_000)
    assert active["user_id"].to_list() == [1], "its event is at the very start of the period"


def test_a_drop_costs_no_seconds_of_calendar(project: Project) -> None:
    metrics = [ToDate(["1mo", "1y"], {"amount": "sum"})]
    definitions = project.definitions(project.define(metrics=metrics))
    definitions.build()
    project.drop("b", rows((1, 41, 1.0), (3, 41, 2.0)))
    began = time.process_time()
    result = definitions.refresh("spend", options=Options(cost_share=99))
    assert time.process_time() - began < 2, "which ends of years are touched took six seconds"
    assert (result.mode, str(result.version)) == ("incremental", "1.0.1")
    assert project.store.read("spend")["amount__sum__ytd"].to_list()[-2:] == [112, 2]
    definitions.close()


def test_an_added_window_is_minor_and_a_removed_one_major(project: Project) -> None:
    plain = [Rolling("7d", {"amount": "sum"})]
    versions = [
        str(project.build(project.define(metrics=metrics)).version)
        for metrics in (plain, [*plain, *BOTH], plain)
    ]
    assert versions == ["1.0.0", "1.1.0", "2.0.0"]


def test_a_manifest_tells_windows_by_their_names_and_older_releases_refuse_it(
    project: Project,
) -> None:
    project.build(project.define(metrics=BOTH))
    manifest = project.store.resolve("spend")
    document = to_json(manifest)
    assert [metric["window"] for metric in document["metrics"]] == ["mtd", "ytd", "all", "all"]
    assert document["format"] == 2
    assert from_json(document, "here").spec == manifest.spec


def test_explain_shows_where_each_window_begins(project: Project) -> None:
    project.build(project.define(metrics=BOTH))
    told = explain("spend", {"user_id": 1}, project.store, at(33)).to_json()
    starts = {value["window"]: (value["start"][:10], value["rows"]) for value in told["values"]}
    assert starts == {
        "mtd": ("2026-02-01", 1),
        "ytd": ("2026-01-01", 3),
        "all": ("0001-01-01", 3),
    }
    windows = [row["windows"] for row in told["rows"]]
    assert windows == [["ytd", "all"], ["ytd", "all"], ["mtd", "ytd", "all"]]


@pytest.mark.parametrize("interval", [None, "6h"])
def test_the_audit_computes_the_same(interval: str | None, project: Project) -> None:
    definitions = project.definitions(project.define(metrics=BOTH, interval=interval))
    definitions.build()
    assert definitions.audit("spend").is_proof
