"""Windows as plain values: names, spans, what moving on touches, and definitions that are refused."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest

from mlforge.core import time_model
from mlforge.core.calendar_units import PERIODS
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.time_model import ALL, CLOSED, Window, length_named
from mlforge.core.values import FIRST_INSTANT, LAST_INSTANT, Duration, TimeRange, from_us, to_us
from mlforge.errors import DefinitionError
from mlforge.metrics import Rolling, ToDate

LENGTHS = [Duration.parse("90m"), ALL, *PERIODS.values()]


def spec(*metrics: object, interval: str | None = None) -> FeatureSpec:
    return FeatureSpec.of(
        "f",
        keys=["user"],
        timestamp="at",
        interval=interval,
        metrics=metrics,
        online_clock="data",
    )


def instants(count: int) -> list[int]:
    """Instants of all years, half of them at or beside a midnight."""
    draw = random.Random(7)
    near = [draw.randrange(FIRST_INSTANT, LAST_INSTANT) for _ in range(count)]
    midnights = [t - t % 86_400_000_000 + draw.choice([-1, 0, 1]) for t in near]
    edges = [FIRST_INSTANT, LAST_INSTANT, 0, -1, 1]
    return [t for t in [*near, *midnights, *edges] if FIRST_INSTANT <= t <= LAST_INSTANT]


def test_columns_are_named_after_their_windows() -> None:
    metrics = [
        Rolling(["7d", "all"], {"x": "sum"}),
        ToDate(["1d", "1w", "1mo", "1y"], {"x": "sum"}),
        ToDate("1mo", {"x": "sum"}, offset="1d", where="ok"),
        Rolling("all", {"x": "sum"}, where="ok"),
    ]
    assert [column.name for column in spec(*metrics).columns] == [
        "x__sum__7d",
        "x__sum__all",
        *(f"x__sum__{name}" for name in ("dtd", "wtd", "mtd", "ytd")),
        "x__sum__mtd__offset_1d__ok",
        "x__sum__all__ok",
    ]


@pytest.mark.parametrize("length", LENGTHS, ids=str)
def test_a_length_is_read_from_its_name(length: time_model.Duration) -> None:
    assert length_named(length.name) == length


@pytest.mark.parametrize(("text", "fields"), [("1mo", 2), ("1y", 1), ("1d", 3), ("1w", None)])
def test_periods_start_where_the_calendar_says(text: str, fields: int | None) -> None:
    for instant in instants(2_000):
        day = from_us(instant).replace(hour=0, minute=0, second=0, microsecond=0)
        if fields is None:
            expected = day - timedelta(days=day.weekday())
        else:
            expected = datetime(
                *(day.year, *(day.month, day.day)[: fields - 1], 1, 1)[:3], tzinfo=UTC
            )
        assert PERIODS[text].start(instant) == to_us(expected), from_us(instant)


@pytest.mark.parametrize("text", PERIODS)
def test_a_period_ends_where_the_next_one_starts(text: str) -> None:
    period = PERIODS[text]
    for instant in instants(500):
        last = period.last_end(instant)
        assert period.start(last) == period.start(instant)
        assert period.start(last + 1) == last + 1


@pytest.mark.parametrize("text", PERIODS)
def test_expressions_of_an_engine_start_where_integers_do(text: str) -> None:
    drawn = instants(500)
    starts = pl.DataFrame({"t": drawn}).select(PERIODS[text].start(pl.col("t"))).to_series()
    assert starts.to_list() == [PERIODS[text].start(instant) for instant in drawn]


@pytest.mark.parametrize("closed", CLOSED)
@pytest.mark.parametrize("length", LENGTHS, ids=str)
def test_a_point_sees_an_event_exactly_if_the_event_is_seen_by_the_point(
    length: time_model.Duration, closed: time_model.Closed
) -> None:
    draw = random.Random(3)
    hour = 3_600_000_000
    for offset in (None, Duration.parse("3h")):
        window = Window(length, offset, closed)
        for _ in range(500):
            event = draw.randrange(-40 * 24, 40 * 24) * hour + draw.choice([-1, 0, 1])
            point = (
                event
                + draw.choice([0, 1, -1, 23, 24, 3, 4, 170, 800]) * hour
                + draw.choice([-1, 0, 1])
            )
            seen = window.span(point)
            first, last = window.first_point(event), window.last_point(event)
            assert (seen.start <= event <= seen.end) == (first <= point <= last)


@pytest.mark.parametrize("closed", CLOSED)
@pytest.mark.parametrize("length", LENGTHS, ids=str)
def test_events_that_move_in_or_out_as_time_passes_lie_in_the_ranges_told(
    length: time_model.Duration, closed: time_model.Closed
) -> None:
    hour, window = 3_600_000_000, Window(length, None, closed)
    events = [n * hour + by for n in range(-800, 800, 5) for by in (-1, 0, 1)]
    for before, after in pairwise([-800 * hour, -1, 0, 1, 25 * hour, 31 * 24 * hour]):
        ranges = time_model.left_or_entered(before, after, [window])
        spans = [window.span(point) for point in (before, after)]
        for event in events:
            one, two = (span.start <= event <= span.end for span in spans)
            if one != two:
                assert any(times.start <= event <= times.end for times in ranges)


def test_a_late_event_touches_the_rows_until_its_period_is_over() -> None:
    def at(text: str) -> int:
        return to_us(datetime.fromisoformat(f"{text}+00:00"))

    event = at("2024-02-10T05:00")
    touched = time_model.rows_touched(TimeRange(event, event), [Window(PERIODS["1mo"])], None)
    assert touched == TimeRange(event, at("2024-03-01T00:00") - 1)


@pytest.mark.parametrize(
    ("make", "interval", "told"),
    [
        (
            lambda: ToDate("2d", {"x": "sum"}),
            None,
            "'2d' is unknown; it is one of '1d', '1w', '1mo', '1y'",
        ),
        (lambda: ToDate([], {"x": "sum"}), None, "ToDate needs at least one window"),
        (lambda: ToDate("1d", {}), None, "ToDate needs at least one window and one aggregation"),
        (lambda: ToDate("1d", {"x": "sum"}, closed="up"), None, "ToDate: closed='up'"),
        (
            lambda: Rolling("1mo", {"x": "sum"}),
            None,
            r"the nearest fixed one is '30d'; ToDate\('1mo'\)",
        ),
        (lambda: Rolling("ever", {"x": "sum"}), None, "'all' holds all events so far"),
        (
            lambda: ToDate("1d", {"x": "sum"}),
            "7h",
            "the interval 7h does not divide; take one that does",
        ),
        (lambda: ToDate("1mo", {"x": "sum"}), "1w", "the interval 1w does not divide"),
        (lambda: ToDate("1d", {"x": "sum"}, closed="right"), "1h", "does not go with an interval"),
        (lambda: ToDate("1d", {"x": "sum"}, offset="90m"), "1h", "offset 90m is not a multiple"),
        (lambda: Rolling("all", {"x": "sum"}, offset="90m"), "1h", "offset 90m is not a multiple"),
    ],
)
def test_what_does_not_go_together_is_refused_with_what_would(make, interval, told) -> None:
    with pytest.raises(DefinitionError, match=told):
        spec(make(), interval=interval)


def test_windows_that_need_no_whole_intervals_go_with_any_that_divides_a_day() -> None:
    both = [ToDate("1y", {"x": "sum"}), Rolling("all", {"x": "sum"})]
    assert [column.name for column in spec(*both, interval="8h").columns] == [
        "x__sum__ytd",
        "x__sum__all",
    ]
    assert spec(Rolling("all", {"x": "sum"}), interval="7h").columns
