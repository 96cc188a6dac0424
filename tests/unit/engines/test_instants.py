"""Instants derived from legal ones may leave the years 1 to 9999: nothing breaks, and what cannot be held is said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from mlforge import get_training_data
from mlforge.core import clock
from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.time_model import Window, as_of, last_event, row_point
from mlforge.core.values import FIRST_INSTANT, LAST_INSTANT, LONGEST_US, Duration, from_us, to_us
from mlforge.engines import Engine, engine_named
from mlforge.errors import BuildError, DefinitionError
from mlforge.metrics import Rolling
from mlforge.retrieval.explain import explain
from mlforge.sources import source_reading
from tests.support.judged import History, every
from tests.support.projects import START, Project

DAY = 86_400_000_000
INTERVALS = ["1ms", "1s", "7m", "1h", "1d", "1w", "30d", "365d", "36500d"]


@pytest.fixture(params=["polars", "duckdb"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return engine_named(request.param)


def test_the_ends_of_time_are_those_of_datetime() -> None:
    assert to_us(datetime.min.replace(tzinfo=UTC)) == FIRST_INSTANT
    assert to_us(datetime.max.replace(tzinfo=UTC)) == LAST_INSTANT


@pytest.mark.parametrize("text", INTERVALS)
def test_the_row_of_the_last_event_lies_within_the_years_and_that_of_the_next_does_not(
    text: str,
) -> None:
    interval = Duration.parse(text)
    last = last_event(interval)
    assert from_us(row_point(last, interval)) <= datetime.max.replace(tzinfo=UTC)
    assert row_point(last + 1, interval) > LAST_INSTANT


@pytest.mark.parametrize("text", ["7000000000000d", "99999999999999999999999999w", "2000000w"])
def test_durations_longer_than_all_of_time_are_refused(text: str) -> None:
    with pytest.raises(DefinitionError, match="longer than all of time"):
        Duration.parse(text)


def test_with_the_longest_durations_arithmetic_stays_within_64_bits() -> None:
    longest = Duration.of(LONGEST_US)
    span = Window(longest, offset=longest).span(0)
    assert FIRST_INSTANT + span.start > -(1 << 62)


def test_an_interval_that_never_ends_before_the_year_10000_is_refused() -> None:
    for interval in ("3000000d", timedelta(days=2_932_897)):
        with pytest.raises(DefinitionError, match="is too long: none that begins after 1970"):
            FeatureSpec.of(
                "f",
                keys=["k"],
                timestamp="t",
                interval=interval,
                metrics=[Rolling(interval, {"x": "sum"})],
                online_clock="data",
            )


@pytest.mark.parametrize("online_clock", ["data", "wall"])
@pytest.mark.parametrize("text", [None, *INTERVALS])
@pytest.mark.parametrize(
    "now", [FIRST_INSTANT, FIRST_INSTANT + 5, 0, LAST_INSTANT - 5, LAST_INSTANT]
)
def test_online_values_are_as_of_an_instant_that_a_calendar_has(
    now: int, text: str | None, online_clock: str
) -> None:
    interval = None if text is None else Duration.parse(text)
    windows = [Window(Duration.parse("36500d"), closed="left")]
    for watermark in (FIRST_INSTANT, min(now, last_event(interval))):
        instant = as_of(watermark, now, windows, interval, online_clock)  # type: ignore[arg-type]
        assert instant is not None
        assert FIRST_INSTANT <= instant <= now


@pytest.mark.parametrize("closed", ["both", "left", "none", "right"])
def test_values_at_both_ends_of_time(closed: str, engine: Engine, tmp_path: Path) -> None:
    history = History(
        tmp_path, every("1ms", closed=closed), every("3652059d", "sum", "std", offset="36500d")
    )
    first, last = FIRST_INSTANT, LAST_INSTANT
    history.add(*((1, t, 1.0 + t % 3) for t in (first, first + 1, 0, last - 1, last)))
    history.check(
        engine,
        *((user, t) for user in (1, 2) for t in (first, first + 1, first + 2, 0, last - 1, last)),
    )


@pytest.mark.parametrize("interval", ["1s", "1d", "1w", "36500d"])
def test_aligned_values_at_both_ends_of_time(interval: str, engine: Engine, tmp_path: Path) -> None:
    history = History(
        tmp_path, every(interval), every(interval, "sum", offset=interval), interval=interval
    )
    first, last = FIRST_INSTANT, LAST_INSTANT
    held = last_event(Duration.parse(interval))
    history.add(*((1, t, 1.0 + t % 3) for t in (first, first + 1, 0, held - 1, held)))
    history.check(
        engine, *((user, t) for user in (1, 2) for t in (first, first + 1, 0, held, held + 1, last))
    )


def rows(*instants: datetime, amount: float = 1.0) -> pl.DataFrame:
    return pl.DataFrame(
        {"user_id": 1, "at": list(instants), "amount": amount},
        schema_overrides={"at": pl.Datetime("us", "UTC")},
    )


LAST_DAY = datetime(9999, 12, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize("interval", ["1h", "1d", "1w"])
def test_a_file_whose_interval_ends_after_the_year_9999_is_set_aside_and_the_feature_goes_on(
    interval: str, engine: str, tmp_path: Path
) -> None:
    project = Project(tmp_path / "p", engine)
    spend = project.define(metrics=[Rolling("1w", {"amount": ["count"]})], interval=interval)
    project.drop("good", rows(START))
    project.drop("bad", rows(START, datetime.max.replace(tzinfo=UTC)))
    result = project.build(spend)
    assert result.changed
    [bad] = result.quarantined
    assert bad.path == "bad.parquet"
    assert f"the interval of {interval} in which it lies ends after the year 9999" in bad.reason
    assert project.store.read("spend")["amount__count__1w"].to_list() == [1]
    project.drop("later", rows(START + timedelta(days=30)))
    assert project.build(spend).rows == 2


def test_a_file_with_nothing_but_such_rows_is_one_error_that_says_so(tmp_path: Path) -> None:
    project = Project(tmp_path / "p", "polars")
    project.drop("bad", rows(LAST_DAY))
    spend = project.define(metrics=[Rolling("1d", {"amount": ["count"]})], interval="1d")
    with pytest.raises(BuildError, match="ends after the year 9999"):
        project.build(spend)


@pytest.mark.parametrize("are_settled", [True, False])
def test_an_interval_that_comes_later_sets_aside_what_was_good_without_it_and_goes_again(
    tmp_path: Path, are_settled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if are_settled:  # files that are looked at no more, as they are known
        monkeypatch.setattr(source_reading, "SETTLED_NS", -(10**18))
    project = Project(tmp_path / "p", "polars")
    metrics = [Rolling("1d", {"amount": ["count"]})]
    project.drop("good", rows(START))
    project.drop("bad", rows(LAST_DAY))
    assert project.build(project.define(metrics=metrics)).rows == 2
    result = project.build(project.define(metrics=metrics, interval="1d"))
    assert (result.rows, [bad.path for bad in result.quarantined]) == (1, ["bad.parquet"])
    result = project.build(project.define(metrics=metrics))
    assert (result.rows, result.quarantined) == (2, ())


def test_a_file_first_seen_with_an_interval_counts_once_the_interval_is_dropped(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path / "p", "polars")
    metrics = [Rolling("1d", {"amount": ["count"]})]
    project.drop("good", rows(START))
    project.drop("bad", rows(LAST_DAY))
    assert len(project.build(project.define(metrics=metrics, interval="1d")).quarantined) == 1
    result = project.build(project.define(metrics=metrics))
    assert (result.rows, result.quarantined) == (2, ())


@pytest.mark.parametrize("interval", [None, "1h"])
@pytest.mark.parametrize("ahead", [timedelta(days=2), timedelta(days=20_000)])
def test_one_event_far_ahead_leaves_the_watermark_where_the_data_are_and_is_reported(
    ahead: timedelta, interval: str | None, tmp_path: Path
) -> None:
    project = Project(tmp_path / "p", "polars")
    spend = project.define(metrics=[Rolling("2h", {"amount": ["sum"]})], interval=interval)
    now = START + timedelta(hours=5, minutes=30)
    with clock.fixed(now):
        project.drop("a", rows(START, START + timedelta(hours=1), START + ahead))
        result = project.build(spend)
        assert any("ahead of now; such rows count once" in warning for warning in result.warnings)
        first = project.store.read_metadata("spend")
    assert first.watermark == to_us(START + timedelta(hours=1))
    assert first.frontier == (first.watermark, to_us(START + ahead))
    step = timedelta(hours=1) if interval else timedelta(0)
    assert first.as_of(to_us(now)) == to_us(START + timedelta(hours=1) + step)
    with clock.fixed(now):
        project.drop("b", rows(START + timedelta(hours=3)))
        project.build(spend)
        second = project.store.read_metadata("spend")
    assert second.as_of(to_us(now)) == to_us(START + timedelta(hours=3) + step)
    # Once its time has come, it is the newest.
    then = to_us(START + ahead + timedelta(hours=1))
    assert second.as_of(then) == to_us(START + ahead + step)


def test_of_many_instants_ahead_some_are_kept_the_last_among_them(tmp_path: Path) -> None:
    project = Project(tmp_path / "p", "polars")
    spend = project.define(metrics=[Rolling("2h", {"amount": ["sum"]})])
    project.drop("a", rows(*(START + timedelta(minutes=n) for n in range(2500))))
    with clock.fixed(START):
        project.build(spend)
    manifest = project.store.read_metadata("spend")
    assert manifest.frontier[0] == to_us(START) == manifest.watermark
    assert manifest.frontier[-1] == to_us(START + timedelta(minutes=2499))
    assert 500 < len(manifest.frontier) <= 1001
    assert list(manifest.frontier) == sorted(set(manifest.frontier))


def test_where_all_events_lie_ahead_time_is_followed(tmp_path: Path) -> None:
    project = Project(tmp_path / "p", "polars")
    project.drop("a", rows(START))
    now = START - timedelta(days=3)
    with clock.fixed(now):
        project.build(project.define(metrics=[Rolling("2h", {"amount": ["sum"]})]))
    manifest = project.store.read_metadata("spend")
    assert manifest.watermark is None
    assert manifest.as_of(to_us(now)) == to_us(now)
    assert manifest.as_of(to_us(START) + 7) == to_us(START)


@pytest.mark.parametrize("interval", [None, "1d"])
def test_spines_and_explanations_reach_both_ends_of_time(
    interval: str | None, tmp_path: Path
) -> None:
    project = Project(tmp_path / "p", "polars")
    metrics = [Rolling("7d", {"amount": ["sum"]}, offset="1d")]
    first = datetime.min.replace(tzinfo=UTC)
    project.drop("a", rows(first, START))
    project.build(project.define(metrics=metrics, interval=interval))
    last = datetime.max.replace(tzinfo=UTC)
    spine = rows(first, first + timedelta(days=2), START + timedelta(days=2), last).drop("amount")
    answers = get_training_data(spine, ["spend"], project.store)
    assert answers["spend__amount__sum__7d__offset_1d"].to_list() == [None, 1.0, 1.0, None]
    for at in spine["at"]:
        explanation = explain("spend", {"user_id": 1}, project.store, at=at)
        explanation.to_json()
    for now in (first, last):
        with clock.fixed(now):
            assert explain("spend", {"user_id": 1}, project.store).to_json()["at"]
