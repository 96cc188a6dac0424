"""Training sets and online values through the public API: spines, keys, times, versions."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from polars.testing import assert_frame_equal

from mlforge import aget_online_features, get_online_features, get_training_data
from mlforge.core import clock
from mlforge.engines import evaluation
from mlforge.errors import (
    BuildError,
    DataError,
    FeatureNotFound,
    IntegrityError,
    MlforgeError,
    NotServed,
    RetrievalError,
    VersionNotFound,
)
from mlforge.frames.interop import taken
from mlforge.maintenance.operations import prune
from mlforge.maintenance.retention import Retention
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.store import LocalStore
from tests.support.paths import ROOT
from tests.support.projects import Project, at, rows

SUM, COUNT = "spend__amount__sum__2d", "spend__amount__count__2d"
INDIA = timezone(timedelta(hours=5, minutes=30))
# What spend's two-day sum and count are for the spine below.
SUMS, COUNTS = [3.0, 5.0, 4.0, None, None], [2, 1, 1, 0, 0]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """`spend`, built: user 1 spends 1.0, 2.0 and 4.0 on days 0, 1 and 4, user 2 spends 5.0 on day 1.5."""
    project = Project(tmp_path_factory.mktemp("built") / "project")
    project.drop("a", rows((1, 0, 1.0), (2, 1.5, 5.0)))
    project.drop("b", rows((1, 1, 2.0), (1, 4, 4.0)))
    project.build()
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """The same in a folder of the test's own."""
    return built.copied(tmp_path / "project")


def spine(*asked: tuple[Any, Any], **columns: Any) -> pl.DataFrame:
    """The usual users and times, in no order and with one entity that nobody saw."""
    asked = asked or ((1, at(2)), (2, at(2)), (1, at(5)), (7, at(2)), (1, at(40)))
    users, times = zip(*asked, strict=True)
    return pl.DataFrame({"user_id": users, "at": times, **columns})


def training(project: Project, table: Any, **options: Any) -> Any:
    return get_training_data(table, ["spend"], project.store, **options)


# -- the spine's time column


def test_the_time_column_is_the_one_that_timestamp_names(project: Project) -> None:
    table = spine(label=[at(40)] * 5)
    assert training(project, table, timestamp="label")[COUNT].to_list() == [0] * 5


def test_the_time_column_is_else_the_features_own_name(project: Project) -> None:
    table = spine(label=[at(40)] * 5).select("label", "user_id", "at")
    assert training(project, table)[SUM].to_list() == SUMS


@pytest.mark.parametrize("extra", [{}, {"delay": [timedelta(1)] * 5, "text": ["2026-01-01"] * 5}])
def test_the_time_column_is_else_the_only_temporal_one(
    project: Project, extra: dict[str, Any]
) -> None:
    table = spine(**extra).rename({"at": "seen"})
    assert training(project, table)[SUM].to_list() == SUMS


def test_several_temporal_columns_are_refused_by_name(project: Project) -> None:
    table = spine(other=[date(2026, 1, 1)] * 5).rename({"at": "seen"})
    with pytest.raises(RetrievalError, match=r"several temporal columns \(seen, other\).*'at'"):
        training(project, table)


def test_a_spine_without_a_time_is_refused(project: Project) -> None:
    with pytest.raises(RetrievalError, match=r"no temporal column.*say which with timestamp="):
        training(project, spine().drop("at"))


def test_a_timestamp_that_the_spine_lacks_is_refused(project: Project) -> None:
    with pytest.raises(RetrievalError, match="no time column 'when'; it has user_id, at"):
        training(project, spine(), timestamp="when")


@pytest.mark.parametrize(
    ("dtype", "shown"),
    [(pl.String, "String"), (pl.Int64, "Int64"), (pl.Duration("us"), "Duration")],
)
def test_a_time_column_of_another_dtype_is_refused(
    project: Project, dtype: pl.DataType, shown: str
) -> None:
    table = spine().with_columns(pl.lit(None).cast(dtype).alias("at"))
    with pytest.raises(RetrievalError, match=f"'at' is {shown}.*Datetime or Date"):
        training(project, table)


def test_a_key_of_dates_is_not_taken_for_the_time(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    day = date(2026, 1, 1)
    events = rows((1, 0, 1.0)).with_columns(day=day)
    project.drop("a", events)
    feature = project.define(lambda df: df.select("day", "at", "amount"), keys=["day"])
    project.build(feature)
    table = pl.DataFrame({"day": [day], "seen": [at(1)]})
    assert training(project, table)[SUM].to_list() == [1.0]
    with pytest.raises(RetrievalError, match="no temporal column"):
        training(project, table.drop("seen"))


def test_times_that_no_calendar_has_are_refused(project: Project) -> None:
    far = pl.Series([2**62]).cast(pl.Datetime("ms"))
    with pytest.raises(RetrievalError, match="'at' holds times outside the years 1 to 9999"):
        training(project, pl.DataFrame({"user_id": [1], "at": far}))


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_the_first_and_last_instants_of_the_calendar_are_instants(
    project: Project, engine: str
) -> None:
    times = [end.replace(tzinfo=UTC) for end in (datetime.min, datetime.max)]  # noqa: DTZ901
    ends = spine(*((1, time) for time in times), (1, at(2)))
    assert training(project, ends, engine=engine)[COUNT].to_list() == [0, 0, 2]


# -- instants


TIMES: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "ms": lambda t: t.cast(pl.Datetime("ms", "UTC")),
    "us": lambda t: t,
    "ns": lambda t: t.cast(pl.Datetime("ns", "UTC")),
    "naive ms": lambda t: t.dt.replace_time_zone(None).cast(pl.Datetime("ms")),
    "naive us": lambda t: t.dt.replace_time_zone(None),
    "naive ns": lambda t: t.dt.replace_time_zone(None).cast(pl.Datetime("ns")),
    "zoned": lambda t: t.dt.convert_time_zone("America/St_Johns"),
    "Date": lambda t: t.dt.date(),
}


@pytest.mark.parametrize("kind", TIMES)
def test_every_kind_of_spine_time_gives_the_same_values(project: Project, kind: str) -> None:
    table = spine().with_columns(TIMES[kind](pl.col("at")))
    assert training(project, table)[SUM].to_list() == SUMS
    assert training(project, table)["at"].dtype == table["at"].dtype


@pytest.mark.parametrize("kind", TIMES)
def test_every_kind_of_event_time_gives_the_same_instants(tmp_path: Path, kind: str) -> None:
    usual, other = Project(tmp_path / "usual"), Project(tmp_path / "other")
    events = rows((1, 0, 1.0), (1, 1, 2.0), (2, 3, 5.0))
    usual.drop("a", events)
    other.drop("a", events.with_columns(TIMES[kind](pl.col("at"))))
    usual.build()
    other.build()
    assert_frame_equal(other.store.read("spend"), usual.store.read("spend"))


def test_an_offset_for_a_zone_is_the_same_instant_in_files_and_spines(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    zoned = pa.timestamp("ms", "+05:30")
    event = at(1).astimezone(INDIA)
    events = {"user_id": [1], "at": pa.array([event], zoned), "amount": [2.0]}
    pq.write_table(pa.table(events), project.events / "a.parquet")
    project.build()
    assert project.store.read("spend")["at"].to_list() == [at(1)]
    asked = [at(1).astimezone(INDIA), (at(1) - timedelta(milliseconds=1)).astimezone(INDIA)]
    arrow = pa.table({"user_id": [1, 1], "at": pa.array(asked, zoned)})
    pandas = pd.DataFrame({"user_id": [1, 1], "at": asked})
    assert str(pandas["at"].dtype) == "datetime64[us, UTC+05:30]"
    for table in (arrow, pandas):
        answer = training(project, table)
        assert [int(count) for count in answer[COUNT].to_numpy()] == [1, 0]
    assert training(project, arrow).schema.field("at").type == zoned
    assert training(project, pandas)["at"].dtype == pandas["at"].dtype


def test_a_naive_time_is_utc_and_nanoseconds_are_floored(project: Project) -> None:
    event = (
        86_400_000_000_000
        * (datetime(2026, 1, 2, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days
    )
    times = pl.Series([event - 1, event, event + 999]).cast(pl.Datetime("ns"))
    answer = training(project, pl.DataFrame({"user_id": [1, 1, 1], "at": times}))
    assert answer[COUNT].to_list() == [1, 2, 2]


# -- the spine's keys


@pytest.mark.parametrize(
    "dtype",
    [
        pl.Int8,
        pl.Int16,
        pl.Int32,
        pl.UInt8,
        pl.UInt16,
        pl.UInt32,
        pl.UInt64,
        pl.Float32,
        pl.Float64,
        pl.Int128,
        pl.UInt128,
        pl.String,
    ],
)
def test_spine_keys_of_other_widths_are_brought_to_the_features(
    project: Project, dtype: pl.DataType
) -> None:
    answer = training(project, spine().with_columns(pl.col("user_id").cast(dtype)))
    assert answer[SUM].to_list() == SUMS
    assert answer["user_id"].dtype == dtype


def test_a_spine_key_that_does_not_fit_the_features_width_was_never_seen(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    project.drop("a", rows((1, 0, 1.0)).with_columns(pl.col("user_id").cast(pl.Int8)))
    project.build()
    asked = pl.DataFrame({"user_id": [1, 257, -(2**63)], "at": [at(1)] * 3})
    assert training(project, asked)[COUNT].to_list() == [1, 0, 0]
    floats = asked.with_columns(pl.Series("user_id", [1.0, 257.0, float("inf")]))
    assert training(project, floats)[COUNT].to_list() == [1, 0, 0]


def test_float_ids_of_pandas_are_whole_or_missing(project: Project) -> None:
    ids = pd.Series([1, 2, 1, 7, None])
    assert ids.dtype == "float64"
    table = pd.DataFrame({"user_id": ids, "at": spine()["at"].to_list()})
    assert training(project, table)[COUNT].tolist() == COUNTS
    with pytest.raises(RetrievalError, match=r"spend: in the spine, key 'user_id': 1\.5 is no key"):
        training(project, table.assign(user_id=[1.5, 2, 1, 7, None]))
    with pytest.raises(RetrievalError, match="several whole numbers of that size"):
        training(project, table.assign(user_id=ids.astype("float32").replace(7, 2**24 + 1)))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("01", "'01' is not a whole number"),
        (True, "True is not a whole number"),
        (date(2026, 1, 1), "is not a whole number"),
        (at(1), "is no key; keys are whole numbers"),
        (Decimal(1), "is no key"),
        ([1], r"\[1\] is no key|\[\s*1\s*\] is no key"),
        (b"1", "b'1' is no key"),
        (2.0**53, "is a float, and several whole numbers"),
    ],
)
def test_a_spine_key_that_no_row_could_hold_is_refused_by_its_value(
    project: Project, value: Any, why: str
) -> None:
    with pytest.raises(RetrievalError, match=f"spend: in the spine, key 'user_id': .*{why}"):
        training(project, pl.DataFrame({"user_id": [value], "at": [at(1)]}))


def test_a_spine_without_the_key_is_refused(project: Project) -> None:
    with pytest.raises(RetrievalError, match="no key column 'user_id'; it has at"):
        training(project, spine().drop("user_id"))


def test_categories_are_strings(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    project.drop("a", rows((1, 0, 1.0)).with_columns(user_id=pl.lit("x")))
    project.build()
    plain = pl.DataFrame({"user_id": ["x", "y"], "at": [at(0)] * 2})
    for dtype in (pl.Categorical, pl.Enum(["y", "x"])):
        answer = training(project, plain.with_columns(pl.col("user_id").cast(dtype)))
        assert answer[COUNT].to_list() == [1, 0]
        assert answer["user_id"].dtype == dtype
    pandas = plain.to_pandas().astype({"user_id": "category"})
    assert training(project, pandas)[COUNT].tolist() == [1, 0]


def test_dates_of_pandas_are_keys_but_times_of_day_are_not(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    project.drop("a", rows((1, 0, 1.0)).with_columns(user_id=date(2026, 1, 1)))
    project.build()
    table = pd.DataFrame({"user_id": pd.to_datetime(["2026-01-01", None]), "at": [at(1)] * 2})
    assert training(project, table)[COUNT].tolist() == [1, 0]
    table["user_id"] += pd.Timedelta("1h")
    with pytest.raises(RetrievalError, match=r"key 'user_id': .* is no key"):
        training(project, table)


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize("metrics", [True, False])
def test_null_keys_and_times_are_never_matched(
    project: Project, engine: str, metrics: bool
) -> None:
    if not metrics:
        project.build(project.define(metrics=[]))
    name = SUM if metrics else "spend__amount"
    asked = spine((1, at(0)), (None, at(0)), (1, None), (None, None), (2, at(2)))
    answer = training(project, asked, engine=engine)
    assert answer[name].to_list() == [1.0, None, None, None, 5.0]
    if metrics:
        assert answer[COUNT].to_list() == [1, 0, 0, 0, 1]
    none = asked.with_columns(user_id=pl.lit(None), at=pl.lit(None))
    assert training(project, none, engine=engine)[name].to_list() == [None] * 5


# -- rows, columns and kinds of spines


def test_rows_keep_their_order_and_number(project: Project) -> None:
    table = pl.concat([spine(), spine().reverse(), spine()])
    answer = training(project, table)
    assert_frame_equal(answer.select("user_id", "at"), table)
    assert answer[SUM].to_list() == SUMS + SUMS[::-1] + SUMS
    assert answer[COUNT].to_list() == COUNTS + COUNTS[::-1] + COUNTS


def test_spine_columns_named_like_feature_columns_do_not_matter(project: Project) -> None:
    clutter = {"amount": ["x"] * 5, "amount__sum__2d": [None] * 5, "__point": [0] * 5}
    clutter |= {"__row": [0] * 5, "__entity": [0] * 5, "spend": [0] * 5}
    table = spine(**clutter)
    answer = training(project, table)
    assert_frame_equal(answer.select(table.columns), table)
    assert answer[SUM].to_list() == SUMS


def test_columns_of_the_names_that_come_are_refused(project: Project) -> None:
    with pytest.raises(RetrievalError, match=f"the spine has a column '{SUM}'"):
        training(project, spine(**{SUM: [0] * 5}))


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_an_empty_spine_gives_empty_typed_columns(project: Project, engine: str) -> None:
    answer = training(project, spine().clear(), engine=engine)
    assert_frame_equal(answer, training(project, spine(), engine=engine).clear())
    nothing = pd.DataFrame(columns=["user_id", "at"])
    assert list(training(project, nothing).columns[:2]) == ["user_id", "at"]
    assert training(project, nothing).empty


def test_a_lazy_spine_gives_a_lazy_answer(project: Project) -> None:
    answer = training(project, spine().lazy())
    assert isinstance(answer, pl.LazyFrame)
    assert_frame_equal(answer.collect(), training(project, spine()))


def test_a_polars_spine_comes_back_unchanged(project: Project) -> None:
    table = spine(
        nanos=pl.Series([1, 2, 3, 4, 5]).cast(pl.Datetime("ns", "Asia/Kolkata")),
        kind=pl.Series(["a", "b", "a", None, "b"], dtype=pl.Enum(["b", "a"])),
        parts=[[1], [], None, [2, 3], [4]],
        thing=pl.Series([object()] * 5, dtype=pl.Object),
    )
    answer = training(project, table)
    assert answer.schema == table.schema | {
        name: dtype for name, dtype in answer.schema.items() if name.startswith("spend__")
    }
    assert answer.columns[: table.width] == table.columns
    assert_frame_equal(answer.select(table.columns).drop("thing"), table.drop("thing"))
    assert answer["thing"].to_list() == table["thing"].to_list()


def test_a_pandas_spine_comes_back_unchanged(project: Project) -> None:
    usual = spine()
    table = pd.DataFrame(
        {
            "user_id": usual["user_id"].to_list(),
            "at": pd.Series(usual["at"].to_list()).dt.tz_convert("Europe/Berlin").array,
            "nanos": pd.Series([1, 2, 3, 4, 5]).astype("datetime64[ns]").array,
            "seconds": pd.Series([1, 2, 3, 4, 5]).astype("datetime64[s]").array,
            "kind": pd.Categorical(list("abacb"), categories=list("cba"), ordered=True),
            "whole": pd.array([1, None, 3, 4, 5], dtype="Int16"),
            "thing": [1, "two", None, {"four": 4}, [5]],
            "text": ["a", None, "c", "d", "e"],
            3: range(5),
        },
        index=pd.MultiIndex.from_tuples([("x", 1), ("x", 1), ("y", 2), ("a", 0), ("x", 1)]),
    )
    before = table.copy(deep=True)
    answer = training(project, table, timestamp="at")
    pd.testing.assert_frame_equal(answer[list(table.columns)], before)
    pd.testing.assert_frame_equal(table, before)
    assert answer[COUNT].tolist() == COUNTS
    assert answer[SUM].fillna(-1).tolist() == [3.0, 5.0, 4.0, -1, -1]


def test_a_pyarrow_spine_comes_back_unchanged(project: Project) -> None:
    table = pa.table(
        {
            "user_id": pa.array([1, 2, 1, 7, 1], pa.uint16()),
            "at": pa.array(spine()["at"].to_list(), pa.timestamp("ns", "UTC")),
            "kind": pa.array(list("abacb")).dictionary_encode(),
            "parts": pa.array([[{"a": 1}], [], None, [], []]),
        }
    ).replace_schema_metadata({"made": "here"})
    answer = training(project, table)
    assert answer.select(table.column_names).equals(table, check_metadata=True)
    assert answer.schema.metadata == table.schema.metadata
    assert answer[COUNT].to_pylist() == COUNTS
    assert answer[SUM].to_pylist() == SUMS


def test_pandas_finds_the_only_column_of_dates_and_refuses_mixtures(project: Project) -> None:
    table = pd.DataFrame({"user_id": [1, 2], "seen": [date(2026, 1, 3)] * 2, "text": ["2026", "x"]})
    assert training(project, table)[COUNT].tolist() == [2, 1]
    with pytest.raises(RetrievalError, match="the spine's column 'user_id' is not of one kind"):
        training(project, table.assign(user_id=[1, "x"]))
    with pytest.raises(RetrievalError, match="several columns 'user_id'"):
        training(project, pd.concat([table, table[["user_id"]]], axis=1))


def test_integers_with_nulls_stay_exact_in_pandas(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    large = 2**62 + 1
    project.drop("a", rows((1, 0, 0.0)).with_columns(amount=pl.lit(large, dtype=pl.Int64)))
    project.build()
    answer = training(project, pd.DataFrame({"user_id": [1, 2], "at": [at(0)] * 2}))
    assert answer[SUM].tolist()[0] == large
    assert answer[SUM].isna().tolist() == [False, True]


@pytest.mark.parametrize("dtype", [pl.Int8, pl.Int32, pl.UInt8, pl.UInt32, pl.UInt64])
def test_integers_of_any_size_come_back_in_pandas(dtype: pl.DataType) -> None:
    pandas = taken(pd.DataFrame({"user_id": [1, 2]}))
    for values in ([7, 0], [7, None], [None, None]):
        answer = pandas.with_values(pl.DataFrame({"x": pl.Series(values, dtype=dtype)}))["x"]
        assert answer.dropna().tolist() == [value for value in values if value is not None]
        assert answer.isna().tolist() == [value is None for value in values]


def test_a_spine_that_is_no_table_is_refused(project: Project) -> None:
    with pytest.raises(RetrievalError, match="a spine of dict is not supported; give a polars"):
        training(project, {"user_id": [1], "at": [at(0)]})


# -- features and versions


def profiles(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "city")


def with_profiles(project: Project) -> None:
    users = pl.DataFrame({"user_id": [1, 2], "city": ["Ulm", None]})
    (project.root / "users").mkdir()
    users.write_parquet(project.root / "users" / "a.parquet")
    project.build(
        project.define(profiles, name="profile", source="users", timestamp=None, metrics=[])
    )


def test_several_features_stand_side_by_side_in_the_order_asked(project: Project) -> None:
    with_profiles(project)
    project.build(project.define(name="raw", metrics=[]))
    answer = get_training_data(spine(), ["profile", "raw", "spend"], project.store)
    assert answer.columns[:4] == ["user_id", "at", "profile__city", "raw__amount"]
    assert answer.columns[4] == SUM
    assert answer["profile__city"].to_list() == ["Ulm", None, "Ulm", None, "Ulm"]
    assert answer["raw__amount"].to_list() == [2.0, 5.0, 4.0, None, 4.0]
    assert answer[SUM].to_list() == SUMS


def test_an_untimed_feature_needs_no_time(project: Project) -> None:
    with_profiles(project)
    asked = pl.DataFrame({"user_id": [2, 1, None, 1]})
    answer = get_training_data(asked, ["profile"], project.store)
    assert answer["profile__city"].to_list() == [None, "Ulm", None, "Ulm"]


def test_a_feature_of_keys_alone_adds_no_column(project: Project) -> None:
    project.build(
        project.define(
            lambda df: df.select("user_id", "at"), name="seen", metrics=[], timestamp="at"
        )
    )
    for table in (spine(), spine().to_pandas(), spine().to_arrow()):
        answer = get_training_data(table, ["seen"], project.store)
        assert type(answer) is type(table)
        assert answer.shape == table.shape


def test_of_one_instants_rows_the_last_by_its_other_columns_counts(project: Project) -> None:
    project.build(project.define(name="raw", metrics=[]))
    project.drop("c", rows((1, 4, 3.0), (1, 4, None), (1, 4, 9.0), (1, 4, 8.0)))
    project.build(project.define(name="raw", metrics=[]))
    asked = spine((1, at(4)), (1, at(3.9)), (1, at(-1)))
    answer = get_training_data(asked, ["raw"], project.store)
    assert answer["raw__amount"].to_list() == [9.0, 2.0, None]


def test_several_versions_of_one_feature_have_it_in_their_prefix(project: Project) -> None:
    project.drop("c", rows((2, 1, 100.0)))
    project.build()
    answer = get_training_data(spine(), [("spend", "1.0.0"), ("spend", "1.0.1")], project.store)
    assert answer["spend__1.0.0__amount__sum__2d"].to_list() == SUMS
    assert answer["spend__1.0.1__amount__sum__2d"].to_list() == [3.0, 105.0, 4.0, None, None]
    assert training(project, spine())[SUM].to_list() == [3.0, 105.0, 4.0, None, None]


@pytest.mark.parametrize("twice", [["spend", "spend"], ["spend", ("spend", "1.0.0")]])
def test_the_same_feature_twice_is_refused(project: Project, twice: list[Any]) -> None:
    with pytest.raises(RetrievalError, match=r"spend 1\.0\.0 is asked for twice"):
        get_training_data(spine(), twice, project.store)


def test_unknown_features_and_versions_are_refused_by_name(project: Project) -> None:
    with pytest.raises(FeatureNotFound, match="no feature 'spent'; there are: spend"):
        get_training_data(spine(), ["spent"], project.store)
    with pytest.raises(VersionNotFound, match=r"spend has no version 2\.0\.0; there are: 1\.0\.0"):
        get_training_data(spine(), [("spend", "2.0.0")], project.store)
    with pytest.raises(MlforgeError, match=r"'\.\./x'"):
        get_training_data(spine(), [("spend", "../x")], project.store)


@pytest.mark.parametrize("features", ["spend", [], [("spend",)], [("spend", 1)], [print], [None]])
def test_features_that_are_no_list_of_names_are_refused(project: Project, features: Any) -> None:
    with pytest.raises(RetrievalError, match="name"):
        get_training_data(spine(), features, project.store)


def test_a_pinned_version_gives_its_values_after_code_and_files_have_gone(
    project: Project,
) -> None:
    before = training(project, spine())
    project.build(
        project.define(lambda df: df.select("user_id", "at", amount=pl.col("amount") * 2))
    )
    assert training(project, spine())[SUM].to_list() == [6.0, 10.0, 8.0, None, None]
    project.build(project.define(metrics=[Rolling("1d", {"amount": ["max"]})]))
    shutil.rmtree(project.events)
    pinned = get_training_data(spine(), [("spend", "1.0.0")], LocalStore(project.store.path))
    assert_frame_equal(pinned, before)


def test_only_the_partials_that_a_window_touches_are_read(project: Project) -> None:
    project.drop("c", rows((1, 30, 8.0)))
    project.build()
    [late] = [p for p in project.store.read_metadata("spend").partials if p.rows == 1]
    Path(project.store.locate("spend", [late.hash])[0].file).write_bytes(b"damaged")
    assert training(project, spine((1, at(2)), (1, at(29))))[COUNT].to_list() == [2, 0]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"damaged")])
@pytest.mark.parametrize("metrics", [True, False])
def test_stored_events_that_are_damaged_are_named(
    project: Project, metrics: bool, damage: Callable[[Path], None]
) -> None:
    if not metrics:
        project.build(project.define(metrics=[]))
    for partial in project.store.read_metadata("spend").partials:
        damage(Path(project.store.locate("spend", [partial.hash])[0].file))
    with pytest.raises(IntegrityError, match="spend: what is stored cannot be read"):
        training(project, spine())


def test_the_store_alone_is_enough(project: Project) -> None:
    shutil.rmtree(project.events)
    code = (
        "import sys, polars as pl\n"
        "from datetime import datetime\n"
        "from mlforge import get_training_data\n"
        "from mlforge.store import LocalStore\n"
        "spine = pl.DataFrame({'user_id': [1], 'at': [datetime(2026, 1, 3)]})\n"
        "print(get_training_data(spine, ['spend'], LocalStore(sys.argv[1]))['%s'].to_list())\n"
        "assert 'mlforge.definitions.registry' not in sys.modules and 'duckdb' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code % SUM, str(project.store.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[3.0]\n"


# -- online


def push(project: Project, online: RedisStore, *features: Any) -> None:
    project.definitions(*features, online_store=online).build(online=True)


def test_online_values_come_in_the_order_asked_with_duplicates(
    project: Project, online: RedisStore
) -> None:
    push(project, online)
    asked = [{"user_id": user} for user in (2, 1, 2, 9, 1)]
    answers = get_online_features(["spend"], asked, online)
    assert [answer["user_id"] for answer in answers] == [2, 1, 2, 9, 1]
    assert [answer["spend__amount__sum__7d"] for answer in answers] == [5.0, 7.0, 5.0, None, 7.0]
    assert next(iter(answers[0])) == "user_id"
    assert get_online_features(["spend"], [], online) == []


def test_a_missing_key_means_empty_windows(project: Project, online: RedisStore) -> None:
    push(project, online)
    [answer] = get_online_features(["spend"], [{"user_id": 9}], online)
    empty = {"sum__2d": None, "sum__7d": None, "count__2d": 0, "count__7d": 0}
    assert answer == {"user_id": 9, **{f"spend__amount__{k}": v for k, v in empty.items()}}


def test_a_feature_without_books_is_not_served(project: Project, online: RedisStore) -> None:
    with pytest.raises(NotServed, match="spend is not served online: push it"):
        get_online_features(["spend"], [{"user_id": 1}], online)
    push(project, online)
    online.forget("spend")
    with pytest.raises(NotServed, match="spend is not served online"):
        get_online_features(["spend"], [{"user_id": 1}], online)
    with pytest.raises(NotServed, match="other is not served online"):
        get_online_features(["other"], [{"user_id": 1}], online)


def test_a_misspelt_name_in_a_request_is_answered_with_near_ones(
    project: Project, online: RedisStore
) -> None:
    push(project, online)
    spine = pl.DataFrame({"user_idd": [1], "when": [at(1)], "made": [at(2)]})
    keyed = spine.rename({"user_idd": "user_id"})
    store = project.store
    with pytest.raises(FeatureNotFound, match=r"did you mean 'spend'\?"):
        get_training_data(keyed, ["spnd"], store)
    elsewhere = LocalStore(project.root / "no_store")
    with pytest.raises(FeatureNotFound, match=r"'spend', nor any other in .*no_store; is that"):
        get_training_data(keyed, ["spend"], elsewhere)
    for text, works in (
        ("spend:amount__sum__7d", r"index it: spend\['amount__sum__7d'\]"),
        ("spend@1.0.0", r"the pair \('spend', '1.0.0'\)"),
        ("sp end", "give a feature, or its name"),
    ):
        with pytest.raises(RetrievalError, match=works):
            get_training_data(keyed, [text], store)
        with pytest.raises(RetrievalError, match=works):
            get_online_features([text], [{"user_id": 1}], online)
    with pytest.raises(RetrievalError, match=r"no key column 'user_id'.*did you mean 'user_idd'\?"):
        get_training_data(spine, ["spend"], store, timestamp="when")
    with pytest.raises(RetrievalError, match=r"no time column 'wen'.*did you mean 'when'\?"):
        get_training_data(keyed, ["spend"], store, timestamp="wen")
    asked = [{"user_id": 1}]
    with pytest.raises(NotServed, match=r"spnd is not served online \(did you mean 'spend'\?\)"):
        get_online_features(["spnd"], asked, online)
    with pytest.raises(NotServed, match=r"Spend is not served online \(did you mean 'spend'\?\)"):
        asyncio.run(aget_online_features(["spend", "Spend"], asked, online))
    with pytest.raises(NotServed, match="other is not served online: push it"):
        get_online_features(["other"], asked, online)


def test_an_unserved_feature_is_told_also_where_the_list_of_features_is_damaged(
    project: Project, online: RedisStore, redis_url: str
) -> None:
    push(project, online)
    with redis.Redis.from_url(redis_url) as client:
        client.set(f"{online.prefix}:_features", "no set")
    with pytest.raises(NotServed, match="spnd is not served online: push it"):
        get_online_features(["spnd"], [{"user_id": 1}], online)


def test_values_older_than_max_age_are_not_served(project: Project, online: RedisStore) -> None:
    push(project, online)  # as of day 4
    asked = [{"user_id": 1}]
    with clock.fixed(at(5)):
        assert get_online_features(["spend"], asked, online, max_age="1d")
        assert get_online_features(["spend"], asked, online, max_age=timedelta(days=1))
        with pytest.raises(
            NotServed, match=r"spend is served as of 2026-01-05.*older than max_age"
        ):
            get_online_features(["spend"], asked, online, max_age="23h")
        with pytest.raises(MlforgeError, match="max_age 'soon'"):
            get_online_features(["spend"], asked, online, max_age="soon")


def test_the_age_of_an_untimed_feature_is_that_of_its_last_push(
    project: Project, online: RedisStore
) -> None:
    with_profiles(project)
    feature = project.define(profiles, name="profile", source="users", timestamp=None, metrics=[])
    with clock.fixed(at(5)):
        push(project, online, feature)
    with clock.fixed(at(6)):
        assert get_online_features(["profile"], [{"user_id": 1}], online, max_age="1d")
        with pytest.raises(
            NotServed, match=r"profile was pushed at 2026-01-06.*older than max_age"
        ):
            get_online_features(["profile"], [{"user_id": 1}], online, max_age="23h")
    with clock.fixed(at(3)):  # or the pusher's clock was two days ahead
        with pytest.raises(NotServed, match=r"2026-01-06.*clock that was ahead"):
            get_online_features(["profile"], [{"user_id": 1}], online, max_age="1d")
        asked = [{"user_id": 1}]
        [row] = get_online_features(["profile"], asked, online, max_age="1d", details=True)
        assert {each.status for each in row["details"].values()} == {"stale"}


@pytest.mark.parametrize(
    "entity", [{}, {"user": 1}, {"user_id": 1, "x": 2}, {"user_id": None}, {"user_id": "x"}]
)
def test_wrong_keys_are_refused_by_name(
    project: Project, online: RedisStore, entity: dict[str, Any]
) -> None:
    push(project, online)
    with pytest.raises(RetrievalError, match="user_id"):
        get_online_features(["spend"], [{"user_id": 1}, entity], online)


def test_one_entity_in_place_of_a_list_is_refused(project: Project, online: RedisStore) -> None:
    push(project, online)
    entities: Any = {"user_id": 1}
    with pytest.raises(RetrievalError, match="entities must be a list of dicts"):
        get_online_features(["spend"], entities, online)
    with pytest.raises(RetrievalError, match="features must be a list of names"):
        get_online_features("spend", [entities], online)


def shops(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("shop", "user_id", "at", "amount")


def test_features_of_different_keys_are_asked_together(
    project: Project, online: RedisStore
) -> None:
    (project.root / "sales").mkdir()
    sales = rows((1, 0, 1.0), (2, 0, 3.0)).with_columns(shop=pl.Series(["x", "y"]))
    sales.write_parquet(project.root / "sales" / "a.parquet")
    by_shop = project.define(
        lambda df: df.select("shop", "at", "amount"), name="shop", keys=["shop"], source="sales"
    )
    by_both = project.define(shops, name="both", keys=["shop", "user_id"], source="sales")
    push(project, online, project.define(), by_shop, by_both)
    asked = [{"user_id": 1, "shop": "x"}, {"shop": "y", "user_id": 1}, {"user_id": 2, "shop": "?"}]
    answers = get_online_features(["shop", "spend", "both"], asked, online)
    found = [
        [answer[f"{name}__amount__sum__7d"] for name in ("shop", "spend", "both")]
        for answer in answers
    ]
    assert found == [[1.0, 7.0, 1.0], [3.0, 7.0, None], [None, 5.0, None]]
    with pytest.raises(RetrievalError, match="'shop' is missing"):
        get_online_features(["shop", "spend"], [{"user_id": 1}], online)


def test_ids_as_pandas_numpy_and_json_write_them_are_the_same_entity(
    project: Project, online: RedisStore
) -> None:
    push(project, online)
    ids = [1, 1.0, "1", pd.Series([1, None])[0], pd.Series([1])[0]]
    answers = get_online_features(["spend"], [{"user_id": value} for value in ids], online)
    assert [answer["spend__amount__sum__7d"] for answer in answers] == [7.0] * len(ids)
    for wrong, why in ((1.5, r"1\.5"), (-(2.0**53), "several whole numbers")):
        with pytest.raises(RetrievalError, match=why):
            get_online_features(["spend"], [{"user_id": wrong}], online)


def test_before_any_event_counts_are_zero_online_too(tmp_path: Path, online: RedisStore) -> None:
    project = Project(tmp_path / "project")
    project.drop("a", rows().clear())
    raw = project.define(name="raw", metrics=[])
    push(project, online, project.define(), raw)
    [answer] = get_online_features(["spend", "raw"], [{"user_id": 1}], online)
    assert (answer[COUNT], answer[SUM], answer["raw__amount"]) == (0, None, None)


# -- every dtype of key, from the file to the online store


KEYS: dict[str, pl.Series] = {
    **{
        f"{sign}Int{bits}": pl.Series([least, 0, greatest], dtype=getattr(pl, f"{sign}Int{bits}"))
        for bits in (8, 16, 32, 64)
        for sign, least, greatest in (
            ("", -(2 ** (bits - 1)), 2 ** (bits - 1) - 1),
            ("U", 1, 2**bits - 1),
        )
    },
    "String": pl.Series(["", "|", "1:a,", "ключ", "e\u0301", "\u00e9", "🦊", "a\0b", " 1", "1", "null", '"']),
    "Boolean": pl.Series([True, False]),
    "Date": pl.Series([date(1, 1, 1), date(1969, 12, 31), date(2026, 2, 28), date(9999, 12, 31)]),
}  # fmt: skip


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize("dtype", KEYS)
def test_every_dtype_of_key_is_the_same_in_training_and_online(
    tmp_path: Path, online: RedisStore, dtype: str, engine: str
) -> None:
    keys = KEYS[dtype].unique(maintain_order=True)
    project = Project(tmp_path / "project", engine)
    amounts = [float(index + 1) for index in range(len(keys))]
    events = pl.DataFrame({"user_id": keys, "at": [at(0)] * len(keys), "amount": amounts})
    project.drop("a", events)
    without_time = project.define(
        lambda df: df.select("user_id", "amount"), name="row", timestamp=None, metrics=[]
    )
    features = [project.define(), project.define(name="raw", metrics=[]), without_time]
    push(project, online, *features)
    names, columns = ["spend", "raw", "row"], [SUM, "raw__amount", "row__amount"]
    asked = pl.DataFrame({"user_id": keys, "at": [at(1)] * len(keys)}).reverse()
    trained = get_training_data(asked, names, project.store, engine=engine)
    served = get_online_features(names, asked.select("user_id").to_dicts(), online)
    for column in columns:
        assert trained[column].to_list() == amounts[::-1]
        assert [answer[column] for answer in served] == amounts[::-1]
    assert project.store.read("spend")["user_id"].dtype == keys.dtype


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_several_keys_together_are_one_entity(
    tmp_path: Path, online: RedisStore, engine: str
) -> None:
    entities = [
        {"a": first, "b": second, "c": True, "d": date(2026, 1, 1)}
        for first, second in [("x|", "y"), ("x", "|y"), ("", "x|y"), ("1", ""), ("", "1")]
    ]
    entities += [{**entities[0], "c": False}, {**entities[0], "d": date(2026, 1, 2)}]
    project = Project(tmp_path / "project", engine)
    amounts = [float(2**index) for index in range(len(entities))]
    events = pl.DataFrame(entities).with_columns(at=at(0), amount=pl.Series(amounts))
    project.drop("a", events)
    push(project, online, project.define(lambda df: df, keys=["d", "a", "c", "b"]))
    asked = events.select("c", "b", "at", "a", "d")
    assert training(project, asked, engine=engine)[SUM].to_list() == amounts
    assert [a[SUM] for a in get_online_features(["spend"], entities, online)] == amounts


# -- what is refused


NESTED = [[1.0]]
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a float key": ({"user_id": [1.0]}, {}, r"key 'user_id' is Float64.*cast\(pl\.Int64\)"),
    "a list as key": ({"user_id": [[1]]}, {}, r"key 'user_id' is List"),
    "an instant as key": ({"user_id": [at(0)]}, {}, r"key 'user_id' is Datetime.*dt\.date\(\)"),
    "a string timestamp": ({"at": ["2026-01-01"]}, {}, r"timestamp 'at' is String.*str\.to_datetime\('%Y"),
    "an integer timestamp": ({"at": [1]}, {}, r"timestamp 'at' is Int64.*from_epoch"),
    "a list under a sum": ({"amount": NESTED}, {}, r"column 'amount': sum of List\(Float64\) is not possible; count"),
    "a list of durations": ({"amount": [[timedelta(1)]]}, {"metrics": []}, r"column 'amount' is List.*within it"),
    "a struct of bytes": ({"amount": [{"a": b"x"}]}, {"metrics": []}, r"column 'amount' is Struct.*Binary within it"),
    "a duration": ({"amount": [timedelta(1)]}, {}, r"column 'amount' is Duration.*total_microseconds"),
    "the sum of strings": ({"amount": ["x"]}, {}, r"column 'amount': sum of String is not possible; count, min, max, .* would be"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_feature_can_hold_is_refused_by_name(tmp_path: Path, what: str) -> None:
    columns, changes, message = REFUSED[what]
    project = Project(tmp_path / "project")
    project.drop("a", rows((1, 0, 1.0)).with_columns(pl.Series(k, v) for k, v in columns.items()))
    with pytest.raises(BuildError, match=message):
        project.build(project.define(**changes))


COMPUTED: dict[str, tuple[pl.DataType, list[str], str]] = {
    "Int128": (pl.Int128(), ["count"], r"column 'amount' is Int128.*cast\(pl\.Int64\)"),
    "the least Enum": (pl.Enum(["1.0"]), ["min"], r"column 'amount' is Enum.*its min could go by"),
    "the greatest Enum": (pl.Enum(["1.0"]), ["max"], r"column 'amount' is Enum.*its max could go by"),
}  # fmt: skip


@pytest.mark.parametrize("what", COMPUTED)
def test_dtypes_that_only_a_function_makes_are_refused_by_name(tmp_path: Path, what: str) -> None:
    dtype, aggregations, message = COMPUTED[what]
    project = Project(tmp_path / "project")
    project.drop("a", rows((1, 0, 1.0)))

    def function(df: pl.DataFrame) -> pl.DataFrame:
        text = pl.col("amount").cast(pl.String)
        number = pl.col("amount")
        return df.with_columns(amount=(number if dtype == pl.Int128 else text).cast(dtype))

    with pytest.raises(BuildError, match=message) as refused:
        project.build(project.define(function, metrics=[Rolling("1d", {"amount": aggregations})]))
    assert isinstance(refused.value.failures["spend"], (DataError, MlforgeError))


def test_an_enum_is_counted_and_served_as_a_string(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    kinds = pl.Series("amount", ["b", "a"], dtype=pl.Enum(["b", "a"]))
    project.drop("a", rows((1, 0, 1.0), (1, 0, 1.0)).with_columns(kinds))
    project.build(project.define(metrics=[Rolling("2d", {"amount": ["count"]})]))
    assert training(project, spine())[COUNT].to_list() == [2, 0, 0, 0, 0]


# -- the machine's time zone


ZONED = """
import sys
from datetime import datetime
from pathlib import Path
import pandas as pd, polars as pl
from tests.support.projects import Project, at, rows
from mlforge import get_training_data
from mlforge.core import clock
from mlforge.metrics import Rolling

project = Project(Path(sys.argv[1]), sys.argv[2])
naive = pl.col("at").dt.replace_time_zone(None)
project.drop("a", rows((1, 0, 1.0), (1, 0.99, 2.0), (2, 2, 3.0)).with_columns(naive))
project.drop("b", rows((1, 1, 1.0), (2, 3.2, 2.0)).with_columns(naive))
daily = project.define(name="daily", interval="1d", metrics=[Rolling("1d", {"amount": "sum"})])
day = project.define(lambda df: df.with_columns(pl.col("at").dt.date()), name="day")
with clock.fixed(datetime(2026, 2, 1)):
    project.definitions(project.define(), daily, day).build()
hours = [datetime(2026, 1, 1 + h // 24, h % 24) for h in range(0, 96, 5)]
for spine in (
    pl.DataFrame({"user_id": [1, 2] * 10, "at": hours}),
    pl.DataFrame({"user_id": [1, 2] * 10, "at": [hour.date() for hour in hours]}),
    pd.DataFrame({"user_id": [1.0, 2.0] * 10, "at": hours}),
):
    data = get_training_data(spine, ["spend", "daily", "day"], project.store, engine=sys.argv[2])
    print(data.to_csv() if isinstance(data, pd.DataFrame) else data.write_csv())
for name in project.store.features():
    manifest = project.store.read_metadata(name)
    print(name, manifest.watermark, manifest.rows_hash, manifest.content_hash)
    print(project.store.read(name).write_csv())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "elsewhere"),
    [
        ("polars", "Asia/Kolkata"),
        pytest.param("duckdb", "America/St_Johns", marks=pytest.mark.slow),
        pytest.param("polars", "America/St_Johns", marks=pytest.mark.slow),
        pytest.param("duckdb", "Asia/Kolkata", marks=pytest.mark.slow),
    ],
)
def test_nothing_depends_on_the_machines_time_zone(
    tmp_path: Path, engine: str, elsewhere: str
) -> None:
    printed = {}
    for zone in ("UTC", elsewhere):
        folder = tmp_path / zone.replace("/", "-")
        done = subprocess.run(
            [sys.executable, "-c", ZONED, str(folder), engine],
            capture_output=True,
            env={**os.environ, "TZ": zone},
            cwd=ROOT,
            check=True,
        )
        lines = done.stdout.splitlines()
        printed[zone] = [line for line in lines if b"[info" not in line]
    assert len(printed["UTC"]) > 60
    assert printed[elsewhere] == printed["UTC"]


# -- names, versions, and versions that go


def test_two_columns_that_would_have_one_name_are_refused_in_any_order(
    project: Project, online: RedisStore
) -> None:
    nested = project.define(
        lambda df: df.select("user_id", "at", b__x="amount"), name="a", metrics=[]
    )
    plain = project.define(
        lambda df: df.select("user_id", "at", x="amount"), name="a__b", metrics=[]
    )
    push(project, online, nested)
    push(project, online, plain)
    spine = rows((1, 4, None)).select("user_id", "at")
    for names in (["a", "a__b"], ["a__b", "a"]):
        told = r"'b__x' of a|'x' of a__b"
        with pytest.raises(RetrievalError, match=told) as caught:
            get_online_features(names, [{"user_id": 1}], online)
        assert "'a__b__x'" in str(caught.value)
        with pytest.raises(RetrievalError, match=told) as caught:
            get_training_data(spine, names, project.store)
        assert "one at a time" in str(caught.value)
    for name in ("a", "a__b"):
        assert "a__b__x" in get_online_features([name], [{"user_id": 1}], online)[0]


def test_a_key_of_a_column_s_name_is_refused(project: Project, online: RedisStore) -> None:
    other = project.define(
        lambda df: df.select("at", "amount", a__x="user_id"), name="other", keys=["a__x"]
    )
    clash = project.define(lambda df: df.select("at", "user_id", x="amount"), name="a", metrics=[])
    push(project, online, other)
    push(project, online, clash)
    with pytest.raises(RetrievalError, match="key 'a__x', which a gives too"):
        get_online_features(["other", "a"], [{"a__x": 1, "user_id": 1}], online)


def test_training_s_list_is_taken_online_and_its_versions_are_checked(
    project: Project, online: RedisStore
) -> None:
    push(project, online)
    asked = [{"user_id": 1}]
    served = get_online_features(["spend"], asked, online)
    assert get_online_features([("spend", "1.0.0")], asked, online) == served
    assert get_online_features(["spend", ("spend", "1.0.0")], asked, online) == served
    project.drop("more", rows((1, 4, 1.0)))
    push(project, online)
    with pytest.raises(NotServed, match=r"spend 1\.0\.0 is not served online, 1\.0\.1 is"):
        get_online_features([("spend", "1.0.0")], asked, online)
    assert get_online_features([("spend", "1.0.1")], asked, online)
    for wrong in ([("spend", "1.0")], [("spend", 1)], [("spend",)], [5], [None], []):
        with pytest.raises(RetrievalError):
            get_online_features(wrong, asked, online)  # type: ignore[arg-type]


def test_a_version_that_is_pruned_while_it_is_read_is_read_again_or_named(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system that knows no leases, or by somebody who asks for none."""
    project.drop("b", rows((1, 4, 100.0)))
    spine = rows((1, 4, None)).select("user_id", "at")
    evaluate = evaluation.values_at

    def prune_first(*arguments: Any) -> pl.DataFrame:
        monkeypatch.undo()
        project.build()
        prune(project.store, ["spend"], Retention(newest=1))
        return evaluate(*arguments)

    def no_lease(*_: Any) -> nullcontext[None]:
        return nullcontext()

    expected = [100.0]
    monkeypatch.setattr(LocalStore, "lease", no_lease)
    monkeypatch.setattr(evaluation, "values_at", prune_first)
    assert get_training_data(spine, ["spend"], project.store)[SUM].to_list() == expected
    project.drop("b", rows((1, 4, 200.0)))
    monkeypatch.setattr(LocalStore, "lease", no_lease)
    monkeypatch.setattr(evaluation, "values_at", prune_first)
    with pytest.raises(
        VersionNotFound, match=r"spend 1\.0\.1 was pruned while it was read.*mlforge pin"
    ):
        get_training_data(spine, [("spend", "1.0.1")], project.store)


def test_damaged_events_are_damage_and_no_prune(project: Project) -> None:
    project.build()
    for path in (project.store.path / "spend" / "_partials").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(IntegrityError, match="mlforge verify"):
        get_training_data(rows((1, 4, None)).select("user_id", "at"), ["spend"], project.store)


OWN = rows((1, 0, None), (1, 1, None), (2, 1.5, None), (1, 4, None)).select("user_id", "at")


@pytest.mark.parametrize(
    ("closed", "table", "warned"),
    [
        (None, OWN, True),
        ("right", OWN.reverse(), True),
        ("left", OWN, False),
        ("none", OWN, False),
        (None, OWN.with_columns(pl.col("at") + timedelta(microseconds=1)), False),
        (None, OWN.with_columns(pl.col("user_id") + 50), False),
        (None, OWN.head(0), False),
    ],
    ids=["both", "right", "left", "none", "a moment later", "other users", "empty"],
)
def test_a_spine_of_the_feature_s_own_events_is_warned_of_where_windows_count_them(
    project: Project,
    capsys: pytest.CaptureFixture[str],
    closed: Any,
    table: pl.DataFrame,
    warned: bool,
) -> None:
    project.build(project.define(metrics=[Rolling("2d", {"amount": "sum"}, closed=closed)]))
    capsys.readouterr()
    get_training_data(table, ["spend"], project.store)
    captured = capsys.readouterr()
    assert ("the feature's own events" in captured.out + captured.err) is warned


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (
            lambda feature: feature.name,
            r"; write \['spend'\] for the feature of that name; a service",
        ),
        (lambda feature: feature, "; write it in brackets"),
        (lambda feature: feature["amount__sum__7d"], "; write it in brackets"),
        (lambda _: 7, "not 7$"),
    ],
    ids=["a name", "a feature", "some columns", "something else"],
)
def test_what_is_given_in_place_of_a_list_of_features_is_told_how_to_be_one(
    one: Any, told: str, tmp_path: Path
) -> None:
    project = Project(tmp_path)
    feature = project.define()
    with pytest.raises(RetrievalError, match=told):
        get_training_data(rows((1, 0, 1.0)), one(feature), store=project.store, timestamp="at")
