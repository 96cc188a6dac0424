"""A function that reads files by itself is found out, however it does so."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import sqlite3
import time
from typing import Any

import numpy as np
import polars as pl
import pyarrow.dataset
import pyarrow.parquet
import pytest

from mlforge.features.file_reads import files_read

SCHEMA = pl.Schema({"k": pl.Int64, "v": pl.Float64})
PATH = pathlib.Path(__file__).parent / "none.parquet"  # replaced by the fixture
FRAME = pl.DataFrame({"k": [1], "w": [2.0]})
PLAN = pl.LazyFrame()
_kept: Any = None


@pytest.fixture(autouse=True)
def table(tmp_path, monkeypatch):
    path = tmp_path / "table.parquet"
    FRAME.write_parquet(path)
    FRAME.write_csv(tmp_path / "table.csv")
    monkeypatch.setitem(globals(), "PATH", path)
    monkeypatch.setitem(globals(), "PLAN", pl.scan_parquet(path))
    monkeypatch.setitem(globals(), "_kept", None)


@functools.cache
def cached():
    return pl.read_parquet(PATH)


def kept():
    global _kept  # noqa: PLW0603 - what is being found out
    if _kept is None:
        _kept = pl.read_parquet(PATH)
    return _kept


def opens(df):
    with open(PATH, "rb") as file:  # noqa: PTH123
        return df.filter(pl.col("k") > len(file.read()))


def reads_sqlite(df):
    with contextlib.closing(sqlite3.connect(PATH.with_suffix(".db"))) as connection:
        connection.execute("select 1")
    return df


def computes_in_sqlite(df):
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        [(one,)] = connection.execute("select 1").fetchall()
    return df.filter(pl.col("k") > one)


class Settings:
    """A class that can read, used for what it holds."""

    threshold = 3.0

    @classmethod
    def load(cls):
        return open(PATH)  # noqa: PTH123 - never called


READS = {
    "a scan joined": lambda df: df.join(pl.scan_parquet(PATH), on="k"),
    "a frame read": lambda df: df.join(pl.read_parquet(PATH), on="k"),
    "a frame read, lazily joined": lambda df: df.lazy().join(pl.read_parquet(PATH).lazy(), on="k"),
    "a csv": lambda df: df.join(pl.scan_csv(PATH.with_suffix(".csv")), on="k"),
    "a scan that is a constant": lambda df: df.join(PLAN, on="k"),
    "a constant collected": lambda df: df.join(PLAN.collect(), on="k"),
    "open": opens,
    "a database file": reads_sqlite,
    "a path's bytes": lambda df: df.with_columns(n=pl.lit(len(PATH.read_bytes()))),
    "open once the frame is no lazy one": lambda df: df.to_dict() and PATH.read_bytes() and df,
    "open behind a clock": lambda df: time.time() and PATH.read_bytes() and df,
    "a helper that keeps it": lambda df: df.join(cached(), on="k"),
    "a global that keeps it": lambda df: df.join(kept(), on="k"),
    "arrow": lambda df: df.join(pl.from_arrow(pyarrow.parquet.read_table(PATH)), on="k"),
    "arrow's file": lambda df: pl.from_arrow(pyarrow.parquet.ParquetFile(PATH).read()),
    "arrow's dataset": lambda df: pl.scan_pyarrow_dataset(pyarrow.dataset.dataset(PATH)),
    "numpy": lambda df: df.with_columns(n=pl.lit(len(np.fromfile(PATH, dtype=np.uint8)))),
    "sql": lambda df: pl.SQLContext(t=df).execute(f"SELECT * FROM read_parquet('{PATH}')"),
    "a descriptor": lambda df: (os.close(os.open(PATH, os.O_RDONLY)), df)[1],
    "concat": lambda df: pl.concat([df.lazy(), pl.scan_parquet(PATH)], how="diagonal"),
}
READS_NOT = {
    "a database in memory": computes_in_sqlite,
    "a filter": lambda df: df.filter(pl.col("v") > 0),
    "groups": lambda df: df.group_by("k").agg(pl.len()),
    "rows as they are": lambda df: pl.DataFrame(df.to_dicts(), schema=df.schema),
    "a frame that is a constant": lambda df: df.lazy().join(FRAME.lazy(), on="k"),
    "a clock": lambda df: df.with_columns(n=pl.lit(time.time())),
    "a class that could read": lambda df: df.filter(pl.col("v") > Settings.threshold),
    "a time zone": lambda df: df.with_columns(
        t=pl.lit("2026-01-01").str.to_datetime("%Y-%m-%d").dt.replace_time_zone("Europe/Berlin")
    ),
    "a marker that it leaves": lambda df: (PATH.with_name("at_work").touch(), df)[1],
    "a log that it writes": lambda df: (PATH.with_name("log").write_text("at work"), df)[1],
    "a failure": lambda df: 1 / 0,
    "a panic": lambda df: df.map_rows(lambda row: row[7]),
}


@pytest.mark.parametrize("how", READS)
def test_a_function_that_reads_files_is_found_out_and_stays_so(how):
    function = READS[how]
    if how == "a helper that keeps it":
        cached()  # as it is after a first call
    assert files_read(function, SCHEMA, {})
    assert files_read(function, SCHEMA, {})


@pytest.mark.parametrize("how", READS_NOT)
def test_a_function_that_reads_no_file_is_not_taken_for_one(how):
    assert files_read(READS_NOT[how], SCHEMA, {}) is None


def test_tables_that_are_given_are_no_reads():
    def joined(df, merchants):
        return df.lazy().join(merchants.lazy(), on="k")

    assert files_read(joined, SCHEMA, {"merchants": FRAME.schema}) is None


@pytest.mark.parametrize("fails_at", ["lazy", "eager"])
def test_a_lack_of_memory_is_no_answer_and_nothing_is_called_after_it(fails_at: str) -> None:
    calls = []

    def hungry(df: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
        calls.append("lazy" if isinstance(df, pl.LazyFrame) else "eager")
        raise MemoryError if calls[-1] == fails_at else ValueError

    with pytest.raises(MemoryError):
        files_read(hungry, pl.Schema({"x": pl.Int64}), {})
    assert calls[-1] == fails_at
