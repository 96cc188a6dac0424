"""Both engines give the same rows, names, dtypes and nulls, and those that the oracle gives."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlforge import get_training_data
from mlforge.core.aggregations import AGGREGATIONS, aggregation, output_dtype
from mlforge.errors import BuildError, DataError
from mlforge.metrics import Rolling
from tests.support import agreement, kernels, oracle
from tests.support.projects import START, Project, identity

ALL = list(AGGREGATIONS)
ORDERED = [name for name in AGGREGATIONS if aggregation(name).kind.dtype("String")]
INTEGERS = [pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64]
NARROW = {"Int8", "Int16", "UInt16", "UInt32"}
"""Integers as wide as these are tried in the slow run, others of each kind in both."""
VALUES: dict[str, tuple[pl.DataType, list[Any], list[str]]] = {
    **{str(t): (t(), [0, 1, 2, 100, 127], ALL) for t in INTEGERS},
    "negative": (pl.Int32(), [-(2**31), -1, 0, 2**31 - 1], ALL),
    "Float32": (pl.Float32(), [0.5, -1.25, 1e10, float("nan"), float("inf")], ALL),
    "Float64": (pl.Float64(), [0.1, -2.5, 1e15, 1e-3, float("nan"), float("-inf")], ALL),
    "Decimal": (pl.Decimal(12, 2), [Decimal("0.01"), Decimal("-19.99"), Decimal("1e6")], ALL),
    "Boolean": (pl.Boolean(), [True, False], ALL),
    "String": (pl.String(), ["", "a", "B", "é", "日本", "a|b"], ORDERED),
    "Date": (pl.Date(), [date(1969, 12, 31), date(2026, 1, 5)], ORDERED),
    "Datetime": (pl.Datetime("us", "UTC"), [START, START + timedelta(microseconds=1)], ORDERED),
    "Time": (pl.Time(), [time(0), time(23, 59, 59, 999999)], ORDERED),
}
METRICS = {
    "continuous": (["1h", "1d"], None, None, None),
    "right": (["1h"], None, "right", None),
    "left": (["1h"], None, "left", None),
    "none": (["1h"], None, "none", None),
    "offset": (["1h"], None, None, "30m"),
    "aligned": (["1h", "1d"], "1h", None, None),
    "aligned with offset": (["2h"], "1h", None, "3h"),
}


def micros(instant: datetime) -> int:
    return (instant - datetime(1970, 1, 1, tzinfo=START.tzinfo)) // timedelta(microseconds=1)


def events(dtype: pl.DataType, values: list[Any], seed: int) -> pl.DataFrame:
    """Forty events of three users on a grid that hits window borders and ties."""
    draw = random.Random(seed)
    rows = [
        {
            "user_id": draw.randrange(3),
            "at": START
            + draw.randrange(12) * timedelta(minutes=30)
            + timedelta(microseconds=draw.choice([0, 0, 1, -1])),
            "amount": draw.choice([*values, None]),
        }
        for _ in range(40)
    ]
    schema = {"user_id": pl.Int64, "at": pl.Datetime("us", "UTC"), "amount": dtype}
    return pl.DataFrame(rows, schema=schema, strict=False)


def the_oracle(
    windows: list[str],
    interval: str | None,
    closed: str | None,
    offset: str | None,
    names: list[str],
) -> oracle.Feature:
    us = {"30m": 1800, "1h": 3600, "2h": 7200, "3h": 10800, "1d": 86400}
    return oracle.Feature(
        keys=("user_id",),
        columns=("user_id", "at", "amount"),
        timestamp="at",
        interval=us[interval] * 1_000_000 if interval else None,
        metrics=tuple(
            oracle.Metric(
                f"amount__{name}__{w}" + (f"__offset_{offset}" if offset else ""),
                "amount",
                name,
                us[w] * 1_000_000,
                us[offset] * 1_000_000 if offset else 0,
                closed or "both",
            )
            for name in names
            for w in windows
        ),
    )


def plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: agreement.plain(value) for name, value in row.items()}


def assert_agree(found: pl.DataFrame, expected: list[dict[str, oracle.Cell]], what: str) -> None:
    assert found.height == len(expected)
    for got, cells in zip(found.to_dicts(), expected, strict=True):
        for name, cell in cells.items():
            assert oracle.close(agreement.plain(got[name]), cell.value, cell.magnitude), (
                what,
                name,
                got,
                cell,
            )


# Every shape for one dtype, every dtype for one continuous and one aligned shape.
CASES = [("Float64", shape) for shape in METRICS] + [
    (kind, shape) for kind in VALUES if kind != "Float64" for shape in ("continuous", "aligned")
]


@pytest.fixture(params=["as it comes", "general", "point by point"])
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    with kernels.forced(**kernels.WAYS[request.param]):
        yield


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("way", "kind", "shape"),
    [
        pytest.param(way, kind, shape, marks=[pytest.mark.slow] if kind in NARROW else [])
        for way in kernels.WAYS
        for kind, shape in CASES
        if way != "tiled" or METRICS[shape][1]
    ],
    indirect=["way"],
)
def test_engines_agree_with_each_other_and_the_oracle(
    kind: str, shape: str, tmp_path: Path
) -> None:
    dtype, values, names = VALUES[kind]
    windows, interval, closed, offset = METRICS[shape]
    frame = events(dtype, values, seed=len(kind) + len(shape))
    metrics = [Rolling(windows, {"amount": names}, closed=closed, offset=offset)]  # type: ignore[arg-type]
    judge = the_oracle(windows, interval, closed, offset, names)
    kept = oracle.clean(judge, map(plain, frame.to_dicts()))
    spine = pl.DataFrame(
        {
            "user_id": [user for user in (0, 1, 2, 9) for _ in range(8)],
            "at": [START + timedelta(minutes=37 * i, microseconds=i % 2) for i in range(32)],
        }
    )
    asked = [((row["user_id"],), micros(row["at"])) for row in spine.to_dicts()]
    tables, answers = [], []
    for engine in ("polars", "duckdb"):
        project = Project(tmp_path / engine, engine)
        project.drop("all", frame)
        project.build(project.define(metrics=metrics, interval=interval))
        tables.append(project.store.read("spend"))
        answers.append(get_training_data(spine, ["spend"], project.store, engine=engine))
        assert_agree(tables[-1], oracle.stored(judge, kept), engine)
        values_only = answers[-1].select(pl.col("^spend__.*$").name.map(lambda name: name[7:]))
        assert_agree(values_only, oracle.training(judge, kept, asked), engine)
        told = {c.name: c.dtype for c in project.store.read_metadata("spend").columns}
        assert {name: told[name] for name in told if "__" in name} == {
            metric.name: output_dtype(metric.aggregation, told_dtype(dtype), "")
            for metric in judge.metrics
        }
    assert tables[0].schema == tables[1].schema
    assert answers[0].schema == answers[1].schema


def told_dtype(dtype: pl.DataType) -> str:
    from mlforge.frames.polars_schema import dtype_text

    return dtype_text(dtype)


WAYS_TO_SUM = [
    ("as it comes", None),
    ("general", None),
    ("point by point", None),
    ("as it comes", "1h"),
    ("tiled", "1h"),
]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("way", "interval"), WAYS_TO_SUM, indirect=["way"])
@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize(
    "values",
    [
        pl.Series([2**63 - 1, 1], dtype=pl.Int64),
        pl.Series([-(2**63), -1], dtype=pl.Int64),
        pl.Series([2**64 - 1, 0], dtype=pl.UInt64),
        pl.Series(["9" * 36 + ".99"] * 2, dtype=pl.String).cast(pl.Decimal(38, 2)),
    ],
    ids=["above", "below", "unsigned", "decimal"],
)
def test_a_sum_that_does_not_fit_is_an_error_that_names_the_column(
    engine: str, values: pl.Series, interval: str | None, tmp_path: Path
) -> None:
    project = Project(tmp_path / "p", engine)
    if values.dtype.is_decimal():
        values = pl.concat([values] * 60)
    project.drop("all", pl.DataFrame({"user_id": 1, "at": START, "amount": values}))
    with pytest.raises(BuildError, match="amount__sum__1d") as caught:
        project.build(project.define(metrics=[Rolling("1d", {"amount": "sum"})], interval=interval))
    assert isinstance(caught.value.failures["spend"], DataError)
    assert not project.store.features()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("way", "interval"), WAYS_TO_SUM, indirect=["way"])
def test_a_mean_of_decimals_whose_sum_does_not_fit_is_their_mean(
    interval: str | None, tmp_path: Path
) -> None:
    project = Project(tmp_path)
    amounts = pl.Series(["9" * 20 + ".5"] * 300).cast(pl.Decimal(38, 18))
    project.drop("all", pl.DataFrame({"user_id": 1, "at": START, "amount": amounts}))
    project.build(project.define(metrics=[Rolling("1d", {"amount": "mean"})], interval=interval))
    assert project.store.read("spend")["amount__mean__1d"].to_list() == [pytest.approx(1e20)]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("way", "interval"), WAYS_TO_SUM, indirect=["way"])
@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_a_sum_that_just_fits_is_exact(engine: str, interval: str | None, tmp_path: Path) -> None:
    project = Project(tmp_path / "p", engine)
    amounts = pl.Series([2**62, 2**62 - 1], dtype=pl.Int64)
    project.drop("all", pl.DataFrame({"user_id": 1, "at": START, "amount": amounts}))
    project.build(project.define(metrics=[Rolling("1d", {"amount": "sum"})], interval=interval))
    assert project.store.read("spend")["amount__sum__1d"].to_list() == [2**63 - 1]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_large_events_leave_no_trace_once_they_left_the_window(engine: str, tmp_path: Path) -> None:
    project = Project(tmp_path / "p", engine)
    amounts = [1e16, 1.0, -1e16, 0.1, 0.2, 0.3]
    times = [START + timedelta(hours=i) for i in range(6)]
    project.drop("all", pl.DataFrame({"user_id": 1, "at": times, "amount": amounts}))
    project.build(project.define(metrics=[Rolling("1h", {"amount": ["sum", "mean", "std"]})]))
    last = project.store.read("spend").row(-1, named=True)
    assert last["amount__sum__1h"] == pytest.approx(0.5, abs=1e-9)
    assert last["amount__std__1h"] == pytest.approx(0.0707106781, abs=1e-9)


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_a_result_that_is_not_finite_is_null(engine: str, tmp_path: Path) -> None:
    project = Project(tmp_path / "p", engine)
    project.drop("all", pl.DataFrame({"user_id": 1, "at": START, "amount": [1.7e308, 1.7e308]}))
    project.build(project.define(identity, metrics=[Rolling("1h", {"amount": ["sum", "max"]})]))
    row = project.store.read("spend").row(0, named=True)
    assert (row["amount__sum__1h"], row["amount__max__1h"]) == (None, 1.7e308)
