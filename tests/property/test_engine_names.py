"""Values do not depend on what columns are called: engines never see users' names."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlforge import get_training_data
from mlforge.core.feature_spec import FeatureSpec
from mlforge.engines import POINT, engine_named
from mlforge.errors import DefinitionError
from mlforge.metrics import Rolling
from mlforge.testing.engine_cases import stored_events
from tests.support import kernels
from tests.support.judged import INSTANT
from tests.support.projects import START, Project

ALIKE = [
    ["amount", "Amount", "AMOUNT", "aMount"],
    ["ß", "SS", "ss", "ẞ"],
    ["İ", "i̇", "I", "\u0131"],
    ["K", "\u212a", "k", "\u017f"],
    ["\u00e9", "e\u0301", "É", "E"],
    ['a"b', "a'b", 'a""b', "a`b"],
    ["row", "time", "entity", "point"],
    ["_row", "_time", "_ROW", "value_0"],
    ["x;", "x--", "x/*", "x%s"],
    ["x", "x:1", "x_1", "X_1"],
    ["select", "SELECT", "from", "over"],
    [" ", "  ", "\t", "\u00a0"],
    ["a\nb", "a\x1bB", "a\x7f", "A"],
    ["len", "count", "literal", "index"],
    ["a.b", "a", "b", "A.b"],
    ["{}", "{0}", "{a}", "%"],
]
"""Names that some library takes for one another, or for something else."""

text = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8
).filter(lambda name: not name.startswith(("__", "^")) and name != "*")
names = st.one_of(
    st.sampled_from(ALIKE).flatmap(st.permutations),
    st.lists(text, min_size=4, max_size=4, unique=True),
    st.lists(st.sampled_from("aAbBßsSİiI"), min_size=4, max_size=4, unique=True),
)
POINTS = [(1, 0), (1, 7), (2, 7), (2, 100), (3, 7)]
EVENTS = pl.DataFrame(
    {"k": [1, 1, 2, 2, 1], "t": [0, 5, 5, 9, 3], "x": [1.0, 2.0, 4.0, 8.0, None], "y": range(5)}
).with_columns(pl.col("t").cast(INSTANT))


def values(
    engine: str, key: str, time: str, first: str, second: str, interval: str | None
) -> list[tuple[object, ...]]:
    """The values at POINTS of the same events, under these names."""
    aggregations = ["count", "sum", "mean", "min", "max", "std", "median"]
    spec = FeatureSpec.of(
        "f",
        keys=[key],
        timestamp=time,
        interval=interval,
        metrics=[
            Rolling("20us", {first: aggregations, second: aggregations}),
            Rolling("5us", {second: ["sum"], first: ["count"]}),
        ],
        online_clock="data",
    )
    frame = EVENTS.rename(dict(zip("ktxy", (key, time, first, second), strict=True)))
    with TemporaryDirectory() as folder:
        points = pl.DataFrame(POINTS, schema={key: pl.Int64, POINT: pl.Int64}, orient="row")
        return (
            engine_named(engine)
            .values(
                stored_events(spec, [frame], Path(folder)),
                points.with_columns(pl.col(POINT).cast(INSTANT)),
            )
            .rows()
        )


def examples(count: int) -> settings:
    return settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


ways = pytest.mark.parametrize(
    ("way", "interval"),
    [("as it comes", None), ("as it comes", "5us"), ("general", None), ("tiled", "5us")],
)


@ways
@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@examples(2)
@given(chosen=names)
def test_values_do_not_depend_on_names(
    engine: str, way: str, interval: str | None, chosen: list[str]
) -> None:
    renamed_alike(engine, way, interval, chosen)


@pytest.mark.slow
@ways
@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@examples(40)
@given(chosen=names)
def test_values_do_not_depend_on_any_of_many_names(
    engine: str, way: str, interval: str | None, chosen: list[str]
) -> None:
    renamed_alike(engine, way, interval, chosen)


def renamed_alike(engine: str, way: str, interval: str | None, chosen: list[str]) -> None:
    """The values under plain names are those under the chosen ones."""
    with kernels.forced(**kernels.WAYS[way]):
        plain = values(engine, "k", "t", "x", "y", interval)
        assert values(engine, *chosen, interval) == plain  # type: ignore[misc]


def as_it_is(df: pl.DataFrame) -> pl.DataFrame:
    return df


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize("names", [("amount", "Amount"), ("ß", "SS"), ("User_id", "AT")])
def test_columns_that_differ_by_case_keep_their_own_values_in_a_built_table(
    engine: str, names: tuple[str, str], tmp_path: Path
) -> None:
    first, second = names
    project = Project(tmp_path / "p", engine)
    frame = pl.DataFrame({"user_id": 1, "at": [START], first: [1.0], second: [100.0]})
    project.drop("all", frame)
    metrics = [Rolling("1h", {first: ["sum", "max"], second: ["sum", "max"]})]
    project.build(project.define(as_it_is, metrics=metrics))
    expected = {
        f"{column}__{aggregation}__1h": value
        for column, value in ((first, 1.0), (second, 100.0))
        for aggregation in ("sum", "max")
    }
    stored = project.store.read("spend").drop("user_id", "at")
    assert stored.row(0, named=True) == expected
    spine = pl.DataFrame({"user_id": [1], "at": [START]})
    answers = get_training_data(spine, ["spend"], project.store, engine=engine)
    assert {name: answers[f"spend__{name}"].item() for name in expected} == expected


def test_a_metric_that_would_take_the_name_of_a_key_or_the_timestamp_is_refused() -> None:
    for key, time in (("x__sum__1h", "at"), ("user", "x__sum__1h")):
        with pytest.raises(DefinitionError, match="gives the column 'x__sum__1h', which is a key"):
            FeatureSpec.of(
                "f",
                keys=[key],
                timestamp=time,
                interval=None,
                metrics=[Rolling("1h", {"x": "sum"})],
                online_clock="data",
            )
