"""Training data of several features: those of the same events are evaluated in one pass, with the values of each alone."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mlforge import Feature, get_training_data
from mlforge.engines import Engine
from mlforge.errors import DataError
from mlforge.metrics import Rolling, ToDate
from tests.support.kernels import WAYS, forced
from tests.support.projects import Project, at, rows

ENGINES = ("polars", "duckdb")
RANKS = ["median", "std", "max", "last"]


def doubled(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "at", amount=pl.col("amount") * 2)


def together(project: Project) -> list[Feature]:
    """Features of the same events."""
    define = project.define
    return [
        define(name="sums", metrics=[Rolling(["1d", "3d"], {"amount": ["sum", "mean"]})]),
        define(name="ranks", metrics=[Rolling(["3d", "8d"], {"amount": RANKS})]),
        define(
            name="rates",
            metrics=[Rolling("3d", {"amount": ["sum", "count"]}, offset="1d")],
            derive={"rate": "amount__sum__3d__offset_1d / amount__count__3d__offset_1d"},
        ),
        define(name="to_date", metrics=[ToDate("1mo", {"amount": "sum"})]),
    ]


def gain(df: pl.DataFrame) -> pl.DataFrame:
    return df.with_columns(is_gain=pl.col("amount") > 0)


def conditional(project: Project) -> list[Feature]:
    """Features of the same events, of which some count under a condition."""
    metrics = {
        "all": [Rolling(["1d", "3d"], {"amount": "sum"})],
        "gains": [Rolling("3d", {"amount": ["sum", "last"]}, where="is_gain")],
        "gains_before": [Rolling("3d", {"amount": "max"}, where="is_gain", offset="1d")],
    }
    return [project.define(gain, name=name, metrics=some) for name, some in metrics.items()]


def apart(project: Project) -> list[Feature]:
    """Features of other events, of tiles of their own, or with another metric of the same name."""
    define = project.define
    return [
        define(name="before", metrics=[Rolling("3d", {"amount": "sum"}, closed="left")]),
        define(doubled, name="doubled", metrics=[Rolling("3d", {"amount": "sum"})]),
        define(name="ever", metrics=[Rolling("all", {"amount": "sum"})]),
        define(name="daily", interval="1d", metrics=[Rolling("3d", {"amount": "sum"})]),
        define(name="plain", metrics=[]),
    ]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("several"))
    draw = random.Random(3)
    for name in "abc":
        events = [
            (draw.randrange(6), draw.randrange(40) / 4, draw.uniform(-5, 50)) for _ in range(40)
        ]
        project.drop(name, rows(*events, *events[:5]))
    project.definitions(*together(project), *conditional(project), *apart(project)).build()
    return project


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, ...]]]:
    """The columns of each evaluation."""
    evaluated: list[tuple[str, ...]] = []
    values = Engine.values

    def counted(self: Engine, events: Any, points: pl.DataFrame) -> pl.DataFrame:
        evaluated.append(tuple(column.name for column in events.spec.columns))
        return values(self, events, points)

    monkeypatch.setattr(Engine, "values", counted)
    return evaluated


def spine() -> pl.DataFrame:
    draw = random.Random(4)
    days = [None, *(draw.randrange(60) / 5 for _ in range(49))]
    users = [draw.choice([None, *range(8)]) for _ in days]
    return pl.DataFrame({"user_id": users, "at": [None if d is None else at(d) for d in days]})


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("events_at_once", [None, 7])
def test_features_have_the_values_of_each_alone(
    built: Project, engine: str, way: str, events_at_once: int | None
) -> None:
    names = [feature.name for feature in (*together(built), *apart(built))]
    asked = spine()
    with forced(**WAYS[way], events_at_once=events_at_once):
        answers = get_training_data(asked, names, built.store, engine=engine)
        alone = [get_training_data(asked, [name], built.store, engine=engine) for name in names]
    expected = pl.concat([asked, *(each.drop(asked.columns) for each in alone)], how="horizontal")
    assert_frame_equal(answers, expected, rel_tol=1e-12)


def test_features_of_the_same_events_are_evaluated_in_one_pass(
    built: Project, passes: list[tuple[str, ...]]
) -> None:
    names = [feature.name for feature in together(built)]
    get_training_data(spine(), names, built.store)
    [columns] = passes
    assert len(columns) == len(set(columns)) == 15
    passes.clear()
    get_training_data(spine(), [feature.name for feature in apart(built)], built.store)
    assert len(passes) == 4  # the plain one has no windows


def test_of_a_feature_only_the_columns_asked_for_are_evaluated(
    built: Project, passes: list[tuple[str, ...]]
) -> None:
    sums, ranks, rates, *_ = together(built)
    asked = [sums["amount__sum__1d"], ranks["amount__max__8d"], rates["rate"]]
    answers = get_training_data(spine(), asked, built.store)
    assert answers.columns[2:] == ["sums__amount__sum__1d", "ranks__amount__max__8d", "rates__rate"]
    [columns] = passes
    of_rate = ("amount__sum__3d__offset_1d", "amount__count__3d__offset_1d")
    assert columns == ("amount__sum__1d", "amount__max__8d", *of_rate)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("features", [together, conditional])
def test_columns_of_features_have_the_values_of_each_alone(
    built: Project, passes: list[tuple[str, ...]], features: Any, engine: str
) -> None:
    given = [feature[built.store.read(feature.name).columns[-1]] for feature in features(built)]
    alone = {some: get_training_data(spine(), [some], built.store, engine=engine) for some in given}
    passes.clear()
    for pair in itertools.permutations(given, 2):
        answers = get_training_data(spine(), pair, built.store, engine=engine)
        for some in pair:
            expected = alone[some]
            assert_frame_equal(answers.select(expected.columns), expected, rel_tol=1e-12)
    assert len(passes) == len(given) * (len(given) - 1)


def test_features_at_other_points_are_evaluated_apart(
    built: Project, passes: list[tuple[str, ...]]
) -> None:
    sums, ranks, *_ = together(built)
    asked = spine().with_columns(pl.col("user_id").reverse().alias("other"))
    given = [sums, ranks.as_("of_other", user_id="other"), sums.as_("same", user_id="user_id")]
    answers = get_training_data(asked, given, built.store)
    assert len(passes) == 2
    alone = get_training_data(asked, [given[1]], built.store)
    assert_frame_equal(alone.drop(asked.columns), answers.select(alone.columns[3:]))


def test_a_version_of_other_events_is_evaluated_apart(
    built: Project, tmp_path: Path, passes: list[tuple[str, ...]]
) -> None:
    project = built.copied(tmp_path / "copy")
    sums, ranks, *_ = together(project)
    project.drop("d", rows((1, 3.5, 1000.0)))
    project.definitions(sums, ranks).build()
    given = ["sums", ("ranks", "1.0.0"), ("ranks", "1.0.1")]
    get_training_data(spine(), given, project.store)
    assert len(passes) == 2


@pytest.mark.parametrize("engine", ENGINES)
def test_an_overflow_names_the_feature_whose_sum_it_is(tmp_path: Path, engine: str) -> None:
    project = Project(tmp_path)
    project.drop("a", rows((1, 0, 1.0), (1, 0.1, 1.0)).with_columns(amount=pl.lit(2**62)))
    past = [Rolling("1d", {"amount": "sum"}, offset="10d")]
    features = [
        project.define(name="first", metrics=[Rolling("1h", {"amount": "sum"})]),
        project.define(name="second", metrics=past),
    ]
    project.definitions(*features).build()
    asked = pl.DataFrame({"user_id": [1], "at": [at(10.5)]})
    answers = get_training_data(asked, ["first"], project.store, engine=engine)
    assert answers["first__amount__sum__1h"].to_list() == [None]
    with pytest.raises(DataError, match=r"^second: amount__sum__1d__offset_10d does not fit"):
        get_training_data(asked, ["first", "second"], project.store, engine=engine)
