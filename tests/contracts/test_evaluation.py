"""The contract of an engine: `value(entity, t)` at many points at once, on both engines alike."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge.core.aggregations import AGGREGATIONS, aggregation, empty_value
from mlforge.core.values import to_us
from mlforge.engines import Engine, Events, engine_named
from mlforge.errors import DefinitionError
from mlforge.metrics import Rolling
from tests.support import kernels
from tests.support.judged import INSTANT, History, every
from tests.support.projects import START

HOUR = 3_600_000_000
DAY = 24 * HOUR
NOW = to_us(START)
NUMBERS = [name for name in AGGREGATIONS if aggregation(name).kind.parts]


@pytest.fixture(params=["as it comes", "general", "point by point"])
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    with kernels.forced(**kernels.WAYS[request.param]):
        yield


aligned = pytest.mark.parametrize("way", list(kernels.WAYS), indirect=True)
"""Tests of aligned features go the way of tiles, too."""


@pytest.fixture(params=["polars", "duckdb"])
def engine(request: pytest.FixtureRequest, way: None) -> Engine:
    return engine_named(request.param)


def test_answers_stand_in_the_order_of_the_points_however_unsorted(
    engine: Engine, tmp_path: Path
) -> None:
    history = History(tmp_path, every("2h"), every("1d", "median", "sum"))
    draw = random.Random(7)
    for _ in range(3):
        history.add(
            *(
                (draw.randrange(4), NOW + draw.randrange(40) * HOUR // 2, draw.uniform(-9, 9))
                for _ in range(30)
            )
        )
    points = [(draw.randrange(5), NOW + draw.randrange(-4, 60) * HOUR // 2) for _ in range(200)]
    assert points != sorted(points)
    history.check(engine, *points)


def test_points_of_all_history_are_answered_a_few_events_at_a_time(
    engine: Engine, tmp_path: Path
) -> None:
    history = History(tmp_path, every("2h", offset="1h"), every("3h", "median", "sum"))
    draw = random.Random(5)
    for day in range(6):
        history.add(
            *(
                (draw.randrange(3), NOW + day * 4 * HOUR + draw.randrange(8) * HOUR // 2, 1.5 * n)
                for n in range(10)
            )
        )
    points = [(draw.randrange(4), NOW + draw.randrange(-4, 60) * HOUR // 2) for _ in range(100)]
    assert len(history.events.ranges(8)) == 4
    with kernels.forced(events_at_once=8):
        history.check(engine, *points)


def test_no_range_of_time_is_shorter_than_the_longest_window(tmp_path: Path) -> None:
    history = History(tmp_path, every("6h"))
    for hour in range(24):
        history.add(*((1, NOW + hour * HOUR + n, 1.0) for n in range(10)))
    ranges = history.events.ranges(1)
    assert [(r.end - NOW) // HOUR for r in ranges[:-1]] == [6, 13, 20]
    assert all(a.end + 1 == b.start for a, b in pairwise(ranges))


def test_a_point_asked_twice_is_answered_twice(engine: Engine, tmp_path: Path) -> None:
    history = History(tmp_path, every()).add((1, NOW, 2.0), (1, NOW, 3.0), (2, NOW, 5.0))
    found = history.check(engine, (1, NOW), (2, NOW), (1, NOW), (1, NOW))
    assert found["x__sum__1h"].to_list() == [5.0, 5.0, 5.0, 5.0]
    assert found["x__count__1h"].to_list() == [2, 1, 2, 2]


def test_points_do_not_count_as_events(engine: Engine, tmp_path: Path) -> None:
    history = History(tmp_path, every()).add((1, NOW, 2.0))
    found = history.check(engine, *((1, NOW + minute * HOUR // 60) for minute in range(0, 60, 7)))
    assert set(found["x__count__1h"]) == {1}


def test_entities_never_seen_have_empty_windows(engine: Engine, tmp_path: Path) -> None:
    history = History(tmp_path, every()).add((1, NOW, 2.0))
    found = history.check(engine, (9, NOW), (1, NOW), (8, NOW))
    assert found.row(0) == found.row(2) == tuple(map(empty_value, AGGREGATIONS))


def test_a_null_key_is_an_entity_never_seen(engine: Engine, tmp_path: Path) -> None:
    history = History(tmp_path, every("1h", "count", "sum")).add((1, NOW, 2.0))
    points = history.points((None, NOW), (1, NOW), (None, NOW))
    assert engine.values(history.events, points).rows() == [(0, None), (1, 2.0), (0, None)]


def test_a_null_in_one_of_several_keys_matches_nothing(engine: Engine, tmp_path: Path) -> None:
    history = History(tmp_path, every("1h", "count"), keys=("user", "shop"))
    history.add((1, "a", NOW, 2.0), user=pl.Int64, shop=pl.String, at=pl.Int64, x=pl.Float64)
    points = history.points((1, None, NOW), (1, "a", NOW), (None, "a", NOW))
    assert engine.values(history.events, points).rows() == [(0,), (1,), (0,)]


def test_without_events_every_window_is_empty(engine: Engine, tmp_path: Path) -> None:
    history = History(tmp_path, every("1h", *NUMBERS)).add()
    found = history.check(engine, (1, NOW), (2, NOW + HOUR))
    assert found["x__count__1h"].to_list() == [0, 0]
    assert found.schema["x__mean__1h"] == pl.Float64


def test_without_partials_every_window_is_empty(engine: Engine, tmp_path: Path) -> None:
    history = History(tmp_path, every("1h", "count", "max")).add()
    bare = Events(history.spec, history.events.schema, (), list)
    assert engine.values(bare, history.points((1, NOW))).rows() == [(0, None)]


def test_without_points_there_are_no_answers_but_their_types(
    engine: Engine, tmp_path: Path
) -> None:
    history = History(tmp_path, every()).add((1, NOW, 2.0))
    asked = engine.values(history.events, history.points((1, NOW)))
    none = engine.values(history.events, history.points())
    assert (none.height, none.schema) == (0, asked.schema)


def test_keys_together_are_one_entity(engine: Engine, tmp_path: Path) -> None:
    history = History(tmp_path, every("1h", "sum", "count"), keys=("user", "shop", "on"))
    types = {"user": pl.Int32, "shop": pl.String, "on": pl.Boolean, "at": pl.Int64, "x": pl.Int64}
    history.add((1, "a", True, NOW, 1), (1, "a", False, NOW, 2), (1, "", True, NOW, 4), **types)
    history.add((2, "a", True, NOW, 8), (1, "a", True, NOW - HOUR, 16), **types)
    entities = [(u, s, b) for u in (1, 2) for s in ("a", "", "é") for b in (True, False)]
    found = history.check(engine, *((*entity, NOW) for entity in entities))
    assert found["x__sum__1h"][0] == 17


@pytest.mark.parametrize("closed", ["both", "right", "left", "none"])
@pytest.mark.parametrize("offset", [None, "30m"])
def test_both_ends_of_a_window_are_where_they_should_be(
    closed: Any, offset: str | None, engine: Engine, tmp_path: Path
) -> None:
    history = History(tmp_path, every("1h", *NUMBERS, closed=closed, offset=offset))
    history.add(*((1, NOW + step * HOUR // 2 + by, 1.0) for step in (-1, 0) for by in (-1, 0, 1)))
    history.check(
        engine,
        *((1, NOW + step * HOUR // 2 + by) for step in range(-3, 5) for by in (-2, -1, 0, 1, 2)),
    )


def test_before_the_first_and_long_after_the_last_event_windows_are_empty(
    engine: Engine, tmp_path: Path
) -> None:
    history = History(tmp_path, every("1d", *NUMBERS)).add((1, NOW, 2.0), (1, NOW + HOUR, 3.0))
    far = 200 * 365 * DAY
    found = history.check(
        engine, (1, NOW - 1), (1, NOW - far), (1, NOW + DAY), (1, NOW + DAY + HOUR + 1), (1, far)
    )
    assert found["x__count__1d"].to_list() == [0, 0, 2, 0, 0]


def test_instants_before_1970_are_as_good_as_any(engine: Engine, tmp_path: Path) -> None:
    history = History(tmp_path, every("1h"), every("1d", "sum", "std"))
    instants = [-DAY - HOUR, -DAY, -HOUR - 1, -HOUR, -1, 0, 1, HOUR]
    history.add(*((1, t, float(n)) for n, t in enumerate(instants)))
    history.check(engine, *((1, t + by) for t in instants for by in (-1, 0, 1, HOUR)))


@aligned
@pytest.mark.parametrize("offset", [None, "2h"])
def test_aligned_instants_before_1970_are_floored_not_truncated(
    offset: str | None, engine: Engine, tmp_path: Path
) -> None:
    metrics = [every("1h", *NUMBERS, offset=offset), every("3h", "sum", "median")]
    history = History(tmp_path, *metrics, interval="1h")
    history.add(*((1, n * HOUR // 2, float(n)) for n in range(-9, 9)))
    found = history.check(
        engine, *((1, n * HOUR // 2 + by) for n in range(-12, 14) for by in (-1, 0, 1))
    )
    if offset is None:
        there = history.check(engine, (1, -1), (1, -HOUR), (1, 0))
        # The hours that end at -1h, -1h and 0h; halves of -4, -3 and -2, -1.
        assert there["x__sum__1h"].to_list() == [-7.0, -7.0, -3.0]
    assert found.height == 78


@aligned
def test_an_interval_of_a_week_is_counted_from_the_epoch(engine: Engine, tmp_path: Path) -> None:
    history = History(tmp_path, every("2w", "count", "sum"), interval="1w")
    thursday = 7 * DAY * 2900
    history.add((1, thursday - 1, 1.0), (1, thursday, 2.0), (1, thursday - 14 * DAY, 4.0))
    found = history.check(
        engine, (1, thursday - 1), (1, thursday), (1, thursday + 7 * DAY), (1, thursday + 21 * DAY)
    )
    assert found["x__sum__2w"].to_list() == [4.0, 5.0, 3.0, None]


@aligned
@pytest.mark.parametrize("window", ["3650d", "36500d", "365000d"])
@pytest.mark.parametrize("interval", [None, "1d"])
def test_a_window_may_be_as_long_as_history(
    window: str, interval: str | None, engine: Engine, tmp_path: Path
) -> None:
    history = History(tmp_path, every(window, *NUMBERS), interval=interval)
    year = 365 * DAY
    instants = [-1900 * year, -70 * year, 0, 30 * year, 56 * year, 7900 * year]
    history.add(*((1, t, float(n)) for n, t in enumerate(instants)))
    history.check(engine, *((1, t + by) for t in instants for by in (0, DAY, 9 * year)))


def test_ties_count_together(engine: Engine, tmp_path: Path) -> None:
    history = History(tmp_path, every("1h")).add(*((1, NOW, float(n)) for n in range(500)))
    history.add(*((2, NOW, float(n)) for n in range(3)), *((1, NOW + 1, 1.0) for _ in range(3)))
    found = history.check(engine, (1, NOW), (1, NOW + 1), (2, NOW))
    assert found["x__count__1h"].to_list() == [500, 503, 3]


def test_windows_of_different_lengths_and_columns_do_not_mix(
    engine: Engine, tmp_path: Path
) -> None:
    types = {"user": pl.Int64, "at": pl.Int64, "x": pl.Float64, "n": pl.Int16, "s": pl.String}
    history = History(
        tmp_path,
        Rolling(["1h", "6h"], {"x": ["sum", "std"], "n": ["sum", "mean"]}),
        Rolling(["6h"], {"s": ["min", "max", "count"]}, closed="left"),
        Rolling(["6h"], {"x": ["sum"]}, offset="1h"),
    )
    draw = random.Random(11)
    for _ in range(2):
        history.add(
            *(
                (
                    draw.randrange(2),
                    NOW + draw.randrange(24) * HOUR // 2,
                    draw.choice([None, float("nan"), 1.5, -2.5]),
                    draw.choice([None, 1, -(2**15), 2**15 - 1]),
                    draw.choice([None, "", "a", "é"]),
                )
                for _ in range(40)
            ),
            **types,
        )
    found = history.check(
        engine, *((u, NOW + n * HOUR // 2) for u in (0, 1) for n in range(-2, 40))
    )
    assert found.schema == {
        **{f"x__{name}__{w}": pl.Float64 for name in ("sum", "std") for w in ("1h", "6h")},
        **{f"n__sum__{w}": pl.Int64 for w in ("1h", "6h")},
        **{f"n__mean__{w}": pl.Float64 for w in ("1h", "6h")},
        "s__min__6h": pl.String,
        "s__max__6h": pl.String,
        "s__count__6h": pl.Int64,
        "x__sum__6h__offset_1h": pl.Float64,
    }


@pytest.mark.parametrize(
    ("dtype", "name", "expected"),
    [
        (pl.Int8(), "sum", pl.Int64()),
        (pl.UInt64(), "sum", pl.Int64()),
        (pl.Boolean(), "sum", pl.Int64()),
        (pl.Float32(), "sum", pl.Float64()),
        (pl.Decimal(9, 3), "sum", pl.Decimal(38, 3)),
        (pl.Int8(), "mean", pl.Float64()),
        (pl.Int8(), "min", pl.Int8()),
        (pl.UInt64(), "max", pl.UInt64()),
        (pl.Float32(), "max", pl.Float32()),
        (pl.Decimal(9, 3), "min", pl.Decimal(9, 3)),
        (pl.Boolean(), "max", pl.Boolean()),
        (pl.String(), "min", pl.String()),
        (pl.Categorical(), "max", pl.String()),
        (pl.Date(), "max", pl.Date()),
        (pl.Time(), "min", pl.Time()),
        (pl.Datetime("ns"), "max", INSTANT),
        (pl.Int8(), "std", pl.Float64()),
        (pl.Decimal(9, 3), "median", pl.Float64()),
        (pl.String(), "count", pl.Int64()),
    ],
)
def test_answers_have_their_types_with_and_without_values(
    dtype: pl.DataType, name: Any, expected: pl.DataType, engine: Engine, tmp_path: Path
) -> None:
    history = History(tmp_path, Rolling("1h", {"x": [name]}))
    history.add((1, NOW, None), user=pl.Int64, at=pl.Int64, x=dtype)
    values = engine.values(history.events, history.points((1, NOW), (2, NOW)))
    assert values.schema == {f"x__{name}__1h": expected}
    assert values.to_series().to_list() == ([0, 0] if name == "count" else [None, None])


def test_an_unknown_engine_is_refused_by_name() -> None:
    with pytest.raises(DefinitionError, match="unknown engine 'spark'; there are polars, duckdb"):
        engine_named("spark")


def test_the_events_of_other_times_and_entities_are_not_read(
    engine: Engine, tmp_path: Path
) -> None:
    history = History(tmp_path, every("1h", "count"))
    history.add((1, NOW, 1.0)).add((1, NOW + 30 * DAY, 1.0))
    seen = history.events
    (tmp_path / "1.parquet").unlink()
    within = timedelta(minutes=59) // timedelta(microseconds=1)
    assert engine.values(seen, history.points((1, NOW + within))).rows() == [(1,)]
