"""The oracle itself, against examples worked out by hand: hours are written `h(3)`."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.support.oracle import (
    Cell,
    Events,
    Feature,
    Metric,
    Refused,
    aggregate,
    as_of,
    clean,
    close,
    online,
    stored,
    training,
    value,
)

HOUR = 3_600_000_000


def h(hours: float) -> int:
    return int(hours * HOUR)


def a_metric(aggregation: str = "sum", **changes: Any) -> Metric:
    return Metric(
        **{
            "name": "m",
            "column": "x",
            "aggregation": aggregation,
            "window": h(2),
            **changes,
        }
    )


def a_feature(*metrics: Metric, **changes: Any) -> Feature:
    return Feature(
        **{
            "keys": ("user",),
            "columns": ("user", "at", "x"),
            "timestamp": "at",
            "metrics": metrics,
            **changes,
        }
    )


def events(feature: Feature, *rows: tuple[Any, ...]) -> Events:
    return clean(feature, [dict(zip(feature.columns, row, strict=True)) for row in rows])


def plain(cells: dict[str, Cell]) -> dict[str, Any]:
    return {name: cell.value for name, cell in cells.items()}


@pytest.mark.parametrize(
    ("closed", "expected"),
    # Events at 1, 2 and 3 o'clock with the values 1, 10 and 100; the window is 1 to 3.
    [("both", 111), ("right", 110), ("left", 11), ("none", 10)],
)
def test_each_kind_of_closed_counts_its_own_ends(closed: str, expected: int) -> None:
    feature = a_feature(a_metric(closed=closed))
    given = events(feature, (1, h(1), 1), (1, h(2), 10), (1, h(3), 100))
    assert plain(value(feature, given, (1,), h(3))) == {"m": expected}


def test_a_microsecond_past_either_end_is_outside() -> None:
    feature = a_feature(a_metric())
    given = events(feature, (1, h(1) - 1, 1), (1, h(3) + 1, 10), (1, h(2), 100))
    assert plain(value(feature, given, (1,), h(3))) == {"m": 100}


def test_an_offset_moves_the_whole_window_back() -> None:
    # At 5 o'clock, one hour back: from 2 to 4.
    feature = a_feature(a_metric(offset=h(1)))
    given = events(feature, (1, h(1), 1), (1, h(2), 10), (1, h(4), 100), (1, h(5), 1000))
    assert plain(value(feature, given, (1,), h(5))) == {"m": 110}


def test_an_aligned_window_ends_before_the_last_boundary() -> None:
    # At 3:30 with an interval of one hour: from 1:00 up to, not including, 3:00.
    feature = a_feature(a_metric(), interval=h(1))
    given = events(
        feature,
        (1, h(1) - 1, 1),
        (1, h(1), 10),
        (1, h(3) - 1, 100),
        (1, h(3), 1000),
        (1, h(3.2), 9),
    )
    assert plain(value(feature, given, (1,), h(3.5))) == {"m": 110}
    assert plain(value(feature, given, (1,), h(3))) == {"m": 110}
    assert plain(value(feature, given, (1,), h(3) - 1)) == {"m": 11}


def test_an_aligned_offset_goes_back_before_the_floor() -> None:
    # At 3:30, one hour back is 2:30, whose boundary is 2:00: from 0:00 to 2:00.
    feature = a_feature(a_metric(offset=h(1)), interval=h(1))
    given = events(feature, (1, h(0), 1), (1, h(2) - 1, 10), (1, h(2), 100))
    assert plain(value(feature, given, (1,), h(3.5))) == {"m": 11}


def test_boundaries_before_1970_are_floored_not_truncated() -> None:
    # At -0:30 the last boundary is -1:00, so the window is -3:00 to -1:00.
    feature = a_feature(a_metric(), interval=h(1))
    given = events(feature, (1, h(-3), 1), (1, h(-1), 10))
    assert plain(value(feature, given, (1,), h(-0.5))) == {"m": 1}


def test_an_empty_window_counts_zero_and_is_null_for_all_else() -> None:
    names = ["count", "sum", "mean", "min", "max", "std", "median"]
    feature = a_feature(*(a_metric(name, name=name) for name in names))
    given = events(feature, (1, h(0), 5.0))
    expected = {"count": 0} | dict.fromkeys(names[1:])
    assert plain(value(feature, given, (1,), h(9))) == expected
    assert plain(value(feature, given, ("never seen",), h(0))) == expected


def test_aggregates_of_three_numbers_and_a_null() -> None:
    values = [2.0, None, 4.0, 9.0]
    answers = {
        name: aggregate(name, values).value
        for name in ["count", "sum", "mean", "min", "max", "median"]
    }
    assert answers == {"count": 3, "sum": 15.0, "mean": 5.0, "min": 2.0, "max": 9.0, "median": 4.0}
    # Squares of -3, -1 and 4 make 26, over n - 1 = 2: 13.
    assert close(aggregate("std", values).value, 13**0.5, 9.0)
    assert aggregate("std", [2.0, None]).value is None
    assert aggregate("median", [1, 2, 4, 10]).value == 3.0
    assert close(aggregate("var", values).value, 13.0, 81.0)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("first", "b"),
        ("last", "c"),
        ("first_time", 1_000_000),
        ("last_time", 4_000_000),
        ("first_2", ["b", "c"]),
        ("first_9", ["b", "c", "a", "a", "c"]),
        ("last_2", ["c", "a"]),
        ("count_distinct", 3),
        ("mode", "a"),
        ("top_2", ["a", "c"]),
        ("top_9", ["a", "c", "b"]),
    ],
)
def test_aggregates_that_go_by_time_and_value(name: str, answer: object) -> None:
    s = 1_000_000
    values = ["c", "a", "b", "c", None, "a"]
    times = [2 * s, 4 * s, 1 * s, 4 * s, 9 * s, 3 * s]
    assert aggregate(name, values, times).value == answer
    assert aggregate(name, values[::-1], times[::-1]).value == answer


def test_percentiles_lie_on_straight_lines_between_ranks() -> None:
    shares = {"p50": 3.0, "p25": 1.75, "p1": 1.03, "p99": 9.82, "p99_9": 9.982}
    for name, answer in shares.items():
        assert close(aggregate(name, [10, 1, 4, 2]).value, answer, 10.0)
    assert aggregate("p75", [None, 7]).value == 7.0
    assert aggregate("p10", [None]).value is None


def test_sums_are_exact() -> None:
    assert aggregate("sum", [1e15, 1e-3, -1e15]).value == 1e-3
    assert aggregate("sum", [2**53, 1, 1]).value == 2**53 + 2
    assert aggregate("sum", [Decimal("0.10"), Decimal("0.20")]).value == Decimal("0.30")
    assert aggregate("sum", [True, True, False]).value == 2


def test_null_keys_and_times_are_left_out_and_non_finite_values_are_null() -> None:
    feature = a_feature(a_metric("count"))
    given = events(
        feature,
        (None, h(1), 1.0),
        (None, None, 1.0),
        (1, None, 1.0),
        (1, h(1), float("nan")),
        (1, h(1), float("-inf")),
        (1, h(1), 1.0),
    )
    assert (given.null_keys, given.null_times, given.non_finite) == (2, 1, 2)
    assert plain(value(feature, given, (1,), h(1))) == {"m": 1}


def test_stored_rows_are_one_per_instant_and_entity_by_time_then_key() -> None:
    feature = a_feature(a_metric())
    given = events(feature, (2, h(1), 1), (1, h(2), 10), (1, h(1), 100), (1, h(1), 1000))
    assert [plain(row) for row in stored(feature, given)] == [
        {"user": 1, "at": h(1), "m": 1100},
        {"user": 2, "at": h(1), "m": 1},
        {"user": 1, "at": h(2), "m": 1110},
    ]


def test_stored_rows_of_an_aligned_feature_end_the_intervals_that_hold_events() -> None:
    feature = a_feature(a_metric(), interval=h(1))
    given = events(feature, (1, h(1), 1), (1, h(1.9), 10), (1, h(4), 100))
    # 5:00 looks back to 3:00; the event at 4:00 belongs to the interval that ends at 5:00.
    assert [plain(row) for row in stored(feature, given)] == [
        {"user": 1, "at": h(2), "m": 11},
        {"user": 1, "at": h(5), "m": 100},
    ]


def test_without_metrics_the_latest_row_counts_and_ties_go_by_the_other_columns() -> None:
    feature = a_feature(columns=("user", "at", "x", "s"))
    given = events(
        feature,
        (1, h(1), 1, "z"),
        (1, h(2), 5, "a"),
        (1, h(2), None, "z"),
        (1, h(2), 5, None),
        (1, h(3), 0, "a"),
    )
    rows = training(feature, given, [((1,), h(2)), ((1,), h(1) - 1), ((2,), h(2)), ((1,), h(9))])
    assert [plain(row) for row in rows] == [
        {"x": 5, "s": "a"},
        {"x": None, "s": None},
        {"x": None, "s": None},
        {"x": 0, "s": "a"},
    ]


def test_an_untimed_feature_has_one_row_a_key() -> None:
    feature = a_feature(columns=("user", "x"), timestamp=None)
    given = events(feature, (2, 20), (1, 10))
    assert [plain(row) for row in stored(feature, given)] == [
        {"user": 1, "x": 10},
        {"user": 2, "x": 20},
    ]
    assert plain(value(feature, given, (2,), 0)) == {"x": 20}
    assert as_of(feature, given, h(1)) is None
    with pytest.raises(Refused):
        events(feature, (1, 10), (1, 10))


@pytest.mark.parametrize(
    ("interval", "closed", "online_clock", "now", "expected"),
    [
        # The newest event is at 2:30.
        (None, "both", "data", h(9), h(2.5)),
        (None, "right", "data", h(9), h(2.5)),
        (None, "left", "data", h(9), h(2.5) + 1),
        (None, "none", "data", h(9), h(2.5) + 1),
        (None, "both", "data", h(1), h(1)),
        (None, "left", "data", h(2.5), h(2.5)),
        (None, "both", "wall", h(9), h(9)),
        (h(1), "left", "data", h(9), h(3)),
        (h(1), "left", "data", h(3), h(3)),
        (h(1), "left", "data", h(3) - 1, h(2)),
        (h(1), "left", "wall", h(9.7), h(9)),
    ],
)
def test_as_of_follows_the_data_and_is_capped_by_the_clock(
    interval: int | None, closed: str, online_clock: str, now: int, expected: int
) -> None:
    feature = a_feature(a_metric(closed=closed), interval=interval, online_clock=online_clock)
    given = events(feature, (1, h(1), 1), (1, h(2.5), 1))
    assert as_of(feature, given, now) == expected


def test_an_event_on_a_boundary_is_served_when_its_own_interval_is_over() -> None:
    feature = a_feature(a_metric(), interval=h(1))
    given = events(feature, (1, h(2), 1))
    assert as_of(feature, given, h(9)) == h(3)
    assert online(feature, given, h(3) - 1) == {}
    assert {e: plain(v) for e, v in online(feature, given, h(3)).items()} == {(1,): {"m": 1}}


def test_online_leaves_out_entities_whose_windows_hold_no_event() -> None:
    feature = a_feature(a_metric())
    given = events(feature, (1, h(1), 1.0), (2, h(5), None), (3, h(9), 3.0))
    served = online(feature, given, h(5))
    assert {entity: plain(cells) for entity, cells in served.items()} == {(2,): {"m": None}}


def test_closeness_is_measured_by_the_windows_magnitude() -> None:
    assert close(1e-3, 1.1e-3, 1e15)
    assert not close(1e-3, 1.1e-3, 1.0)
    assert not close(1, 1.0, 1.0)
    assert not close(None, 0.0, 1.0)
    assert close(-0.0, 0.0, 0.0)
