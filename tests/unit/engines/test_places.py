"""Places: an entity and an interval as one number, which leads back to both."""

from __future__ import annotations

import random

import polars as pl
import pytest

from mlforge.compilers.base import TIME
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.values import Duration
from mlforge.engines.tiles.places import Places
from mlforge.metrics import Rolling

DAY = Duration.parse("1d")
SPEC = FeatureSpec.of(
    "f",
    keys=["user"],
    timestamp="at",
    interval="1d",
    metrics=[Rolling("7d", {"x": "sum"})],
    online_clock="data",
)
KEYS = [
    (pl.Int64(), [-(2**40), -1, 0, 7, 2**40]),
    (pl.Int8(), [-128, -1, 0, 127]),
    (pl.UInt64(), [0, 1, 2**40]),
]


def events(dtype: pl.DataType, keys: list[int | None], many: int = 400) -> pl.DataFrame:
    draw = random.Random(3)
    rows = [(draw.choice(keys), draw.randrange(-5 * DAY.us, 5 * DAY.us)) for _ in range(many)]
    return pl.DataFrame(rows, schema={"user": dtype, TIME: pl.Int64}, orient="row")


@pytest.mark.parametrize(("dtype", "keys"), KEYS)
def test_distinct_places_are_the_distinct_entities_and_intervals_by_time_then_key(
    dtype: pl.DataType, keys: list[int | None]
) -> None:
    rows = events(dtype, keys)
    places = Places.of(rows, SPEC)
    assert places is not None
    start = pl.col(TIME) - pl.col(TIME).mod(DAY.us)
    assert places.distinct(rows).equals(rows.select("user", start).unique().sort(TIME, "user"))


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(events(pl.Int64(), [1, None]), id="a null key"),
        pytest.param(events(pl.Int64(), [-(2**62), 0]), id="keys too far from 0"),
        pytest.param(events(pl.UInt64(), [0, 2**64 - 1]), id="keys beyond 63 bits"),
        pytest.param(events(pl.Int64(), [0, 2**61]), id="too many places"),
        pytest.param(events(pl.Int64(), [1]).cast({"user": pl.String}), id="no integer"),
        pytest.param(events(pl.Int64(), [1], many=0), id="no event"),
    ],
)
def test_events_have_no_places_where_a_number_would_not_tell_them(rows: pl.DataFrame) -> None:
    assert Places.of(rows, SPEC) is None
