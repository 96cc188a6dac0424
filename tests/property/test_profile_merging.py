"""Profiles of parts merge to the profile of the whole, and say what the values say."""

from __future__ import annotations

import json
import math
from collections import Counter
from datetime import UTC
from decimal import Decimal
from fractions import Fraction
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlforge.profiles import codec
from mlforge.profiles.buckets import lower_edge, upper_edge
from mlforge.profiles.measure import profile_column

FLOATS = st.floats() | st.sampled_from([0.0, -0.0, 5e-324, -5e-324, 1.7e308, -1.7e308, math.inf])
DTYPES: list[tuple[pl.DataType, st.SearchStrategy[Any]]] = [
    (pl.Float64(), FLOATS),
    (pl.Float32(), st.floats(width=32)),
    (pl.Int64(), st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)),
    (pl.UInt64(), st.integers(2**63, 2**64 - 1)),
    (pl.Int8(), st.integers(-128, 127)),
    (
        pl.Decimal(38, 2),
        st.integers(-(10**38) + 1, 10**38 - 1).map(lambda n: Decimal(n).scaleb(-2)),
    ),
    (pl.Boolean(), st.booleans()),
    (pl.String(), st.text(max_size=3) | st.just("x" * 300)),
    (pl.Date(), st.dates()),
    (pl.Datetime("us", "UTC"), st.datetimes().map(lambda at: at.replace(tzinfo=UTC))),
    (pl.List(pl.Float64()), st.lists(st.sampled_from([0.0, -0.0, 1.5, None]), max_size=2)),
    (pl.Null(), st.none()),
]


@pytest.mark.parametrize(("dtype", "values"), DTYPES, ids=lambda each: str(each)[:24])
def test_profiles_of_parts_merge_to_that_of_the_whole(
    dtype: pl.DataType, values: st.SearchStrategy[Any]
) -> None:
    parts = st.lists(st.lists(values | st.none(), max_size=6), max_size=4)

    @settings(derandomize=True, deadline=None, database=None, max_examples=15)
    @given(parts, st.randoms(use_true_random=False))
    def holds(parts: list[list[Any]], random: Any) -> None:
        whole = profile_column(
            pl.Series([v for part in parts for v in part], dtype=dtype, strict=False)
        )
        random.shuffle(parts)
        merged = profile_column(pl.Series([], dtype=dtype))
        for part in parts:
            own = profile_column(pl.Series(part, dtype=dtype, strict=False))
            written = json.loads(json.dumps(codec.to_json({"x": own})))
            read = codec.from_json(written)
            assert read == {"x": own}
            merged = read["x"].merged(merged)
        assert merged == whole

    holds()


@settings(derandomize=True, deadline=None, database=None, max_examples=60)
@given(st.lists(FLOATS | st.none(), max_size=20))
def test_a_profile_says_of_floats_what_plain_python_says(values: list[float | None]) -> None:
    profile = profile_column(pl.Series(values, dtype=pl.Float64))
    finite = [value for value in values if value is not None and math.isfinite(value)]
    exact = [Fraction(value) for value in finite]
    assert (profile.rows, profile.values) == (len(values), len(finite))
    assert profile.nulls == values.count(None)
    assert (profile.least, profile.greatest) == (
        min(finite, default=None),
        max(finite, default=None),
    )
    assert profile.total == sum(exact)
    assert profile.squares == sum(value * value for value in exact)
    assert profile.mean == (float(sum(exact) / len(exact)) if exact else None)
    assert profile.distinct == len(set(finite))
    assert Counter({c.value: c.rows for c in profile.sample}) == Counter(finite)
    for bucket, rows in profile.histogram.items():
        if bucket >= 0:
            held = [v for v in finite if lower_edge(bucket) <= v < upper_edge(bucket)]
        else:
            held = [v for v in finite if lower_edge(bucket) < v <= upper_edge(bucket) and v != 0]
        assert len(held) == rows
    assert sum(profile.histogram.values()) == len(finite)


@settings(derandomize=True, deadline=None, database=None, max_examples=30)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=12))
def test_a_standard_deviation_is_exact_to_the_last_digits(values: list[int]) -> None:
    n, total = len(values), sum(values)
    variance = Fraction(n * sum(v * v for v in values) - total**2, n * (n - 1))
    std = profile_column(pl.Series(values, dtype=pl.Int64)).std
    assert std is not None
    assert abs(Fraction(std) ** 2 - variance) <= variance * Fraction(1, 2**51)
