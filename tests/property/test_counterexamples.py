"""Histories that once gave a wrong answer, each as small as it gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import Definitions, feature, get_online_features, get_training_data, training_set
from mlforge.build.result import Options
from mlforge.build.rows import Layout
from mlforge.core import clock
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.store import LocalStore
from tests.support import kernels

NOON = datetime(2024, 5, 6, 12, tzinfo=UTC)
ENGINES = ["polars", "duckdb"]
SCHEMA: dict[str, Any] = {
    "user": pl.Int64(),
    "at": pl.Datetime("us", "UTC"),
    "x": pl.Float64(),
    "n": pl.Int64(),
}


def as_they_are(df: pl.DataFrame) -> pl.DataFrame:
    return df


@dataclass
class Project:
    """A folder of files, an offline store and an online store."""

    root: Path
    url: str
    engine: str

    def __post_init__(self) -> None:
        (self.root / "in").mkdir()
        self.store = LocalStore(self.root / "store")
        self.online = RedisStore.from_url(self.url)

    def drop(self, name: str, *rows: tuple[Any, ...], **dtypes: Any) -> None:
        frame = pl.DataFrame(rows, schema=SCHEMA | dtypes, orient="row")
        frame.write_parquet(self.root / "in" / name)

    def define(self, function: Callable[..., Any] = as_they_are, **given: Any) -> Definitions:
        settings: dict[str, Any] = {"name": "f", "keys": ["user"], "timestamp": "at", **given}
        return Definitions(
            store=self.store,
            features=[feature(source="in/", **settings)(function)],
            online_store=self.online,
            engine=self.engine,
            root=self.root,
        )

    def train(self, *points: tuple[int, datetime]) -> pl.DataFrame:
        spine = pl.DataFrame(points, schema={"user": pl.Int64, "at": SCHEMA["at"]}, orient="row")
        found: pl.DataFrame = get_training_data(spine, features=["f"], store=self.store)
        return found

    def serve(self, *users: int) -> list[dict[str, Any]]:
        return get_online_features(
            features=["f"], entities=[{"user": user} for user in users], store=self.online
        )


@pytest.fixture(params=ENGINES)
def project(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> Iterator[Project]:
    made = Project(tmp_path, redis_url, request.param)
    yield made
    made.online.close()


def test_a_timestamped_feature_without_events_is_pushed_as_empty(project: Project) -> None:
    project.drop("a.parquet")
    definitions = project.define()
    definitions.build(online=True)
    pushed = definitions.push("f")
    assert (pushed.as_of, pushed.written, pushed.deleted) == (None, 0, 0)
    assert project.serve(1) == [{"user": 1, "f__x": None, "f__n": None}]


def test_the_wall_clock_goes_on_without_events(project: Project) -> None:
    project.drop("a.parquet")
    definitions = project.define(metrics=[Rolling("1h", {"x": "count"})], online_clock="wall")
    with clock.fixed(NOON):
        definitions.build()
        pushed = definitions.push("f")
    assert pushed.as_of == int(NOON.timestamp()) * 1_000_000
    assert project.serve(1) == [{"user": 1, "f__x__count__1h": 0}]


def test_training_without_metrics_warns_of_nothing(project: Project) -> None:
    project.drop("a.parquet", (1, NOON, 1.5, 1))
    project.define().build()
    found = project.train((1, NOON), (1, NOON - timedelta(seconds=1)), (2, NOON))
    assert found["f__x"].to_list() == [1.5, None, None]


def test_a_column_without_a_value_in_any_file_is_stored_as_nulls(project: Project) -> None:
    project.drop("a.parquet", (1, NOON, 1.5, None), n=pl.Null())
    project.define(timestamp=None, function=lambda df: df.drop("at")).build()
    stored = project.store.read("f")
    assert stored.rows(named=True) == [{"user": 1, "x": 1.5, "n": None}]


def test_a_column_may_be_null_throughout_one_file_of_a_source_read_as_one(project: Project) -> None:
    project.drop("a.parquet", (1, NOON, 1.5, None), n=pl.Null())
    project.drop("b.parquet", (1, NOON, 1.5, 7))
    project.define(metrics=[Rolling("1h", {"n": ["count", "sum"]})], incremental=False).build()
    assert project.store.read("f").rows() == [(1, NOON, 1, 7)]


@pytest.mark.parametrize("column", ["x", "n"])
def test_a_column_that_becomes_null_throughout_all_files_is_a_change(
    project: Project, column: str
) -> None:
    definitions = project.define(metrics=[Rolling("1h", {"x": "count"})])
    project.drop("a.parquet", (1, NOON, 1.5, 7))
    definitions.build(online=True)
    spine = pl.DataFrame({"user": [1], "at": [NOON]}, schema_overrides={"at": SCHEMA["at"]})
    made = training_set(spine, ["f"], project.store, project.root / "set")
    left = {"x": 1.5, "n": 7} | {column: None}
    project.drop("a.parquet", (1, NOON, left["x"], left["n"]), **{column: pl.Null()})
    assert definitions.build(online=True)["f"].bump == "patch"
    assert not definitions.build(full=True)["f"].changed
    count = 0 if column == "x" else 1
    assert project.store.read("f")["x__count__1h"].to_list() == [count]
    assert project.serve(1) == [{"user": 1, "f__x__count__1h": count}]
    by_file = {"in/a.parquet": 1} if column == "x" else {}
    assert made.blast_radius(project.store).by_file == by_file
    project.drop("a.parquet", (1, NOON, 1.5, 7))
    assert definitions.build()["f"].bump == "patch", "the column has values again"
    assert made.blast_radius(project.store).rows.is_empty()


def test_parts_that_share_an_instant_stay_in_order(project: Project) -> None:
    first, second, third = (NOON + timedelta(hours=n) for n in range(3))
    definitions = project.define(metrics=[Rolling("1ms", {"x": "count"})])
    small = Options(cost_share=99, layout=Layout(2))
    project.drop(
        "a.parquet",
        *[(u, t, 1.0, 1) for u, t in [(1, first), (1, second), (2, second), (1, third)]],
    )
    definitions.refresh("f", options=small)
    project.drop("b.parquet", (2, first, 1.0, 1))
    assert definitions.refresh("f", options=small).mode == "incremental"
    assert project.store.read("f").select("at", "user").rows() == [
        (first, 1),
        (first, 2),
        (second, 1),
        (second, 2),
        (third, 1),
    ]


def test_ranges_of_time_whose_values_are_all_zero_are_trained_with_others(project: Project) -> None:
    later = NOON + timedelta(days=9)
    project.drop("a.parquet", (1, NOON - timedelta(days=1), 0.0, 1), (1, NOON, 0.0, 1))
    project.drop("b.parquet", (1, later, 1.5, 1), (2, later, 2.5, 1))
    project.define(metrics=[Rolling("1h", {"x": "sum"})]).build()
    with kernels.forced(events_at_once=2):
        found = project.train((1, NOON), (1, later), (2, later))
    assert found["f__x__sum__1h"].to_list() == [0.0, 1.5, 2.5]
