"""Sums over slices in fixed point: exact, or refused; folds are what is left then."""

from __future__ import annotations

import math
import random
import statistics
from contextlib import nullcontext
from decimal import Decimal
from fractions import Fraction

import polars as pl
import pytest

from mlforge.compilers.base import ENTITY, TIME
from mlforge.engines.base import _check_sum
from mlforge.engines.kernels import pairwise
from mlforge.engines.kernels.fixed_point import Fixed
from mlforge.engines.kernels.pairwise import Segments
from mlforge.engines.kernels.prefix_sums import DecimalOverflow, Sums
from mlforge.errors import DataError

LONGEST = 50


def slices(count: int, draw: random.Random) -> Segments:
    starts = [draw.randrange(count) for _ in range(300)]
    lengths = [draw.randrange(min(LONGEST, count - start) + 1) for start in starts]
    return Segments(pl.Series(starts), pl.Series(lengths))


def within(values: pl.Series, of: Segments) -> list[list[float]]:
    pairs = zip(of.starts, of.lengths, strict=True)
    return [values.slice(start, length).drop_nulls().to_list() for start, length in pairs]


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e12, 1e-240, 1e290])
def test_sums_of_floats_are_those_of_fractions_rounded_once(scale: float) -> None:
    draw = random.Random(3)
    values = pl.Series([draw.choice([None, 0.0, draw.uniform(-9, 9) * scale]) for _ in range(400)])
    fixed, of = Fixed.exactly(values, LONGEST), slices(len(values), draw)
    assert fixed is not None
    for got, chosen in zip(fixed.sums(of), within(values, of), strict=True):
        assert got == float(sum(map(Fraction, chosen)))


def test_a_total_that_wraps_around_leaves_slices_exact() -> None:
    values = pl.Series([2**126 - 1] * 20 + [3, 4, -(2**126)], dtype=pl.Int128)
    of = Segments(pl.Series([19, 20, 21]), pl.Series([1, 2, 2]))
    fixed = Fixed.exactly(values, 2)
    assert fixed is not None
    assert fixed.sums(of).to_list() == [2**126 - 1, 7, 4 - 2**126]


@pytest.mark.parametrize(
    "values",
    [[1e-20, 1e20], [5e-324, 1.0], [1.7e308, 1.0], [1e-300, 1e300]],
    ids=str,
)
def test_values_too_far_apart_are_refused(values: list[float]) -> None:
    assert Fixed.exactly(pl.Series(values), LONGEST) is None
    assert Fixed.for_squares(pl.Series(values), LONGEST) is None


@pytest.mark.parametrize("dtype", [pl.Float64, pl.Float32, pl.Int64, pl.Boolean])
def test_a_column_of_nulls_and_zeros_sums_to_nothing(dtype: type[pl.DataType]) -> None:
    of = Segments(pl.Series([0, 1, 3]), pl.Series([3, 0, 0]))
    for make in (Fixed.exactly, Fixed.for_squares):
        fixed = make(pl.Series([None, 0, None]).cast(dtype), LONGEST)
        assert fixed is not None
        assert [float(found) for found in fixed.sums(of)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("values", [[0.0, None], [0.75 * 2.0**53], [1.5]])
def test_sums_of_floats_are_floats_whatever_the_values(values: list[float | None]) -> None:
    fixed = Fixed.exactly(pl.Series(values), LONGEST)
    assert fixed is not None
    assert fixed.sums(Segments(pl.Series([0]), pl.Series([1]))).dtype == pl.Float64


@pytest.mark.parametrize("mean", [0.0, 1.0, 1e3, -1e6])
def test_deviations_are_those_of_the_statistics_module(mean: float) -> None:
    draw = random.Random(11)
    values = pl.Series([draw.choice([None, mean + draw.uniform(1, 2)]) for _ in range(400)])
    of = slices(len(values), draw)
    chosen = within(values, of)
    counts = pl.Series(map(len, chosen))
    largest = values.abs().max()
    fixed = Fixed.for_squares(values, LONGEST)
    assert fixed is not None
    for found in (fixed.deviations(of, counts), pairwise.moments(values, of).squares):
        for got, own in zip(found, chosen, strict=True):
            if len(own) > 1:
                expected = statistics.stdev(own)
                assert math.isclose(
                    math.sqrt(got / (len(own) - 1)), expected, abs_tol=1e-10 * largest
                )


def test_equal_values_do_not_deviate() -> None:
    values = pl.Series([0.1] * 30)
    fixed = Fixed.for_squares(values, LONGEST)
    assert fixed is not None
    found = fixed.deviations(Segments(pl.Series([0, 5]), pl.Series([30, 2])), pl.Series([30, 2]))
    assert found.to_list() == [0.0, 0.0]


def test_what_is_rounded_does_not_depend_on_the_order_of_rows_of_one_instant() -> None:
    chance = random.Random(1)
    values = [chance.random() * 10.0 ** chance.randint(-30, 30) for _ in range(60)]
    results = []
    for step in (1, -1):  # five rows an instant, each in one order and in the other
        instants = [values[start : start + 5][::step] for start in range(0, 60, 5)]
        line = pl.DataFrame(
            {TIME: [n // 5 for n in range(60)], "x": [v for each in instants for v in each]},
            schema={TIME: pl.Int64, "x": pl.Float64},
        ).with_columns(pl.lit(0, pl.UInt32).alias(ENTITY))
        starts = pl.Series(range(0, 45, 5))
        segments = Segments(starts, starts.clip(15, 15))  # three instants each
        sums = Sums(line, "x", "Float64", 15).over(segments)
        results.append((sums.floats().to_list(), sums.deviations(segments.lengths).to_list()))
    assert results[0] == results[1]


@pytest.mark.parametrize(("edge", "beyond"), [(-(2**63), -(2**63) - 1), (2**63 - 1, 2**63)])
def test_a_sum_of_integers_is_refused_from_the_first_that_its_dtype_lacks(
    edge: int, beyond: int
) -> None:
    _check_sum(pl.Series("total", [0, edge], dtype=pl.Int128), "spend")
    with pytest.raises(DataError, match="total does not fit into Int64"):
        _check_sum(pl.Series("total", [0, beyond], dtype=pl.Int128), "spend")


@pytest.mark.parametrize(("further", "fits"), [(-1, True), (0, False)])
def test_a_sum_of_decimals_is_refused_from_the_first_with_too_many_digits(
    further: int, fits: bool
) -> None:
    half = 5 * 10**37
    values = pl.Series("x", [Decimal(half), Decimal(half + further)], dtype=pl.Decimal(38, 0))
    sums = Sums(values.to_frame(), "x", "Decimal(38, 0)", 2)
    total = sums.over(Segments(pl.Series([0]), pl.Series([2])))
    with nullcontext() if fits else pytest.raises(DecimalOverflow):
        assert total.totals().to_list() == [Decimal(2 * half + further)]
