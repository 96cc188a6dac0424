"""What a profile says of a column, and what it keeps saying from release to release."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest

from mlforge.core.values import to_us
from mlforge.errors import DataError
from mlforge.profiles import codec
from mlforge.profiles.column_profile import SAMPLED
from mlforge.profiles.measure import profile_column


def test_values_have_the_hashes_that_stores_hold() -> None:
    columns = {
        6238072747940578789: pl.Series([1], dtype=pl.Int64),
        3035652100526550566: pl.Series([1.0]),
        10600591454142951214: pl.Series(["a"]),
    }
    hashes = {name: profile_column(column).sample[0].hash for name, column in columns.items()}
    assert hashes == {name: name for name in columns}


def test_many_distinct_values_are_estimated_and_their_most_frequent_counted() -> None:
    numbers = pl.Series(range(50_000), dtype=pl.Int64)
    profile = profile_column(pl.concat([numbers, numbers]))
    assert profile.distinct == pytest.approx(50_000, rel=0.05)
    assert len(profile.sample) == SAMPLED
    assert {counted.rows for counted in profile.sample} == {2}
    texts = profile_column(pl.Series(["a"] * 3 + ["b"] * 5 + [None]))
    assert [(c.value, c.rows) for c in texts.top(2)] == [("b", 5), ("a", 3)]
    assert texts.null_rate == pytest.approx(1 / 9)


def test_sums_have_no_rounding_where_floats_have() -> None:
    profile = profile_column(pl.Series([1e16, 1.0, -1e16, 1e300, -1e300]))
    assert profile.mean == 0.2
    wide = profile_column(pl.Series([2**63 - 1, 2**63 - 3], dtype=pl.Int64))
    assert wide.total == 2**64 - 4
    assert wide.std == math.sqrt(2)
    assert profile_column(pl.Series([1e308, -1e308])).std == pytest.approx(math.sqrt(2) * 1e308)
    assert profile_column(pl.Series([7.0])).std is None


def test_extremes_are_in_the_types_of_their_columns() -> None:
    instant = datetime(2026, 1, 2, 3, tzinfo=UTC)
    shown = {
        "2026-01-02T03:00:00.000000Z": pl.Series([instant], dtype=pl.Datetime("ns", "UTC")),
        "2026-01-02": pl.Series([date(2026, 1, 2)]),
        "1.50": pl.Series([Decimal("1.50")]),
        False: pl.Series([False, True]),
    }
    for value, column in shown.items():
        profile = profile_column(column)
        assert codec.shown(profile.least, profile) == value
    time = profile_column(shown_column := pl.Series([instant]))
    assert (time.kind, time.total, time.mean) == ("time", to_us(shown_column[0]), None)
    assert profile_column(pl.Series([[1], []])).least is None


def test_a_document_of_another_format_or_a_damaged_one_is_none() -> None:
    document = codec.to_json({"x": profile_column(pl.Series([1, 2]))})
    assert codec.from_json({**document, "format": 2}) is None
    assert codec.from_json({"format": 1}) is None
    damaged = {**document["columns"]["x"], "registers": "AAAA"}
    assert codec.from_json({"format": 1, "columns": {"x": damaged}}) is None


def test_columns_of_two_dtypes_do_not_merge_and_a_column_of_nulls_goes_with_any() -> None:
    numbers, texts = profile_column(pl.Series([1])), profile_column(pl.Series(["a"]))
    with pytest.raises(DataError, match="Int64 and of String"):
        numbers.merged(texts)
    nulls = profile_column(pl.Series([None, None]))
    assert nulls.merged(texts) == texts.merged(nulls)
    assert nulls.merged(texts).nulls == 2
