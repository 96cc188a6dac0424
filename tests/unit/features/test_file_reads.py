"""A function that reads files by itself is found out, however it does so."""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import pathlib
import sqlite3
import time
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet
import pytest

from mlforge.features.file_reads import files_in_code, files_read

SCHEMA = pl.Schema({"k": pl.Int64, "v": pl.Float64})
PATH = pathlib.Path(__file__).parent / "none.parquet"  # replaced by the fixture
FRAME = pl.DataFrame({"k": [1], "w": [2.0]})
PLAN = pl.LazyFrame()
QUERY = "select k from 'table.parquet'"
TABLES = duckdb.connect()
DATABASE = VIEWS = duckdb.connect()
_kept: Any = None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tables and databases, which no function of these tests changes."""
    path = tmp_path_factory.mktemp("tables")
    FRAME.write_parquet(path / "table.parquet")
    FRAME.write_csv(path / "table.csv")
    with (
        contextlib.chdir(path),
        pytest.MonkeyPatch.context() as monkeypatch,
        duckdb.connect(path / "dim.duckdb") as database,
        duckdb.connect() as views,
    ):
        views.execute("create view dim as select * from 'table.parquet'")
        monkeypatch.setitem(globals(), "DATABASE", database)
        monkeypatch.setitem(globals(), "VIEWS", views)
        yield path


@pytest.fixture(autouse=True)
def table(folder, monkeypatch):
    path = folder / "table.parquet"
    monkeypatch.setitem(globals(), "PATH", path)
    monkeypatch.setitem(globals(), "PLAN", pl.scan_parquet(path))
    monkeypatch.setitem(globals(), "_kept", None)
    monkeypatch.chdir(folder)


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


def limit_of_database(df):
    [(limit,)] = duckdb.connect().execute("select max(k) from 'table.parquet'").fetchall()
    return df.filter(pl.col("k") <= limit)


def opens_database(df):
    [(limit,)] = duckdb.connect("dim.duckdb", read_only=True).execute("select 1").fetchall()
    return df.filter(pl.col("k") <= limit)


def attaches_database(df):
    with duckdb.connect() as connection:
        connection.execute("attach 'dim.duckdb' as dim")
    return df


def imports_within(df):
    import duckdb as engine

    return df.join(engine.sql("from 'table.parquet'").pl().lazy(), on="k")


def computes_in_duckdb(df):
    rows = df.collect() if isinstance(df, pl.LazyFrame) else df  # noqa: F841 - named in the SQL
    return duckdb.sql("select k, v, extract(year from now()) as y from rows where v > 0").pl()


def computes_in_sql(df):
    """Joins from 'nothing' else."""
    return df.sql("select k, v from self where v > 0")


def from_constants_of_duckdb(df):
    [(one,)] = TABLES.cursor().execute("select 1").fetchall()
    return df.filter(pl.col("k") > one)


def columns_named_as_readers(df):
    return df.select("k", v=pl.col("v").alias("read_parquet")).rename({"v": "dataset"})


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
    "sql of a frame": lambda df: pl.sql(f"SELECT * FROM read_csv('{PATH}')", eager=True),
    "duckdb": lambda df: df.join(duckdb.sql("from 'table.parquet'").pl(), on="k"),
    "duckdb by a name made at run": lambda df: duckdb.sql(f"select * from '{PATH}'").pl(),
    "duckdb by a constant": lambda df: duckdb.sql(QUERY).pl(),
    "duckdb by a quoted name": lambda df: duckdb.sql('from "table.parquet"').pl(),
    "duckdb by a function": lambda df: duckdb.sql("from read_csv_auto('table.csv')").pl(),
    "duckdb's reader": lambda df: duckdb.read_parquet("table.parquet").pl(),
    "duckdb's reader of a connection": lambda df: TABLES.read_csv("table.csv").pl(),
    "duckdb on a connection of its own": limit_of_database,
    "duckdb imported within": imports_within,
    "a database file of duckdb": opens_database,
    "a database that is attached": attaches_database,
    "a constant on a database file": lambda df: df.join(DATABASE.sql("from dim").pl(), on="k"),
    "a constant with a view of files": lambda df: df.join(VIEWS.sql("from dim").pl(), on="k"),
    "arrow's csv": lambda df: pl.from_arrow(pyarrow.csv.read_csv("table.csv")),
    "arrow's handle": lambda df: df.with_columns(n=pl.lit(len(pyarrow.OSFile("table.csv").read()))),
    "arrow's map": lambda df: df.with_columns(n=pl.lit(pyarrow.memory_map("table.csv").size())),
    "pandas": lambda df: pl.from_pandas(pd.read_parquet("table.parquet")),
    "a folder's names": lambda df: df.with_columns(n=pl.lit(len(os.listdir()))),  # noqa: PTH208
    "a folder's entries": lambda df: df.with_columns(n=pl.lit(len(list(os.scandir())))),
    "a folder that is walked": lambda df: df.with_columns(n=pl.lit(len(list(os.walk("."))))),
    "a glob": lambda df: df.with_columns(n=pl.lit(len(glob.glob("*.csv")))),  # noqa: PTH207
    "a path's glob": lambda df: df.with_columns(n=pl.lit(len(list(pathlib.Path().glob("*"))))),
    "a path's entries": lambda df: df.with_columns(n=pl.lit(len(list(PATH.parent.iterdir())))),
    "whether a file is there": lambda df: df if PATH.exists() else df.head(0),
    "whether a file is there, of old": lambda df: df if os.path.exists(PATH) else None,  # noqa: PTH110
    "a file's time": lambda df: df.with_columns(n=pl.lit(PATH.stat().st_mtime)),
    "a file's size": lambda df: df.with_columns(n=pl.lit(os.path.getsize(PATH))),  # noqa: PTH202
    "whether a file may be read": lambda df: df if os.access(PATH, os.R_OK) else None,
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
    "duckdb over the rows": computes_in_duckdb,
    "sql over the rows": computes_in_sql,
    "a constant in duckdb's memory": from_constants_of_duckdb,
    "columns named as readers": columns_named_as_readers,
    "a path that is only put together": lambda df: df.with_columns(
        n=pl.lit(str(PATH.parent / "x"))
    ),
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


NATIVE = (
    "a frame read",
    "arrow",
    "arrow's",
    "pandas",
    "duckdb",
    "a database that",
    "a constant on",
)


@pytest.mark.parametrize("how", [how for how in READS if how.startswith(NATIVE)])
def test_a_read_that_only_rows_lead_to_is_seen_in_the_code(how):
    reads = READS[how]

    def branches(df):
        rows = df.lazy().collect()
        return reads(rows) if rows.height else rows

    assert files_in_code(branches)
    assert files_read(branches, SCHEMA, {})


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
