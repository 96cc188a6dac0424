"""Drift between two profiles: what counts, and how much."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from mlforge.profiles.drift import ColumnDrift, drift_of
from mlforge.profiles.measure import profile_column
from mlforge.training_sets.document import SetDocument


def drift(a: list[Any], b: list[Any]) -> ColumnDrift:
    return drift_of("x", profile_column(pl.Series(a)), profile_column(pl.Series(b)))


def test_equal_distributions_are_steady_whatever_the_number_of_rows() -> None:
    values = [float(n) for n in range(1, 1001)]
    same = drift(values, values * 2)
    assert same.verdict() == "steady"
    assert same.psi == pytest.approx(0, abs=1e-4)
    assert same.ks == 0


def test_a_shift_of_numbers_shows_in_psi_and_ks() -> None:
    values = [100.0 + n / 50 for n in range(1000)]
    shifted = drift(values, [value * 1.1 for value in values])
    assert shifted.verdict() == "drifted"
    assert shifted.ks == pytest.approx(0.5, abs=0.08)
    assert drift(values, [-value for value in values]).ks == 1
    assert shifted.verdict(limit=math.inf) == "moved"


def test_an_index_is_that_of_the_shares_of_bins() -> None:
    a, b = [True] * 500 + [False] * 500, [True] * 800 + [False] * 200
    figures = drift(a, b)
    by_hand = 0.3 * math.log(0.8 / 0.5) - 0.3 * math.log(0.2 / 0.5)
    assert figures.psi == pytest.approx(by_hand, rel=0.01)
    assert figures.ks == pytest.approx(0.3)


def test_texts_are_compared_by_value_or_where_they_are_many_by_hash() -> None:
    countries = ["de"] * 500 + ["fr"] * 300 + ["it"] * 200
    assert drift(countries, countries[::-1]).psi == pytest.approx(0, abs=1e-9)
    new = drift(countries, [*countries[:500], *(["pt"] * 500)])
    assert (new.verdict(), new.ks) == ("drifted", None)
    many = [f"user {n}" for n in range(3000)]
    assert drift(many, many[::2]).verdict() == "steady"
    assert drift(many, ["user 1"] * 300).verdict() == "drifted"


def test_nulls_nan_and_infinities_are_told_apart_from_values() -> None:
    figures = drift([1.0] * 150 + [None] * 50, [1.0] * 100 + [math.nan, math.inf] * 50)
    assert figures.null_rates == (0.25, 0.5)
    assert figures.psi == pytest.approx(0, abs=0.01)
    by_hand = 0.25 * math.log(0.5 / 0.25) - 0.25 * math.log(0.5 / 0.75)
    assert figures.null_psi == pytest.approx(by_hand, rel=0.02)
    assert figures.verdict() == "drifted"


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([True] * 200, [False] * 200),
        ([7] * 200, [0] * 200),
        ([0] * 200, [7] * 200),
        ([False] * 10 + [True] * 190, [False] * 200),
        ([10] * 180 + [20] * 20, [0] * 180 + [20] * 20),
        ([1] * 100 + [3] * 100, [1] * 100 + [2] * 100),
        ([10.0] * 200, [10.0] * 100 + [9.0] * 100),
        (["de"] * 200, ["fr"] * 200),
    ],
)
def test_rows_that_leave_a_value_show_whichever_way_they_go(a: list[Any], b: list[Any]) -> None:
    for figures in (drift(a, b), drift(b, a)):
        assert figures.verdict() == "drifted"


def test_a_feed_that_dries_up_has_drifted_though_its_values_are_alike() -> None:
    values = [float(n % 50) for n in range(1000)]
    half = drift(values, values[:500] + [None] * 500)
    assert (half.verdict(), half.psi) == ("drifted", pytest.approx(0, abs=0.01))
    assert drift(values, values[:50] + [None] * 950).verdict() == "drifted"
    assert drift(values, [None] * 1000).verdict() == "drifted"
    assert drift([None] * 1000, values).verdict() == "drifted"
    assert drift([None] * 500, [None] * 700).verdict() == "steady"
    assert drift(values, [*values[:50], None]).verdict() == "unknown"


def test_too_few_values_or_such_as_do_not_compare_are_unknown() -> None:
    assert drift([1.0] * 99, [2.0] * 500).verdict() == "unknown"
    assert drift(*[[1.0] * 99 + [None] * 200] * 2).verdict() == "unknown"
    assert drift([1], ["a"]).reason == "Int64 and String do not compare"
    assert drift([None], [1]).reason == "no values on one side"
    assert drift([None], [None]).reason == "no values on both sides"
    assert drift([], []).reason == "no rows on both sides whose windows are full"
    assert drift([1], []).reason == "no rows on one side whose windows are full"
    assert drift([1] * 100, [1.0] * 100).verdict() == "steady"


def test_a_default_of_a_service_is_that_of_the_column_with_its_label_if_there_is_one() -> None:
    used: Any = SimpleNamespace(columns=(("a", "b"), ("b", "c"), ("d", "e")), defaults={"d": 2})
    document: Any = SimpleNamespace(features=(used,), service={"defaults": {"b": 1, "d": 3}})
    assert SetDocument.defaults_of(document, used) == {"a": 1, "d": 3}
