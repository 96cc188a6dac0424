"""Random keys and rows: what a request computes singly is what a push computes column-wise."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, timedelta
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from mlforge.frames.encoding import json_row, json_rows, json_value, key_hash, key_hashes

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
# Names that polars takes for patterns never get so far: events refuse them.
NAMES = st.lists(
    TEXTS.filter(lambda name: name != "*" and not (name[:1] == "^" and name[-1:] == "$")),
    min_size=1,
    max_size=3,
    unique=True,
)
KEY_VALUES: Mapping[pl.DataType, st.SearchStrategy[Any]] = {
    pl.Int64(): st.integers(-(2**63), 2**63 - 1),
    pl.UInt64(): st.integers(0, 2**64 - 1),
    pl.Int8(): st.integers(-128, 127),
    pl.String(): TEXTS,
    pl.Boolean(): st.booleans(),
    pl.Date(): st.dates(),
}
INSTANTS = st.datetimes(timezones=st.just(UTC))
LENGTHS = st.timedeltas(timedelta(days=-(10**6)), timedelta(days=10**6))
VALUES: Mapping[pl.DataType, st.SearchStrategy[Any]] = {
    **KEY_VALUES,
    pl.Float64(): st.floats(),
    pl.Float32(): st.floats(width=32),
    pl.Datetime("us"): st.datetimes(),
    pl.Datetime("us", "UTC"): INSTANTS,
    pl.Time(): st.times(),
    pl.Duration("us"): LENGTHS,
    pl.Decimal(38, 4): st.decimals(-(10**20), 10**20, places=4),
    pl.List(pl.Float32): st.lists(st.floats(width=32), max_size=3),
    pl.Array(pl.Int64, 2): st.lists(st.integers(-9, 9), min_size=2, max_size=2),
    pl.Struct({"at": pl.Datetime("us"), "x": pl.Float64}): st.fixed_dictionaries(
        {"at": st.datetimes() | st.none(), "x": st.floats() | st.none()}
    ),
    pl.Null(): st.none(),
}


@st.composite
def frames(
    draw: st.DrawFn, values: Mapping[pl.DataType, st.SearchStrategy[Any]], nulls: bool
) -> pl.DataFrame:
    columns = {}
    height = draw(st.integers(0, 4))
    for name in draw(NAMES):
        dtype = draw(st.sampled_from(list(values)))
        cells = values[dtype] | st.none() if nulls else values[dtype]
        cells = st.lists(cells, min_size=height, max_size=height)
        columns[name] = pl.Series(draw(cells), dtype=dtype)
    return pl.DataFrame(columns)


@settings(deadline=None, max_examples=50)
@given(frames(KEY_VALUES, nulls=False))
def test_a_key_hashes_alike_in_a_column_and_alone(frame: pl.DataFrame) -> None:
    assert key_hashes(frame, frame.columns).to_list() == [key_hash(row) for row in frame.to_dicts()]


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(TEXTS, TEXTS, min_size=1, max_size=3),
    st.dictionaries(TEXTS, TEXTS, min_size=1, max_size=3),
)
def test_two_entities_hash_alike_only_if_they_are_one(
    one: dict[str, str], two: dict[str, str]
) -> None:
    assert (key_hash(one) == key_hash(two)) == (one == two)


@settings(deadline=None, max_examples=120)
@given(frames(VALUES, nulls=True))
def test_a_row_has_the_same_json_in_a_column_and_alone(frame: pl.DataFrame) -> None:
    columnwise = [json.loads(text) for text in json_rows(frame, frame.columns)]
    assert columnwise == [json.loads(json_row(row)) for row in frame.to_dicts()]
    assert columnwise == [
        {name: json_value(value) for name, value in row.items()} for row in frame.to_dicts()
    ]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats() | st.none(), max_size=5))
def test_finite_floats_come_back_exactly_and_others_as_null(values: list[float | None]) -> None:
    texts = json_rows(pl.DataFrame({"x": pl.Series(values, dtype=pl.Float64)}), ["x"])
    finite = [value if value is not None and math.isfinite(value) else None for value in values]
    assert [json.loads(text)["x"] for text in texts] == finite
