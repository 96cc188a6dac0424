"""Values that totals hold give, beside newer events, what all events give, on both engines."""

from __future__ import annotations

import math
import random
from typing import Any

import polars as pl
import pytest

from mlforge import feature
from mlforge.compilers.base import ROW, TIME, ComputeContext, result_name, value_alias, value_name
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.metrics import MetricColumn
from mlforge.core.time_model import ALL, Window
from mlforge.engines import engine_named, timeline
from mlforge.engines.kernels.weighted import Weights, aggregate_weighted
from mlforge.engines.tiles import held
from mlforge.engines.tiles.held import REACH, WEIGHT
from mlforge.metrics import Rolling

NAMES = ["count_distinct", "mode", "top_1", "top_3", "first_2", "last_3"]
RANKS = ["median", "p1", "p90", "p99_9"]
UNTIL = 1_000
VALUES: dict[str, Any] = {
    "Float64": lambda n: random.Random(n).choice([-0.0, 0.0, 1e308, -1e308, n / 7, n % 3 / 3]),
    "Int64": lambda n: n % 5,
    "String": lambda n: "abcde"[n % 5] * (n % 3),
    "Boolean": lambda n: n % 3 == 0,
    "Decimal(10, 2)": lambda n: f"{n % 7}.{n % 4}1",
}


def spec_of(names: list[str]) -> FeatureSpec:
    metrics = [Rolling("all", {"v": names})]
    defined = feature(keys=["k"], source="s/", timestamp="at", name="f", metrics=metrics)
    spec: FeatureSpec = defined(lambda df: df).spec
    return spec


def events(seed: int, dtype: str) -> pl.DataFrame:
    """Events of four entities, as in a timeline: one with many, one with few, two only before or after."""
    rng, make = random.Random(seed), VALUES[dtype]
    rows = []
    for key, older, newer in ((1, 60, 3), (2, 5, 9), (3, 8, 0), (4, 0, 6)):
        times = [rng.randrange(UNTIL) for _ in range(older)]
        times += [UNTIL + rng.randrange(20) for _ in range(newer)]
        rows += [(key, t, make(rng.randrange(40)) if rng.random() < 0.9 else None) for t in times]
    frame = pl.DataFrame(
        rows,
        {"k": pl.Int64, TIME: pl.Int64, value_alias("v"): pl.String},
        orient="row",
        strict=False,
    )
    types: dict[str, Any] = {
        "Decimal(10, 2)": pl.Decimal(10, 2),
        "Boolean": pl.Boolean,
        "String": pl.String,
    }
    if dtype == "Boolean":
        return frame.with_columns(pl.col(value_alias("v")) == "true")
    plain = {**types, "Float64": pl.Float64, "Int64": pl.Int64}[dtype]
    return frame.with_columns(pl.col(value_alias("v")).cast(plain))


def line_of(rows: pl.DataFrame, points: pl.DataFrame) -> pl.DataFrame:
    line = pl.concat([rows, points], how="diagonal")
    return timeline.with_entities(timeline.sorted_(line, ["k"]), ["k"]).collect()


QUICK = [("Int64", "duckdb"), ("Float64", "polars")]


def near(some: list[Any], others: list[Any]) -> bool:
    """Whether percentiles are the same but for the rounding of the last step."""
    return all(
        one == other or math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
        for one, other in zip(some, others, strict=True)
    )


@pytest.mark.parametrize(
    ("dtype", "engine"),
    [
        pytest.param(dtype, engine, marks=[pytest.mark.slow] * ((dtype, engine) not in QUICK))
        for dtype in VALUES
        for engine in ("polars", "duckdb")
    ],
)
def test_held_values_and_newer_events_give_what_all_events_give(dtype: str, engine: str) -> None:
    names = NAMES + (RANKS if dtype != "String" else [])
    spec, kernel = spec_of(names), engine_named(engine)
    parts, window = held.held_parts(spec.columns), Window(ALL)
    by_kind = {part.kind: part for part in parts}
    plain = [MetricColumn("v", name, window) for name in names]
    over = [by_kind[held.kept(metric)].metric(metric) for metric in plain]
    context = ComputeContext.of(over, {metric.value: dtype for metric in over})
    for seed in range(5):
        rows = events(seed, dtype)
        older, newer = rows.filter(pl.col(TIME) < UNTIL), rows.filter(pl.col(TIME) >= UNTIL)
        shares = [older.filter(pl.col("k") < 3), older.filter(pl.col("k") >= 3)]
        totals = older.select("k").unique().with_columns(pl.lit(UNTIL - 1, pl.Int64).alias(TIME))
        counts = newer.group_by("k").agg(pl.len().cast(pl.Int64).alias(REACH))
        totals, paying = held.with_held(totals, shares, parts, counts, 10_000, spec)
        assert paying == list(parts)
        known = totals.drop(REACH).join(counts, on="k", how="left")
        known = known.with_columns(pl.col(REACH).fill_null(0))
        recent = held.as_held(newer, parts, spec)
        weighted = pl.concat([*held.held_rows(known, recent, parts, spec), recent], how="diagonal")
        points = (
            rows.filter(pl.col(TIME) >= UNTIL)
            .select("k", TIME)
            .vstack(pl.DataFrame({"k": [1, 2, 3, 4, 9], TIME: [UNTIL + 30] * 5}))
        )
        points = points.with_row_index(ROW)
        line = line_of(weighted, points)
        values = [
            pl.col(value_alias(column)).alias(value_name(index))
            for index, column in enumerate(dict.fromkeys(metric.value for metric in over))
        ]
        numbered = line.with_columns(values)
        answers = aggregate_weighted(numbered, context, Weights(line[WEIGHT], True))
        whole = line_of(rows, points).with_columns(pl.col(value_alias("v")).alias(value_name(0)))
        expected = kernel.aggregate(whole, ComputeContext.of(plain, {"v": dtype}))
        for index, name in enumerate(names):
            got = answers.sort(ROW)[result_name(index)].to_list()
            want = expected.sort(ROW)[result_name(index)].to_list()
            want = [0 if one is None and name == "count_distinct" else one for one in want]
            assert got == want or (name in RANKS and near(got, want)), (seed, name)


def test_values_beyond_the_bound_are_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "MOST_HELD", 10)
    spec = spec_of(["count_distinct", "p90"])
    parts, rows = held.held_parts(spec.columns), events(1, "Float64")
    totals = rows.select("k").unique().sort("k").with_columns(pl.lit(0, pl.Int64).alias(TIME))
    recent = pl.DataFrame({"k": [1], REACH: [5]})
    rows = rows.with_columns(pl.int_range(pl.len()).cast(pl.Float64).alias(value_alias("v")))
    known, _ = held.with_held(totals, [rows], parts, recent, 10_000, spec)
    assert known[REACH].to_list() == [-1, -1, 16, 16]
    read = (yielded for yielded in [rows, rows.clear()])
    known, paying = held.with_held(totals, read, parts, recent, rows.height, spec)
    assert paying == []
    assert known.equals(totals)
    assert next(read).is_empty(), "once nothing pays no further event is read"
