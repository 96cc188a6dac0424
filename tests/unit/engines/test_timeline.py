"""Timelines of some entities: by entity, then time, with points among the rows or apart."""

from __future__ import annotations

import random
from datetime import date
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mlforge.compilers.base import ENTITY, ROW, TIME, ComputeContext, value_name
from mlforge.core.metrics import MetricColumn
from mlforge.core.time_model import Window
from mlforge.core.values import FIRST_INSTANT, LAST_INSTANT, Duration
from mlforge.engines import engine_named, timeline

VALUE = value_name(0)
SPANS = {
    "days": (0, 10**12),
    "all years, with more entities than microseconds fit": (FIRST_INSTANT, LAST_INSTANT),
}


def rows_of(draw: random.Random, height: int, first: int, last: int) -> pl.DataFrame:
    times = [first, last, *(draw.randrange(first, last) for _ in range(height - 2))]
    keys = [(draw.randrange(12), draw.choice("abcde")) for _ in range(height)]
    return pl.DataFrame(
        {
            "id": [i for i, _ in keys],
            "kind": [k for _, k in keys],
            TIME: times,
            VALUE: range(height),
        }
    )


@pytest.mark.parametrize(("first", "last"), SPANS.values(), ids=SPANS)
def test_rows_come_by_entity_then_time_and_rows_of_one_instant_as_they_came(
    first: int, last: int
) -> None:
    draw = random.Random(1)
    rows = rows_of(draw, 400, first, last)
    rows = pl.concat([rows, rows.with_columns(pl.col(VALUE) + 1000)])
    entities = rows.select("id", "kind").unique(maintain_order=True)
    places = {key: number for number, key in enumerate(entities.iter_rows())}
    line = timeline.by_entity(timeline.with_numbers(rows.lazy(), entities).collect())
    expected = sorted(rows.iter_rows(), key=lambda row: (places[row[:2]], row[2]))
    assert list(line.select(ENTITY, TIME, VALUE).iter_rows()) == [
        (places[i, kind], time, value) for i, kind, time, value in expected
    ]


def test_rows_of_a_null_key_are_of_an_entity_of_their_own() -> None:
    rows = pl.LazyFrame({"id": [1, None, 1, 7], TIME: [3, 2, 1, 0], VALUE: [30, 20, 10, 0]})
    entities = pl.DataFrame({"id": [7, None, 1]})
    line = timeline.by_entity(timeline.with_numbers(rows, entities).collect())
    by_number = line.group_by(ENTITY).agg(TIME, VALUE)
    assert set(
        by_number.select(pl.col(TIME, VALUE).cast(pl.List(pl.String)).list.join(" ")).rows()
    ) == {
        ("1 3", "10 30"),
        ("2", "20"),
        ("0", "0"),
    }


KEYS: dict[str, tuple[list[Any], pl.DataType]] = {
    "dense": ([5, 3, None, 4], pl.Int64()),
    "of the whole range of a dtype": ([-128, 127, None, 0], pl.Int8()),
    "sparse": ([2**30 - 2, -(2**30), None, 7], pl.Int64()),
    "too far from each other": ([2**30 - 1, -(2**30), None, 7], pl.Int64()),
    "beyond signed integers": ([2**64 - 1, 2**64 - 2, None, 2**64 - 3], pl.UInt64()),
    "texts": (["b", "a", None, ""], pl.String()),
    "dates": ([date(2026, 1, 2), date(2026, 1, 1), None], pl.Date()),
    "truths": ([True, False], pl.Boolean()),
    "null alone": ([None], pl.Int64()),
}


@pytest.mark.parametrize(("keys", "dtype"), KEYS.values(), ids=KEYS)
def test_entities_of_every_dtype_have_a_number_each(keys: list[Any], dtype: pl.DataType) -> None:
    entities = pl.DataFrame({"id": keys}, schema={"id": dtype})
    rows = pl.concat([entities, entities.reverse()]).with_row_index(TIME)
    numbered = timeline.with_numbers(rows.lazy(), entities).collect()
    assert numbered[ENTITY].dtype == pl.UInt32
    assert numbered[TIME].to_list() == rows[TIME].to_list()
    assert timeline.by_entity(numbered)[ENTITY].is_sorted()
    pairs = set(zip(rows["id"], numbered[ENTITY], strict=True))
    assert len(pairs) == len(keys) == numbered[ENTITY].n_unique()


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize(("first", "last"), SPANS.values(), ids=SPANS)
def test_points_apart_from_the_line_see_what_points_in_it_see(
    engine: str, first: int, last: int
) -> None:
    draw = random.Random(2)
    rows = rows_of(draw, 300, first, last).with_columns(
        pl.when(pl.col(VALUE) % 7 > 0).then(pl.col(VALUE).cast(pl.Float64) / 8).alias(VALUE)
    )
    points = rows_of(draw, 60, first, last).select(
        "id", "kind", TIME, pl.int_range(60, dtype=pl.UInt32).alias(ROW)
    )
    entities = points.select("id", "kind").unique(maintain_order=True)
    events = timeline.with_numbers(rows.lazy(), entities).collect()
    numbered = timeline.by_entity(timeline.with_numbers(points.lazy(), entities).collect())
    width = Duration.of((last - first) // 3)
    windows = [
        Window(width),
        Window(width, None, "left"),
        Window(width, Duration.of(1_000_000), "none"),
        Window(Duration.of(10), None, "right"),
    ]
    context = ComputeContext.of(
        [
            MetricColumn("x", kind, window)
            for window in windows
            for kind in ("sum", "count", "mean", "min", "median", "std", "last", "mode")
        ],
        {"x": "Float64"},
    )
    apart = timeline.by_entity(events)
    within = timeline.by_entity(pl.concat([events, numbered], how="diagonal"))
    kernel = engine_named(engine)
    answers = kernel.aggregate(apart[[ENTITY, TIME, VALUE]], context, numbered)
    expected = kernel.aggregate(within[[ENTITY, TIME, ROW, VALUE]], context)
    assert answers[ROW].to_list() == expected[ROW].to_list() == numbered[ROW].to_list()
    counts = [f"__result_{i}" for i in range(1, 32, 8)]  # of an empty window 0 or null
    filled = [frame.with_columns(pl.col(counts).fill_null(0)) for frame in (answers, expected)]
    assert_frame_equal(*filled)
    assert answers["__result_1"].sum() > 60, "windows hold events"


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_points_of_a_line_without_events_see_nothing(engine: str) -> None:
    schema = {ENTITY: pl.UInt32, TIME: pl.Int64, ROW: pl.UInt32}
    numbered = pl.DataFrame({ENTITY: [0], TIME: [9], ROW: [0]}, schema=schema)
    empty = pl.DataFrame(schema={ENTITY: pl.UInt32, TIME: pl.Int64, VALUE: pl.Float64})
    metrics = [MetricColumn("x", kind, Window(Duration.of(10))) for kind in ("sum", "max", "last")]
    context = ComputeContext.of(metrics, {"x": "Float64"})
    assert engine_named(engine).aggregate(empty, context, numbered).rows() == [
        (0, None, None, None)
    ]
