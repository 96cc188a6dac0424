"""Least, greatest and k-th least values of slices: the same bits as each slice alone gives, at the cost of a few passes."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from mlforge.compilers.base import ENTITY, ROW, TIME, Aggregate, ComputeContext, value_name
from mlforge.compilers.polars_compiler import expression
from mlforge.core.aggregations import aggregation
from mlforge.core.calendar_units import PERIODS
from mlforge.core.metrics import MetricColumn
from mlforge.core.time_model import Window
from mlforge.core.values import Duration
from mlforge.engines import engine_named
from mlforge.engines.kernels import ranks, segments_kernel, weighted
from mlforge.engines.kernels.pairwise import Segments
from mlforge.engines.kernels.point_windows import PointWindows
from mlforge.engines.kernels.ranks import between_ranks, extremes

DRAWS: list[Callable[[random.Random], float]] = [
    lambda draw: draw.uniform(-9, 9),
    lambda draw: float(draw.randrange(3)),
    lambda draw: draw.choice([0.0, -0.0, 5e-324, -1e-310]),
    lambda draw: draw.uniform(-1, 1) * 10.0 ** draw.randrange(-300, 300),
]


def slices(draw: random.Random, height: int) -> Segments:
    starts = [draw.randrange(height + 1) for _ in range(draw.randrange(20))]
    lengths = [draw.randrange(height - start + 1) for start in starts]
    return Segments(pl.Series(starts, dtype=pl.Int64), pl.Series(lengths, dtype=pl.Int64))


@pytest.mark.parametrize("number", range(len(DRAWS)))
def test_a_percentile_of_a_slice_is_that_of_its_values_alone(number: int) -> None:
    draw = random.Random(number)
    for _ in range(8):
        values = pl.Series([DRAWS[number](draw) for _ in range(draw.randrange(1, 40))])
        segments = slices(draw, len(values))
        alone = [
            values.slice(*ends) for ends in zip(segments.starts, segments.lengths, strict=True)
        ]
        for share in (0.5, 0.01, 0.9, 0.999):
            expected = [some.quantile(share, "linear") for some in alone]
            assert between_ranks(values, segments, share).to_list() == expected
        assert between_ranks(values, segments, 0.5).to_list() == [some.median() for some in alone]


def test_a_percentile_between_values_whose_difference_is_no_float_is_taken_by_halves() -> None:
    """Not the others: a half of the least float is 0."""
    values, least = pl.Series([-1.7e308, 1.7e308, 5e-324, 5e-324]), 5e-324
    segments = Segments(pl.Series([0, 2]), pl.Series([2, 2]))
    assert between_ranks(values, segments, 0.5, wide=True).to_list() == [0.0, least]
    by_polars = expression(Aggregate(aggregation("median"), 0, Window(PERIODS["1mo"])), wide={0})
    for start, median in ((0, 0.0), (2, least)):
        window = values[start : start + 2].alias(value_name(0)).to_frame()
        assert window.select(by_polars).item() == median


@pytest.mark.parametrize(
    "values",
    [
        [1.5, None, -0.5, float("nan")],
        [2**63 - 1, -(2**63), None],
        ["b", "", None, "é"],
        [True, False, None],
        [None],
    ],
)
def test_an_extreme_of_a_slice_is_that_of_its_values_alone(values: list[object]) -> None:
    draw = random.Random(len(values))
    for _ in range(12):
        column = pl.Series([draw.choice(values) for _ in range(30)], dtype=pl.Series(values).dtype)
        segments = slices(draw, len(column))
        alone = [
            column.slice(*ends) for ends in zip(segments.starts, segments.lengths, strict=True)
        ]
        for greatest in (True, False):
            answers = extremes(column, segments, greatest=greatest)
            expected = [some.max() if greatest else some.min() for some in alone]
            assert answers.dtype == column.dtype
            assert answers.equals(pl.Series(expected, dtype=column.dtype), null_equal=True)


def test_a_dense_period_to_date_gathers_no_row_of_its_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw, events = random.Random(1), 600
    values = [draw.choice([None, draw.uniform(-5, 5)]) for _ in range(events)]
    line = pl.DataFrame(
        {ENTITY: [1] * events, TIME: range(events), ROW: range(events), value_name(0): values},
        schema={ENTITY: pl.UInt32, TIME: pl.Int64, ROW: pl.UInt32, value_name(0): pl.Float64},
    )
    window = Window(PERIODS["1mo"])
    metrics = [MetricColumn("x", name, window) for name in ("min", "max", "median", "p90")]
    context = ComputeContext.of(metrics, {"x": "Float64"})
    monkeypatch.delattr(PointWindows, "aggregated")
    answers = engine_named("polars").aggregate(line, context).drop(ROW)
    for place in (0, 1, 17, events - 1):
        some = pl.Series(values[: place + 1], dtype=pl.Float64).drop_nulls()
        expected = (some.min(), some.max(), some.median(), some.quantile(0.9, "linear"))
        assert answers.row(place) == expected


@pytest.mark.parametrize(("days", "every", "spared"), [(7, 1, "aggregated"), (40, 15, "extremes")])
def test_short_windows_that_overlap_are_gathered_no_more_than_few_long_ones_are_ranked(
    monkeypatch: pytest.MonkeyPatch, days: int, every: int, spared: str
) -> None:
    draw, height = random.Random(2), 60
    values = [draw.uniform(-5, 5) for _ in range(height)]
    line = pl.DataFrame(
        {ENTITY: [0] * height, TIME: range(height), value_name(0): values},
        schema={ENTITY: pl.UInt32, TIME: pl.Int64, value_name(0): pl.Float64},
    )
    times = range(every, height, every)
    points = pl.DataFrame(
        {ENTITY: [0] * len(times), TIME: times, ROW: range(len(times))},
        schema={ENTITY: pl.UInt32, TIME: pl.Int64, ROW: pl.UInt32},
    )
    window = Window(Duration(days, f"{days}us"))
    metrics = [MetricColumn("x", name, window) for name in ("min", "max")]
    context = ComputeContext.of(metrics, {"x": "Float64"})
    monkeypatch.delattr(PointWindows if spared == "aggregated" else ranks, spared)
    answers = segments_kernel.aggregate_at_points(line, context, points).drop(ROW)
    seen = [values[max(0, int(window.first(t))) : int(window.last(t)) + 1] for t in times]
    assert answers.rows() == [(min(some), max(some)) for some in seen]


def test_a_percentile_of_weighted_values_whose_difference_is_no_float_is_taken_by_halves() -> None:
    values = SimpleNamespace(values=pl.Series([-1.7e308, 1.7e308]), weights=pl.Series([1, 1]))
    slices: Any = SimpleNamespace(values=values, segments=Segments(pl.Series([0]), pl.Series([2])))
    assert weighted._ranked(slices, [0.5])[0].to_list() == [0.0]
