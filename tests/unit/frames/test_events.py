"""Events: one time zone, counted losses, and refusals that say what would mend them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import polars as pl
import pytest

from mlforge.core.feature_spec import FeatureSpec
from mlforge.core.schema import Column
from mlforge.core.values import to_us
from mlforge.errors import ColumnNotFound, DataError
from mlforge.frames import polars_schema
from mlforge.frames.future import future_warning
from mlforge.frames.normalize import Dropped, EventFrame, normalise
from mlforge.frames.polars_schema import UTC_INSTANT
from mlforge.metrics import Rolling

WHERE = "spend: a.parquet"
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def spec(
    *metrics: Rolling, keys: tuple[str, ...] = ("k",), timestamp: str | None = "t"
) -> FeatureSpec:
    return FeatureSpec.of(
        "spend", keys=keys, timestamp=timestamp, interval=None, metrics=metrics, online_clock="data"
    )


def normal(*metrics: Rolling, **columns: object) -> EventFrame:
    """Events of columns beside a key and a time that nobody minds."""
    frame = pl.DataFrame({"k": [1], "t": [NOON], **columns})
    return normalise(spec(*metrics), frame, WHERE)


def refusal(*metrics: Rolling, **columns: object) -> str:
    with pytest.raises(DataError) as caught:
        normal(*metrics, **columns)
    return str(caught.value)


# Time.


@pytest.mark.parametrize("unit", ["ns", "us", "ms"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_every_datetime_becomes_utc_microseconds(unit, zone):
    given = pl.Series([NOON]).dt.replace_time_zone(None).cast(pl.Datetime(unit))
    given = given if zone is None else given.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    events = normal(t=given, other=given)
    assert events.frame.schema["t"] == events.frame.schema["other"] == UTC_INSTANT
    assert events.frame["t"].to_list() == events.frame["other"].to_list() == [NOON]
    assert events.naive is (zone is None)


def test_nanoseconds_are_floored_before_the_epoch_too():
    given = pl.Series([-1999, -1000, -1, 0, 999, 1999]).cast(pl.Datetime("ns"))
    events = normal(k=[1] * 6, t=given)
    assert events.frame["t"].to_physical().to_list() == [-2, -1, -1, 0, 0, 1]


def test_an_hour_that_local_clocks_show_twice_stays_two_instants():
    instants = [datetime(2024, 10, 27, hour, 30, tzinfo=UTC) for hour in (0, 1)]
    given = pl.Series(instants).dt.convert_time_zone("Europe/Berlin")
    assert normal(k=[1, 1], t=given).frame["t"].to_list() == instants


def test_a_date_as_timestamp_is_its_midnight_and_elsewhere_stays_a_date():
    events = normal(t=[date(1969, 7, 20)], day=[date(2024, 5, 1)])
    assert events.frame["t"].to_list() == [datetime(1969, 7, 20, tzinfo=UTC)]
    assert events.frame.schema["day"] == pl.Date
    assert not events.naive


@pytest.mark.parametrize(
    "given",
    [
        pl.Series([2**62]).cast(pl.Datetime("ms", "UTC")),
        pl.Series([2**62]).cast(pl.Datetime("us")),
        pl.Series([-(2**62)]).cast(pl.Datetime("us")),
        pl.Series([2**30], dtype=pl.Int32).cast(pl.Date),
    ],
)
def test_an_event_time_beyond_the_calendar_is_refused(given):
    assert "no time between the years 1 and 9999; check the unit" in refusal(t=given)


def test_another_instant_is_refused_only_if_microseconds_cannot_hold_it():
    far = pl.Series([2**55]).cast(pl.Datetime("us"))
    assert normal(until=far).frame["until"].to_physical().to_list() == [2**55]
    beyond = pl.Series([0, 2**62]).cast(pl.Datetime("ms"))
    within = (beyond.implode(), beyond.reshape((1, 2)), pl.select(pl.struct(a=beyond)).to_series())
    for given in (beyond.tail(1), *(each.tail(1) for each in within)):
        assert "'until' holds" in refusal(until=given)


# Rows that are left out, values that become null.


def test_rows_without_key_or_time_are_left_out_and_counted_once():
    frame = pl.DataFrame(
        {
            "a": [1, None, 1, None, 1],
            "b": ["x", "x", None, "x", "x"],
            "t": [NOON, NOON, NOON, None, None],
            "v": [1.0, float("nan"), 2.0, 3.0, 4.0],
        }
    )
    events = normalise(spec(keys=("a", "b")), frame, WHERE)
    assert events.dropped == Dropped(null_key=3, null_time=1, non_finite=0)
    assert events.frame["v"].to_list() == [1.0]


def test_floats_that_are_not_finite_become_null_in_every_column():
    nan, inf = float("nan"), float("inf")
    events = normal(
        k=[1, 2, 3],
        t=[NOON] * 3,
        x=[nan, 1.5, None],
        y=pl.Series([inf, -inf, 2], dtype=pl.Float32),
    )
    assert events.dropped == Dropped(non_finite=3)
    assert events.frame["x"].to_list() == [None, 1.5, None]
    assert events.frame["y"].to_list() == [None, None, 2.0]
    assert events.frame.schema["y"] == pl.Float32


def test_a_column_without_any_value_stays_null_also_as_key_or_time():
    assert normal(x=[None]).frame.schema["x"] == pl.Null
    assert normal(k=[None]).dropped == Dropped(null_key=1)
    timeless = normal(t=[None])
    assert timeless.dropped == Dropped(null_time=1)
    assert timeless.frame.schema["t"] == UTC_INSTANT


def test_no_rows_are_fine():
    frame = pl.DataFrame({"k": [1], "t": [NOON], "x": [1.0]}).clear()
    events = normalise(spec(), frame, WHERE)
    assert (events.frame.height, events.dropped) == (0, Dropped())


# Order.


def test_rows_are_sorted_by_time_then_keys_and_ties_keep_their_order():
    later = NOON + timedelta(microseconds=1)
    frame = pl.DataFrame(
        {
            "v": range(5),
            "b": ["y", "x", "x", "x", "x"],
            "t": [NOON, later, NOON, NOON, NOON],
            "a": [1, 1, 2, 1, 1],
        }
    )
    events = normalise(spec(keys=("a", "b")), frame, WHERE)
    assert events.frame["v"].to_list() == [3, 4, 0, 2, 1]
    assert events.frame.columns == ["v", "b", "t", "a"]
    assert events.frame.n_chunks() == 1


def test_rows_without_a_timestamp_are_sorted_by_keys():
    frame = pl.concat(
        [pl.DataFrame({"k": ["b", "a"]}), pl.DataFrame({"k": [None, "A"]})], rechunk=False
    )
    events = normalise(spec(timestamp=None), frame, WHERE)
    assert events.frame["k"].to_list() == ["A", "a", "b"]
    assert (events.dropped, events.naive) == (Dropped(null_key=1), False)


# Columns.


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Enum(["b", "a"])])
def test_categories_become_strings_also_as_keys(dtype):
    events = normal(
        k=pl.Series(["b", "a"], dtype=dtype), t=[NOON] * 2, c=pl.Series(["b", None], dtype=dtype)
    )
    assert events.frame["k"].to_list() == ["a", "b"]
    assert events.frame["c"].to_list() == [None, "b"]
    assert {events.frame.schema[name] for name in ("k", "c")} == {pl.String}


@pytest.mark.parametrize(
    "key", [[1], ["a"], [True], [date(2024, 1, 1)], pl.Series([1], dtype=pl.UInt8)]
)
def test_keys_are_integers_strings_booleans_or_dates(key):
    assert normal(k=key).frame.schema["k"] == pl.Series(key).dtype


def test_what_features_hold_is_kept_as_it_is():
    given = {
        "i": pl.Series([1], dtype=pl.Int8),
        "d": [Decimal("1.10")],
        "b": [True],
        "m": [time(1, 2)],
        "z": [-0.0],
    }
    kept = normal(**given).frame.select(*given)
    assert kept.equals(pl.DataFrame(given))
    assert kept.schema == pl.DataFrame(given).schema
    assert str(kept["z"].item()) == "-0.0"


@pytest.mark.parametrize("missing", ["k", "t", "amount"])
def test_a_missing_column_is_named_with_those_there_are(missing):
    frame = pl.DataFrame({"k": [1], "t": [NOON], "amount": [1.0]}).drop(missing)
    with pytest.raises(
        ColumnNotFound, match=f"spend: a.parquet: no column '{missing}'; there are "
    ):
        normalise(spec(Rolling("1d", {"amount": "sum"})), frame, WHERE)


@pytest.mark.parametrize(
    ("key", "mend"),
    [
        (
            [1.0],
            "use pl.col('k').cast(pl.Int64) (pandas turns integers with missing values into floats)",
        ),
        ([NOON], "use pl.col('k').dt.date()"),
        (
            [b"a"],
            "use pl.col('k').cast(pl.String) if it holds text, else .bin.encode(\"hex\"), under "
            "@feature(incremental=True), as nothing proves functions of .bin row-wise",
        ),
        ([Decimal(1)], "use pl.col('k').cast(pl.String)"),
        (pl.Series([1], dtype=pl.Int128), "use pl.col('k').cast(pl.Int64)"),
    ],
)
def test_another_key_is_refused_with_the_cast_that_would_do(key, mend):
    told = refusal(k=key)
    assert told.startswith("spend: a.parquet: key 'k' is ")
    assert told.endswith(mend)


@pytest.mark.parametrize(
    ("given", "mend"),
    [
        (
            ["2024-05-01"],
            "use pl.col('t').str.to_datetime('%Y-%m-%d %H:%M:%S'), or the format that it has",
        ),
        (
            [1714564800],
            'use pl.from_epoch(\'t\', time_unit="s"), or "ms" or "us" as the column counts',
        ),
        ([1714564800.5], "pl.from_epoch(pl.col('t').cast(pl.Int64), time_unit=\"s\")"),
        ([time(1)], "use a column of Datetime"),
    ],
)
def test_another_timestamp_is_refused_with_the_parse_that_would_do(given, mend):
    assert mend in refusal(t=given)


@pytest.mark.parametrize(
    ("given", "mend"),
    [
        ([timedelta(1)], "pl.col('x').dt.total_microseconds()"),
        ([[timedelta(1)]], "pl.col('x').cast(pl.List(pl.String)), or of another dtype within"),
        ([{"a": timedelta(1)}], "pl.col('x').struct.field(...)"),
        ([b"a"], "pl.col('x').cast(pl.String)"),
        (pl.Series([[b"a"]], dtype=pl.Array(pl.Binary, 1)), "pl.col('x').cast(pl.List(pl.String))"),
        (pl.Series([1], dtype=pl.Int128), "pl.col('x').cast(pl.Int64)"),
        (pl.Series([1], dtype=pl.UInt128), "pl.col('x').cast(pl.UInt64)"),
        (pl.Series([1], dtype=pl.Float16), "pl.col('x').cast(pl.Float32)"),
        (pl.Series([object()]), "select() with the columns you need"),
    ],
)
def test_a_column_that_cannot_be_held_is_refused_by_name(given, mend):
    told = refusal(x=given)
    assert told.startswith("spend: a.parquet: column 'x' is ")
    assert mend in told


@pytest.mark.parametrize("aggregation", ["min", "max"])
def test_the_least_and_greatest_of_an_enum_are_refused(aggregation):
    enum = pl.Series(["low"], dtype=pl.Enum(["low", "high"]))
    told = refusal(Rolling("1d", {"level": ["count", aggregation]}), level=enum)
    assert f"its {aggregation} could go by its order or its letters; use pl.col('level')" in told
    assert normal(Rolling("1d", {"level": "count"}), level=enum).frame.schema["level"] == pl.String


def test_names_kept_for_mlforge_are_refused_and_the_index_of_pandas_is_recognised():
    assert refusal(__rows=[1]).endswith("kept for mlforge; rename it")
    assert "write with index=False" in refusal(__index_level_0__=[1])


# Local time taken for UTC.


def test_a_naive_time_ahead_of_now_is_warned_of_with_its_zone():
    now = to_us(NOON)
    ahead = now + to_us(datetime(1970, 1, 1, 8, 59, 30, tzinfo=UTC))
    told = future_warning(ahead, now, WHERE, naive=True, timestamp="t")
    assert told is not None
    assert "spend: a.parquet: the newest 't' is 8:59:30 ahead of now" in told
    assert "pl.col('t').dt.replace_time_zone('Etc/GMT-9') (UTC+9)" in told
    mended = pl.select(pl.lit(ahead).cast(pl.Datetime("us")).dt.replace_time_zone("Etc/GMT-9"))
    assert normal(t=mended.to_series()).frame["t"].to_physical().item() <= now


def test_no_warning_within_an_hour_or_with_a_zone():
    now = to_us(NOON)
    hour = 3_600_000_000
    assert future_warning(now + hour, now, WHERE, naive=True) is None
    assert future_warning(now + hour + 1, now, WHERE, naive=True) is not None
    assert future_warning(now + 9 * hour, now, WHERE, naive=False) is None


def test_a_time_further_ahead_than_any_zone_blames_the_unit():
    now, widest = to_us(NOON), 14 * 3_600_000_000
    for ahead in (now * 1000, now + widest + 1):
        assert "check the column's unit" in str(future_warning(ahead, now, WHERE, naive=True))
    assert "Etc/GMT-14" in str(future_warning(now + widest, now, WHERE, naive=True))


@pytest.mark.parametrize("name", ["*", "^a.*$"])
def test_a_column_name_that_polars_takes_for_a_pattern_is_refused(name):
    assert refusal(**{name: [1]}) == (
        f"{WHERE}: polars takes the column name {name!r} for a pattern; rename it"
    )


def test_columns_that_are_nowhere_come_as_nulls_for_each_row():
    frame = pl.LazyFrame({"k": [1, 2, 3]})
    wanted = (Column("x", "String"),)
    assert (
        polars_schema.select_typed(frame, {"k": "Int64"}, wanted).collect().rows() == [(None,)] * 3
    )


@pytest.mark.parametrize(
    "dtype",
    [
        pl.Int8(),
        pl.Decimal(10, 2),
        pl.Datetime("ms", "America/New_York"),
        pl.Datetime("ns"),
        pl.Duration("us"),
        pl.List(pl.Struct({"a b": pl.Datetime("us", "UTC"), "c": pl.Array(pl.Int8, 2)})),
        pl.Enum(["x", "y"]),
        pl.Categorical(),
    ],
)
def test_the_text_of_a_dtype_says_all_of_it(dtype):
    assert polars_schema.parse_dtype(polars_schema.dtype_text(dtype)) == dtype


@pytest.mark.parametrize("text", ["", "open", "Int64.x", "__import__('os')", "read_csv('x')"])
def test_a_text_that_is_no_dtype_is_refused(text):
    with pytest.raises(DataError, match="no dtype"):
        polars_schema.parse_dtype(text)
