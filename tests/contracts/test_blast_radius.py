"""Blast radii of training sets: which files are named, what cannot be compared, and what is refused."""

import json
import logging
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import structlog

from mlforge import Service, TrainingSet, training_set
from mlforge.cli.main import main
from mlforge.errors import IntegrityError, RetrievalError, VersionNotFound
from mlforge.metrics import Rolling
from mlforge.training_sets.blast import BlastRadius
from tests.support.projects import Project, at, rows

SPINE = pl.DataFrame({"user_id": [1, 2, 1, 9], "at": [at(3), at(3), at(30), at(3)]})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """`spend`, built, of two files."""
    project = Project(tmp_path_factory.mktemp("built") / "project")
    project.drop("a", rows((1, 1, 2.0), (2, 1, 5.0)))
    project.drop("b", rows((1, 2, 3.0), (9, 1, 1.0)))
    project.build()
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """The same in a folder of the test's own."""
    return built.copied(tmp_path / "project")


def made_of(project: Project, features: Any = ("spend",)) -> TrainingSet:
    return training_set(SPINE, features, project.store, project.root / "set")


def files_by_row(radius: BlastRadius) -> dict[int, list[str]]:
    return {row: files for row, _, files in radius.rows.iter_rows()}


def test_a_row_names_the_files_that_reach_it_and_no_others(project: Project) -> None:
    made = made_of(project)
    assert made.blast_radius(project.store).rows.is_empty()
    project.drop("b", rows((1, 2, 3.5), (9, 1, 1.0)))  # amended
    project.drop("late", rows((2, 2.5, 1.0), (1, 29.9, 1.0), (9, -4, 1.0), (7, 1, 1.0)))
    project.build()
    radius = made.blast_radius(project.store)
    late, amended = "events/late.parquet", "events/b.parquet"
    assert files_by_row(radius) == {0: [amended], 1: [late], 2: [late], 3: [late]}
    assert radius.by_file == {amended: 1, late: 3}
    assert radius.versions == {"spend": ("1.0.0", "1.0.1")}
    assert (radius.looked_at, radius.redefined, radius.unlike) == (4, (), {})
    (project.events / "late.parquet").unlink()
    project.drop("b", rows((1, 2, 3.0), (9, 1, 1.0)))
    project.build()
    assert made.blast_radius(project.store).rows.is_empty(), "the old content is there again"


@pytest.mark.parametrize("source", ["events", "events/*.parquet", ["events", "more"]])
def test_files_are_named_from_where_sources_are(project: Project, source: Any) -> None:
    (project.root / "more").mkdir()
    rows((3, 1, 1.0)).write_parquet(project.root / "more/c.parquet")
    spend = project.define(source=source, name="other")
    project.build(spend)
    made = made_of(project, ["other"])
    project.drop("late", rows((2, 2, 1.0)))
    project.build(spend)
    assert made.blast_radius(project.store).by_file == {"events/late.parquet": 1}


def test_tables_whole_sources_and_other_features_name_what_changed_in_them(
    project: Project,
) -> None:
    (project.root / "dim").mkdir()
    table = project.root / "dim/weights.parquet"
    pl.DataFrame({"user_id": [1, 2, 9], "weight": [1.0, 1.0, 1.0]}).write_parquet(table)

    def weighted(df: pl.DataFrame, weights: pl.DataFrame) -> pl.DataFrame:
        joined = df.join(weights, on="user_id")
        return joined.select("user_id", "at", amount=pl.col("amount") * pl.col("weight"))

    def largest(df: pl.DataFrame) -> pl.DataFrame:
        return df.group_by("user_id", "at").agg(pl.col("amount").max())

    features = (
        project.define(),
        project.define(weighted, name="weighted", tables={"weights": "dim/weights.parquet"}),
        project.define(largest, name="largest"),
        project.define(
            lambda df: df.select("user_id", "at", "amount__sum__2d"),
            name="above",
            source="feature:spend",
            metrics=[Rolling("2d", {"amount__sum__2d": "max"})],
        ),
    )
    project.definitions(*features).build()
    made = made_of(project, [feature.name for feature in features])
    project.drop("late", rows((2, 2, 1.0)))
    pl.DataFrame({"user_id": [1, 2, 9], "weight": [1.0, 1.0, 2.0]}).write_parquet(table)
    project.definitions(*features).build()
    radius = made.blast_radius(project.store)
    late = "events/late.parquet"
    assert files_by_row(radius)[3] == ["weights: weights.parquet"]
    assert late in files_by_row(radius)[1]
    columns = {row: columns for row, columns, _ in radius.rows.iter_rows()}
    assert {name.split("__")[0] for name in columns[1]} == {f.name for f in features}
    assert {name.split("__")[0] for name in columns[3]} == {"weighted"}


def test_a_definition_that_changed_is_told_and_its_rows_are_looked_at(project: Project) -> None:
    made = made_of(project)
    right = Rolling(["2d", "7d"], {"amount": ["sum", "count"]}, closed="right")
    project.build(project.define(metrics=[right]))
    radius = made.blast_radius(project.store)
    assert (radius.redefined, radius.by_file, radius.looked_at) == (("spend",), {}, 4)
    assert files_by_row(radius) == {0: [], 1: [], 3: []}, "events two days before"


def test_columns_without_a_counterpart_are_named_with_those_that_follow_from_them(
    project: Project,
) -> None:
    spend = project.define()
    checkout = Service(
        "checkout",
        [spend["amount__sum__7d", "amount__count__2d"]],
        derive={
            "mean": "spend__amount__sum__7d / spend__amount__count__2d",
            "twice": "mean * 2",
            "few": "spend__amount__count__2d < 2 and user_id < 5",
        },
        defaults={"amount__sum__7d": 0},
    )
    made = made_of(project, checkout)
    fewer = Rolling("2d", {"amount": ["count"]})
    project.drop("late", rows((2, 2, 1.0)))
    project.build(project.define(metrics=[fewer]))
    radius = made.blast_radius(project.store)
    assert set(radius.unlike) == {"spend__amount__sum__7d", "mean", "twice"}
    assert "no column 'amount__sum__7d'" in radius.unlike["spend__amount__sum__7d"]
    assert radius.rows.rows() == [(1, ["spend__amount__count__2d", "few"], ["events/late.parquet"])]
    whole = pl.col("amount").cast(pl.Int64)
    project.build(project.define(lambda df: df.select("user_id", "at", whole)))
    radius = made.blast_radius(project.store)
    assert radius.unlike["spend__amount__sum__7d"] == "it is Int64, was Float64"


def test_a_pinned_version_is_what_it_was_and_other_keys_are_not_compared(project: Project) -> None:
    made = made_of(project, [("spend", "1.0.0")])
    project.drop("late", rows((2, 2, 1.0)))
    project.build()
    assert made.blast_radius(project.store).versions == {}
    other = training_set(SPINE, ["spend"], project.store, project.root / "other")
    by_day = project.define(
        lambda df: df.with_columns(pl.col("at").dt.date()),
        keys=["user_id", "at"],
        timestamp=None,
        metrics=[],
    )
    project.build(by_day)
    radius = other.blast_radius(project.store)
    assert radius.rows.is_empty()
    assert len(radius.unlike) == 4
    assert "keys are ['user_id', 'at']" in radius.unlike["spend__amount__sum__2d"]


def test_a_set_that_cannot_be_told_of_is_refused_in_words(project: Project, tmp_path: Path) -> None:
    made = made_of(project)
    elsewhere = Project(tmp_path / "elsewhere")
    elsewhere.drop("a", rows((1, 1, 2.0)))
    elsewhere.build()
    with pytest.raises(RetrievalError, match="made from another store"):
        made.blast_radius(elsewhere.store)
    for ask in (made.blast_radius, made.release):
        with pytest.raises(RetrievalError, match="store must be of Store"):
            ask("store")  # type: ignore[operator]
    document = made.path / "training_set.json"
    text = document.read_text()
    document.write_text(text.replace('"service": null', '"service": {"name": "checkout"}'))
    with pytest.raises(IntegrityError, match="an earlier release; make the set again"):
        TrainingSet.open(made.path).blast_radius(project.store)
    document.write_text(text)
    project.drop("late", rows((2, 2, 1.0)))
    project.build()
    part = made.files[0].read_bytes()
    made.files[0].write_bytes(b"no parquet")
    with pytest.raises(IntegrityError, match=r"verify\(\) says which"):
        made.blast_radius(project.store)
    made.files[0].write_bytes(part)
    made.release(project.store)
    assert main(["prune", "--keep", "1", "--store", str(project.store.path)]) == 0
    with pytest.raises(VersionNotFound, match="the set was released; make the set again"):
        made.blast_radius(project.store)


def test_the_command_shows_what_differs_and_writes_the_rows(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    monkeypatch.chdir(project.root)
    made_of(project)
    command = ["blast", "set", "--store", "store"]
    assert main(command) == 0
    assert capsys.readouterr().out == "set: no row would differ today\n"
    project.drop("late", rows((2, 2, 1.0)))
    project.build()
    assert main([*command, "--rows", "differing.parquet"]) == 0
    shown = capsys.readouterr().out
    assert "set: 1 of 4 rows would differ today" in shown
    assert "spend 1.0.0 -> 1.0.1" in shown
    assert "events/late.parquet     1" in shown
    assert pl.read_parquet("differing.parquet")["row"].to_list() == [1]
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["files"] == {"events/late.parquet": 1}
    assert (document["rows"], document["differing"], document["looked_at"]) == (4, 1, 1)
    assert document["versions"] == {"spend": {"then": "1.0.0", "now": "1.0.1"}}
    assert main([*command, "--rows", "nowhere/differing.parquet"]) == 1
    assert "--rows nowhere/differing.parquet cannot be written" in capsys.readouterr().err
