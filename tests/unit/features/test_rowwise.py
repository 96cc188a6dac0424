"""A zoo of feature functions: which are proven to treat each row alone, and that it is true."""

from __future__ import annotations

import logging
import os
import random
import socket
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import polars.selectors as cs
import pytest
from polars.testing import assert_frame_equal

from mlforge.features import row_wise
from mlforge.features.row_wise import Proof, prove

ROWS = 24
LIMIT = 3
CODES = {"a": "alpha", "b": "beta"}
CITIES = pl.DataFrame({"i": [0, 1, 2], "city": ["Rome", "Oslo", "Lima"]})
TOTAL = pl.col("j") * pl.col("x")
RNG = np.random.default_rng(0)
c = pl.col


def frame() -> pl.DataFrame:
    """Nulls, NaN, infinities, repeats, empty text and lists, in no order."""
    dice = random.Random(7)

    def column(choices: list[object]) -> list[object]:
        return [dice.choice(choices) for _ in range(ROWS)]

    moments = [
        datetime(2024, m, d, h, 59, 7, 1234)  # noqa: DTZ001
        for m, d, h in [(1, 31, 0), (2, 29, 12), (12, 1, 23)]
    ]
    return pl.DataFrame(
        {
            "i": column([None, -3, 0, 1, 2, 2, 7]),
            "j": column([1, 2, 3, 5]),
            "x": column([None, float("nan"), float("inf"), -1.5, 0.0, 2.25, 1e9]),
            "s": column([None, "", "a", "b", "aB c", "x,y", " é1 ", "a1b22"]),
            "p": column(["a", "b", ",", "1"]),
            "when": column(["2024-01-31 10:00", "2024-02-29 23:59"]),
            "number": column(["12", "-7", "0"]),
            "money": column(["1.50", "22.75"]),
            "js": column(['{"k":1}', '{"k":null}']),
            "hex": column(["6162", "00"]),
            "d": column([None, date(2024, 2, 29), date(2023, 12, 31), date(1969, 7, 20)]),
            "n": column([None, *moments]),
            "t": column([None, *(m.replace(tzinfo=UTC) for m in moments)]),
            "span": column([None, timedelta(days=-1, seconds=7), timedelta(milliseconds=3)]),
            "l": column([None, [], [1], [3, None, 1], [2, 2]]),
            "full": column([[5, 4, 6], [1, 2, 3]]),
            "ls": column([None, [], ["a"], ["b", "a", "b"]]),
            "st": column([{"u": 1, "v": "a"}, {"u": None, "v": "b"}]),
            "ok": column([None, True, False]),
            "dec": column([None, Decimal("1.25"), Decimal("-0.50")]),
        },
        schema_overrides={
            "dec": pl.Decimal(10, 2),
            "l": pl.List(pl.Int64),
            "ls": pl.List(pl.String),
        },
        strict=False,
    ).with_columns(
        ar=c("full").list.to_array(3),
        cat=c("p").cast(pl.Categorical),
        kind=c("p").cast(pl.Enum(["a", "b", ",", "1"])),
    )


WHOLE = frame()
SCHEMA = WHOLE.schema
Function = Callable[..., Any]


def select(*columns: pl.Expr, **named: pl.Expr) -> Function:
    return lambda df: df.select("j", *columns, **named)


def each(owner: object, names: str, prefix: str = "") -> list[pl.Expr]:
    return [getattr(owner, prefix + name)().alias(name) for name in names.split()]


def helper(df: pl.LazyFrame) -> pl.LazyFrame:
    return df.filter(c("j") > LIMIT)


def by_attribute(df: pl.LazyFrame) -> pl.LazyFrame:
    return df.select(pl.col.i + pl.col.j, z=pl.col.t.dt.time())


def columns_by_name(df: pl.LazyFrame) -> pl.LazyFrame:
    return df.select([name for name in df.columns if len(name) == 1])


def branch_on_schema(df: pl.LazyFrame) -> pl.LazyFrame:
    wide = "st" in df.collect_schema()
    return df.select("i") if wide else df.select("j").unique()


def logs(df: pl.LazyFrame) -> pl.LazyFrame:
    logging.getLogger("zoo").warning("called")
    return df.select("i")


PROVEN: dict[str, Function] = {
    "identity": lambda df: df,
    "projection": lambda df: df.select("i", c("x").alias("y")),
    "filter": lambda df: df.filter(c("i") > 0, c("s").is_not_null()),
    "filter by keyword": lambda df: df.filter(j=2),
    "filter on a constant": lambda df: df.select("i").filter(pl.lit(True) & pl.lit(value=True)),
    "remove": lambda df: df.remove(c("i") > 0),
    "with_columns": lambda df: df.with_columns(z=c("i") + 1, one=pl.lit(1)),
    "with_columns of constants only": lambda df: df.with_columns(one=pl.lit(1), two=pl.lit("x")),
    "drop": lambda df: df.drop("i"),
    "rename": lambda df: df.rename({"i": "k"}),
    "rename with a function": lambda df: df.rename(str.upper),
    "drop_nulls": lambda df: df.drop_nulls(),
    "drop_nans": lambda df: df.drop_nans("x"),
    "cast of a frame": lambda df: df.cast({"i": pl.Float64, "j": pl.String}),
    "fill_null of a frame": lambda df: df.fill_null(0),
    "fill_null of a frame by zero": lambda df: df.select("i", "x").fill_null(strategy="zero"),
    "fill_nan of a frame": lambda df: df.fill_nan(0),
    "unnest": lambda df: df.unnest("st"),
    "sql": lambda df: df.sql("SELECT i + 1 AS k, upper(s) AS s FROM self WHERE j > 1"),
    "selectors": lambda df: df.select(cs.numeric(), cs.by_name("s")),
    "column names": columns_by_name,
    "a branch on the schema": branch_on_schema,
    "columns as attributes": by_attribute,
    "a helper": helper,
    "a chain of helpers": lambda df: df.pipe(helper).pipe(by_attribute),
    "a constant from outside": lambda df: df.filter(c("j") > LIMIT).select(TOTAL.alias("total")),
    "a literal out of another frame": lambda df: df.filter(c("i") < CITIES.height),
    "a column beside a constant": lambda df: df.select("i", one=pl.lit(1)),
    "a fixed instant": lambda df: df.filter(c("t") > datetime(2024, 1, 1, tzinfo=UTC)),
    "an instant that is parsed": lambda df: df.filter(c("n") > datetime.strptime("2024", "%Y")),  # noqa: DTZ007
    "logging": logs,
    "operators": select(
        a=c("i") + c("j"), b=c("i") - 1, c=c("x") * 2, d=c("i") / c("j"), e=c("i") // c("j"), f=c("i") % 3,
        g=(c("i") > 1) & c("ok"), h=(c("i") <= 1) | c("ok"), k=c("ok") ^ True, l=~c("ok"), m=c("i").eq_missing(2),
        n=c("i").ne_missing(c("j")), o=c("i") != 2, p=c("s") + "!", q=c("x") >= 0, r=c("i") < 2,
        s=c("i") & 3, t=c("dec") + c("dec"),
    ),
    "arithmetic": select(
        a=c("i").abs(), b=-c("i"), c=c("x").sign(), d=c("x").floor(), e=c("x").ceil(), f=c("x").round(1),
        g=c("x").round_sig_figs(2), h=c("x").truncate(), i=c("x").sqrt(), k=c("x").cbrt(), l=c("x").exp(),
        m=c("x").log(), n=c("x").log10(), o=c("x").log1p(), p=c("x") ** 2, q=c("i").pow(2), r=c("x").clip(0, 2),
        s=c("x").clip(c("j")), t=c("x").erf(), u=c("x").erfc(), v=c("j").reinterpret(dtype=pl.UInt64),
    ),
    "trigonometry": select(
        *each(c("x"), """sin cos tan cot sinh cosh tanh arcsin arccos arctan arcsinh arccosh arctanh
        degrees radians"""),
        two=pl.arctan2("x", "j"),
    ),
    "bits": select(
        *each(c("i"), """count_ones count_zeros leading_ones
        leading_zeros trailing_ones trailing_zeros""", "bitwise_"),
    ),
    "predicates": select(
        a=c("i").is_between(0, 2), b=c("x").is_close(2.25), c=c("x").is_finite(), d=c("x").is_infinite(),
        e=c("x").is_nan(), f=c("x").is_not_nan(), g=c("x").is_null(), h=c("x").is_not_null(), k=c("ok").not_(),
        l=c("i").is_between(c("j"), 7),
    ),
    "is_in a literal": select(
        a=c("i").is_in([1, 2]), b=c("s").is_in({"a", "b"}), c=c("d").is_in([date(2024, 2, 29)]),
        d=c("i").is_in(pl.Series([1, 2])), e=c("i").is_in([]), f=c("j").is_in(CITIES["i"]),
    ),
    "is_in a list of the row": select(a=c("i").is_in(c("l")), b=c("p").is_in("ls")),
    "choices": select(
        a=c("i").fill_null(0), b=c("i").fill_null(c("j")), c=c("x").fill_nan(None), d=pl.coalesce("i", "j", 0),
        e=pl.when(c("i") > 1).then(c("x")).otherwise(0), f=pl.when(c("ok")).then(1).when(c("i") > 0).then(c("j")),
        g=c("i").fill_null(strategy="zero"), h=c("i").fill_null(strategy="one"), k=c("s").repeat_by(c("j")),
    ),
    "replacements": select(
        a=c("s").replace(CODES), b=c("s").replace_strict(CODES, default=None), c=c("j").replace([1, 2], [2, 1]),
        d=c("j").replace_strict({1: "x"}, default=c("p"), return_dtype=pl.String),
        e=c("i").replace_strict(CITIES["i"], CITIES["city"], default=None),
    ),
    "across columns": select(
        a=pl.sum_horizontal("i", "j"), b=pl.mean_horizontal("i", "x"), c=pl.max_horizontal("i", "x", 2),
        d=pl.min_horizontal("i", "j"), e=pl.all_horizontal("ok", c("i") > 1, c("j") > 1), f=pl.any_horizontal("ok", c("i") > 1),
        g=pl.concat_str("s", "p", separator="-", ignore_nulls=True), h=pl.concat_list("i", "j"), k=pl.struct("i", "s"),
        l=pl.format("{}:{}", "i", "p"),
    ),
    "casts": select(
        a=c("i").cast(pl.Float64), b=c("number").cast(pl.Int32), c=c("x").cast(pl.String),
        d=c("p").cast(pl.Categorical), e=c("cat").cast(pl.String), f=c("t").cast(pl.Date), g=c("d").cast(pl.Datetime("us")),
        h=c("l").cast(pl.List(pl.Float64)), k=c("kind").cast(pl.String), l=c("money").cast(pl.Decimal(10, 2)),
        m=c("n").cast(pl.Int64), o=c("number").cast(pl.Int8, strict=False),
    ),
    "text": select(
        *each(c("s").str, """to_lowercase to_uppercase to_titlecase len_chars
        len_bytes strip_chars strip_chars_start strip_chars_end reverse escape_regex normalize"""),
        a=c("s").str.contains("a"), b=c("s").str.contains(c("p"), literal=True), c=c("s").str.starts_with("a"),
        d=c("s").str.ends_with("b"), e=c("s").str.replace("a", "z"), f=c("s").str.replace_all("a", c("p")),
        g=c("s").str.extract(r"(\d+)"), h=c("s").str.extract_all(r"\d"), i=c("s").str.extract_groups(r"(?<x>\d)(?<y>b)?"),
        k=c("s").str.count_matches("a"), l=c("s").str.find("b"), m=c("s").str.slice(1, 2), n=c("s").str.head(1),
        o=c("s").str.tail(2), p=c("s").str.pad_start(5, "0"), q=c("s").str.pad_end(5), r=c("s").str.zfill(5),
        s=c("s").str.strip_prefix("a"), t=c("s").str.strip_suffix("c"), u=c("number").str.to_integer(),
        v=c("money").str.to_decimal(scale=2), w=c("s").str.contains_any(["a", "é"]), x=c("s").str.replace_many(CODES),
        y=c("s").str.extract_many(["a", "b"]), z=c("s").str.find_many(["a", "b"]),
    ),
    "text to parts": select(
        a=c("s").str.split(","), b=c("s").str.split(c("p")), c=c("s").str.split_exact(",", 1),
        d=c("s").str.splitn(",", 2), e=c("s").str.split(r"\d", literal=False), f=c("js").str.json_path_match("$.k"),
        g=c("js").str.json_decode(pl.Struct({"k": pl.Int64})), h=c("s").str.encode("hex"), k=c("s").str.encode("base64"),
        l=c("hex").str.decode("hex"), m=pl.lit("YWI=").str.decode("base64") + c("hex").str.decode("hex"),
    ),
    "text to times, by a format": select(
        a=c("when").str.to_datetime("%Y-%m-%d %H:%M"), b=c("when").str.strptime(pl.Date, "%Y-%m-%d", exact=False),
        c=c("when").str.to_datetime("%Y-%m-%d %H:%M", time_unit="us", time_zone="UTC"),
        d=c("when").str.slice(11).str.to_time("%H:%M"), e=c("s").str.to_date("%Y", strict=False),
    ),
    "parts of times": select(
        *each(c("t").dt, """year month day hour minute second millisecond
        microsecond nanosecond quarter week weekday ordinal_day iso_year is_leap_year days_in_month century
        millennium date time epoch timestamp month_start month_end base_utc_offset dst_offset"""),
        *each(c("span").dt, """days hours minutes seconds milliseconds
        microseconds nanoseconds""", "total_"),
    ),
    "times": select(
        a=c("t").dt.truncate("1d"), b=c("t").dt.round("1h"), c=c("t").dt.offset_by("1mo"), d=c("t").dt.strftime("%Y"),
        e=c("t").dt.convert_time_zone("Asia/Tokyo"), f=c("n").dt.replace_time_zone("UTC"), g=c("t").dt.replace(year=2020, day=1),
        h=c("t").dt.cast_time_unit("ms"), k=c("d").dt.combine(c("t").dt.time()), l=c("t") - timedelta(days=1),
        m=c("d") + pl.duration(days="j"), n=c("t") - c("t").dt.truncate("1w"), o=pl.date("j", "j", 1), p=pl.datetime(2024, "j", 1),
        q=pl.from_epoch("j"), r=c("t").dt.to_string(), s=c("t").dt.offset_by(pl.format("{}d", "j")),
    ),
    "lists": select(
        *each(c("l").list, """len sum mean median min max std var first last
        arg_min arg_max sort drop_nulls"""),
        a=c("l").list.get(0, null_on_oob=True), b=c("l").list.contains(2), c=c("l").list.count_matches(2),
        d=c("l").list.gather([0], null_on_oob=True), e=c("full").list.gather_every(2), f=c("ls").list.join("-"),
        g=c("l").list.set_union([1]), h=c("l").list.set_difference(c("full")), i=c("l").list.shift(1), k=c("l").list.slice(1),
        l=c("l").list.head(c("j")), m=c("full").list.to_array(3), n=c("l").list.to_struct(fields=["p", "q"]),
        o=c("l").list.concat(c("full")),
    ),
    "arrays": select(
        *each(c("ar").arr, """sum mean median min max std var arg_min arg_max
        sort to_list first len"""),
        a=c("ar").arr.get(1), b=c("ar").arr.contains(2), c=c("ar").arr.count_matches(2), e=c("ar").arr.shift(1),
        f=c("ar").arr.dot(c("ar")), g=c("ar").cast(pl.Array(pl.String, 3)).arr.join("-"),
    ),
    "struct fields": select(
        c("st").struct.field("u"), c("st").struct["v"].alias("w"), c("st").struct.unnest().name.suffix("_"),
        a=c("st").struct.rename_fields(["y", "z"]), b=c("st").struct.json_encode(), c=c("st").name.prefix_fields("p_"),
        d=c("st").name.suffix_fields("_s"), e=c("st").struct.drop(["u"]),
    ),
    "a function with defaults": lambda df, limit=LIMIT: df.filter(c("j") > limit),
}  # fmt: skip


def swallows(df: pl.LazyFrame) -> pl.LazyFrame:
    try:
        rows = df.collect().height
    except Exception:  # noqa: BLE001
        rows = 3
    return df.filter(c("i") < rows)


def today_by_a_helper() -> date:
    return date.today()  # noqa: DTZ011


def hidden_clock(df: pl.LazyFrame) -> pl.LazyFrame:
    return df.filter(c("t").dt.year() < int(time.strftime("%Y")))


def alternates(df: pl.LazyFrame, calls: list[int] = []) -> pl.LazyFrame:  # noqa: B006
    calls.append(1)
    return df.with_columns(z=pl.lit(len(calls)))


def panics(_: pl.LazyFrame) -> pl.LazyFrame:
    raise pl.exceptions.PanicException("boom")


def leaves(_: pl.LazyFrame) -> pl.LazyFrame:
    sys.exit(1)


class Fatal(BaseException):
    pass


def dies(_: pl.LazyFrame) -> pl.LazyFrame:
    raise Fatal


def reads(df: pl.LazyFrame) -> pl.LazyFrame:
    with open(__file__) as file:  # noqa: PTH123
        return df.filter(c("j") < len(file.read()))


def udf(df: pl.LazyFrame) -> pl.LazyFrame:
    return df.with_columns(c("j").map_elements(lambda j: f"{j:03}", return_dtype=pl.String))


# Why not, in the words of the proof.
REFUSED: dict[str, tuple[str, Function]] = {
    "sort": ("sort", lambda df: df.sort("i")),
    "unique": ("unique", lambda df: df.unique()),
    "group_by": ("group_by", lambda df: df.group_by("p").agg(c("j").sum())),
    "group_by_dynamic": ("sort|group_by", lambda df: df.sort("t").group_by_dynamic("t", every="1d").agg(pl.len())),
    "join with another table": ("join", lambda df: df.join(CITIES.lazy(), on="i")),
    "join with itself": ("join", lambda df: df.join(df, on="j")),
    "join_asof": ("sort|join", lambda df: df.sort("t").join_asof(df.sort("t"), on="t")),
    "concat": ("concat", lambda df: pl.concat([df, df])),
    "horizontal concat": ("concat", lambda df: pl.concat([df.select("i"), df.select("x")], how="horizontal")),
    "head": ("head", lambda df: df.head(3)),
    "tail": ("head", lambda df: df.tail(3)),
    "slice": ("head", lambda df: df.slice(1, 2)),
    "row index": ("row_index", lambda df: df.with_row_index()),
    "explode of a frame": ("explode", lambda df: df.explode("l")),
    "unpivot": ("unpivot", lambda df: df.unpivot(["i", "j"])),
    "gather_every": ("", lambda df: df.gather_every(2)),
    "shift of a frame": ("shift", lambda df: df.shift(1)),
    "reverse of a frame": ("reverse", lambda df: df.reverse()),
    "sum of a frame": ("sum", lambda df: df.sum()),
    "count": ("", lambda df: df.count()),
    "forward fill of a frame": ("fill_null", lambda df: df.fill_null(strategy="forward")),
    "map_batches": ("Python function", lambda df: df.map_batches(lambda d: d.sort("i"))),
    "another source": ("another frame", lambda df: CITIES.lazy()),
    "only literals": ("constants", lambda df: df.select(pl.lit(1))),
    "only literals, then more": ("constants", lambda df: df.select(a=pl.lit(1)).with_columns(b=c("a") + 1)),
    "no columns": ("another frame", lambda df: df.select()),
    "nothing kept": ("another frame", lambda df: df.filter(False)),
    "limit by rows": ("head", lambda df: df.limit(2)),
    "over": ("over", select(a=c("i").sum().over("p"))),
    "over inside": ("over", select(a=pl.when(c("i") > 1).then(c("x").max().over("p")))),
    "rolling": ("rolling", select(a=c("x").sum().rolling("n", period="1d"))),
    "rolling sum": ("Rolling", select(a=c("x").rolling_sum(2))),
    "rolling by": ("Rolling", select(a=c("x").rolling_mean_by("n", "1d"))),
    "shift": ("shift", select(a=c("i").shift())),
    "diff": ("diff", select(a=c("i").diff())),
    "pct_change": ("pct_change", select(a=c("x").pct_change())),
    "cum_sum": ("cum_sum", select(a=c("i").cum_sum())),
    "cum_count": ("cum_count", select(a=c("i").cum_count())),
    "ewm_mean": ("", select(a=c("x").ewm_mean(alpha=0.5))),
    "rank": ("rank", select(a=c("i").rank())),
    "interpolate": ("interpolate", select(a=c("x").interpolate())),
    "forward fill": ("forward", select(a=c("i").fill_null(strategy="forward"))),
    "forward_fill": ("forward", select(a=c("i").forward_fill())),
    "fill with the mean by name": ("mean", select(a=c("x").fill_null(strategy="mean"))),
    "fill with the mean": ("mean", select(a=c("x").fill_null(c("x").mean()))),
    "fill with the smallest": ("min", select(a=c("i").fill_null(strategy="min"))),
    "normalise": ("mean|std", select(a=(c("x") - c("x").mean()) / c("x").std())),
    "filter by an aggregate": ("max", lambda df: df.filter(c("i") == c("i").max())),
    "filter in an expression": ("filter", lambda df: df.select(c("i").filter(c("i") > 0))),
    "filter by is_unique": ("IsUnique", lambda df: df.filter(c("i").is_unique())),
    "is_duplicated": ("IsDuplicated", select(a=c("i").is_duplicated())),
    "is_first_distinct": ("IsFirstDistinct", lambda df: df.filter(c("i").is_first_distinct())),
    "is_last_distinct": ("IsLastDistinct", lambda df: df.filter(c("i").is_last_distinct())),
    "is_in another column": ("implode", select(a=c("i").is_in(c("j")))),
    "is_in a column of ours, twice": ("implode", lambda df: df.filter(c("i").is_in(c("j").implode()))),
    "replace by a column": ("implode|mapping", select(a=c("i").replace(c("i"), c("j")))),
    "patterns from a column": ("patterns", select(a=c("s").str.contains_any(c("ls").list.drop_nulls()))),
    "a series": ("Series", lambda df: df.with_columns(z=pl.lit(pl.Series(range(ROWS))))),
    "a series of one": ("Series", lambda df: df.with_columns(z=pl.lit(pl.Series([1])))),
    "a series as a mask": ("Series", lambda df: df.filter(pl.Series([True] * ROWS))),
    "a column of another frame": ("Series", lambda df: df.with_columns(CITIES["city"])),
    "len": ("len", select(a=pl.len())),
    "int_range": ("", select(a=pl.int_range(pl.len()))),
    "first": ("first", select(a=c("i").first())),
    "any": ("Any", select(a=c("ok").any())),
    "has nulls": ("HasNulls", select(a=c("i").has_nulls())),
    "null_count": ("null_count", select(a=c("i").null_count())),
    "n_unique": ("n_unique", select(a=c("i").n_unique())),
    "quantile": ("quantile", select(a=c("x") > c("x").quantile(0.9))),
    "mode": ("mode", lambda df: df.select(c("i").mode())),
    "top_k": ("top_k", lambda df: df.select(c("j").top_k(2))),
    "value_counts": ("value_counts", lambda df: df.select(c("p").value_counts())),
    "arg_max": ("arg_max", select(a=c("i").arg_max())),
    "search_sorted": ("search_sorted", select(a=c("j").search_sorted(2))),
    "quantile bins": ("bin_quantiles", select(a=c("x").bin_quantiles([0.5], labels=False))),
    "reverse": ("reverse", select(a=c("i").reverse())),
    "sort in an expression": ("sort", select(a=c("i").sort())),
    "sort_by": ("sort_by", select(a=c("i").sort_by("x"))),
    "gather": ("gather", select(a=c("i").gather([0] * ROWS))),
    "get": ("gather", select(a=c("i").get(0))),
    "slice in an expression": ("slice", lambda df: df.select(c("i").slice(0, 2))),
    "explode in an expression": ("explode", lambda df: df.select(c("full").list.explode())),
    "implode": ("implode", lambda df: df.select(c("i").implode())),
    "unique in an expression": ("unique", lambda df: df.select(c("i").unique())),
    "drop_nulls in an expression": ("drop_nulls", lambda df: df.select(c("i").drop_nulls())),
    "join of texts": ("ConcatVertical", lambda df: df.select(c("p").str.join("-"))),
    "rle_id": ("rle_id", select(a=c("i").rle_id())),
    "differences in lists": ("Diff", select(a=c("l").list.diff())),  # all null: polars gives another dtype
    "peaks": ("peak_max", select(a=c("i").peak_max())),
    "bits of a column": ("Bitwise", select(a=c("i").bitwise_or())),
    "shuffle": ("random", lambda df: df.select(c("i").shuffle(seed=1))),
    "sample": ("random", lambda df: df.select(c("i").sample(fraction=0.5, seed=1))),
    "sample of a list": ("Sample", select(a=c("full").list.sample(1, seed=1))),
    "codes of categories": ("to_physical", select(a=c("cat").to_physical())),
    "codes of categories by a cast": ("", select(a=c("cat").cast(pl.UInt32))),
    "a format that is guessed": ("guess", select(a=c("when").str.to_datetime())),
    "a date format that is guessed": ("guess", select(a=c("when").str.to_date(strict=False))),
    "a cast that would guess": ("", select(a=c("when").cast(pl.Datetime("us"), strict=False))),
    "a field by an aggregate": ("", select(a=c("st").struct.with_fields(pl.field("u").max()))),
    "element-wise map_batches": ("Python", select(a=c("i").map_batches(lambda s: s, is_elementwise=True))),
    "height": ("height", lambda df: df.head(df.height)),
    "len of the frame": ("len", lambda df: df.head(len(df))),
    "eager only": ("not subscriptable", lambda df: df["i"]),
    "eager only, by rows": ("iter_rows", lambda df: pl.DataFrame(list(df.iter_rows()))),
    "collect": ("looks at the data", lambda df: df.collect()),
    "collect inside": ("looks at the data", lambda df: df.filter(c("i") > df.collect()["i"].mean())),
    "collect, and hide it": ("looks at the data", swallows),
    "fetch of a maximum": ("looks at the data", lambda df: df.filter(c("i") == df.select(c("i").max()).collect().item())),
    "now": ("clock", lambda df: df.with_columns(z=pl.lit(datetime.now(UTC)))),
    "today": ("clock", lambda df: df.filter(c("d") < date.today())),  # noqa: DTZ011
    "today by a helper": ("clock", lambda df: df.filter(c("d") < today_by_a_helper())),
    "today by pandas": ("clock", lambda df: df.filter(c("n") < pd.Timestamp.today().normalize())),
    "time": ("clock", lambda df: df.filter(c("j") < time.time() // 86400)),
    "a clock in a library's name": ("clock", hidden_clock),
    "a random number": ("random", lambda df: df.filter(c("j") > random.randint(0, 1))),
    "a random choice": ("random", lambda df: df.filter(c("p") == random.choice("ab"))),
    "a random number by numpy": ("random", lambda df: df.filter(c("j") > np.random.randint(2))),
    "a generator from outside": ("random", lambda df: df.filter(c("j") > RNG.integers(2))),
    "uuid": ("random", lambda df: df.with_columns(z=pl.lit(str(uuid.uuid4())))),
    "entropy": ("random", lambda df: df.with_columns(z=pl.lit(os.urandom(1)))),
    "the network": ("network", lambda df: df.filter(c("j") > len(socket.gethostname()))),
    "environment": ("environment", lambda df: df.with_columns(z=pl.lit(os.getenv("HOME")))),
    "a file": ("reads files", reads),
    "a parquet file": ("reads files", lambda df: df.filter(c("i").is_in(pl.read_parquet("x.parquet")["i"]))),
    "a literal that changes": ("two plans", alternates),
    "nothing returned": ("NoneType", lambda df: None),
    "an eager frame": ("DataFrame", lambda df: CITIES),
    "an error": ("ZeroDivisionError", lambda df: df.select(1 // 0)),
    "a missing column": ("nowhere", lambda df: df.select("nowhere")),
    "a wrong type": ("not readable", lambda df: df.select(c("s") + c("d"))),
    "a panic": ("PanicException: boom", panics),
    "an exit": ("SystemExit", leaves),
    "a fatal error": ("Fatal", dies),
    "two arguments": ("TypeError", lambda df, other: df),
}  # fmt: skip

# Row-wise, and not seen to be: what the documentation should name.
MISSED: dict[str, tuple[str, Function]] = {
    "map_elements": ("Python functions are opaque", udf),
    "list.eval": ("polars does not show what is inside", select(a=c("l").list.eval(pl.element() + 1))),
    "list.unique, n_unique, reverse, any, all": ("list.eval underneath", select(a=c("l").list.n_unique())),
    "struct.with_fields": ("fields are not resolved like columns", select(a=c("st").struct.with_fields(z=pl.field("u") + 1))),
    "bin": ("polars does not show which function it is", select(a=c("hex").str.decode("hex").bin.size())),
    "cat": ("polars does not show which function it is", select(a=c("cat").cat.len_chars())),
    "business days": ("polars does not show them", select(a=pl.business_day_count("d", date(2024, 1, 1)))),
    "fold and reduce": ("Python functions are opaque", select(a=pl.fold(0, lambda a, b: a + b, ["j"]))),
    "bin_intervals (cut)": ("breaks are a Series", select(a=c("j").bin_intervals([2, 4], labels=False))),
    "hash": ("its values differ between releases of polars", select(a=c("j").hash())),
    "int_ranges": ("ranges are told apart by their arguments", select(a=pl.int_ranges(0, c("j")))),
    "to_physical of times": ("codes of categories depend on other rows", select(a=c("t").to_physical())),
    "set_sorted": ("a hint about all rows", lambda df: df.select(c("j").set_sorted())),
    "explode": ("more rows than one from each", lambda df: df.explode("full")),
    "collect in between": ("it looks at the data", lambda df: df.lazy().filter(c("j") > 1).collect()),
    "a join with a fixed table": ("a join, and the table may grow", lambda df: df.join(CITIES.lazy(), left_on="j", right_on="i", how="left", maintain_order="left")),
    "seeded random numbers": ("draws are not told apart", lambda df: df.filter(c("j") > random.Random(3).random())),
}  # fmt: skip


def over_parts(function: Function, at: int) -> pl.DataFrame:
    parts = [function(part.lazy()) for part in (WHOLE[:at], WHOLE[at:])]
    return pl.concat([p.collect() if isinstance(p, pl.LazyFrame) else p for p in parts])


@pytest.mark.parametrize("name", PROVEN)
def test_a_row_wise_function_is_proven(name: str) -> None:
    assert prove(PROVEN[name], SCHEMA) == Proof(
        True, "only projections and filters that look at one row at a time"
    )


@pytest.mark.filterwarnings("ignore::polars.exceptions.PerformanceWarning")
@pytest.mark.parametrize("at", [0, 1, 2, ROWS // 2, ROWS - 1])
@pytest.mark.parametrize("name", PROVEN)
def test_a_proven_function_gives_the_same_by_parts(name: str, at: int) -> None:
    whole = PROVEN[name](WHOLE.lazy()).collect()
    assert_frame_equal(over_parts(PROVEN[name], at), whole, check_exact=True)


@pytest.mark.parametrize("name", REFUSED)
def test_any_other_function_is_not_proven_and_the_reason_names_it(name: str) -> None:
    words, function = REFUSED[name]
    proof = prove(function, SCHEMA)
    assert not proof.holds
    assert any(word in proof.reason for word in words.split("|")), proof.reason
    assert "\n" not in proof.reason


@pytest.mark.parametrize("name", MISSED)
def test_a_known_miss_is_row_wise_all_the_same(name: str) -> None:
    function = MISSED[name][1]
    whole = function(WHOLE.lazy())
    whole = whole.collect() if isinstance(whole, pl.LazyFrame) else whole
    assert_frame_equal(over_parts(function, 5), whole, check_exact=True)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xfail(reason=MISSED[name][0], strict=True))
        for name in MISSED
    ],
)
def test_a_row_wise_function_is_not_missed(name: str) -> None:
    if not prove(MISSED[name][1], SCHEMA).holds:
        pytest.fail("not proven", pytrace=False)  # as is expected: no traceback has to be drawn


def test_the_zoo_has_an_animal_for_every_listed_function() -> None:
    plans = "\n".join(row_wise.trace(function, SCHEMA) for function in PROVEN.values())
    assert {name for name in row_wise.ROW_WISE if f"{name}(" not in plans} == set()


def test_columns_of_a_frame_may_be_looked_up_although_polars_warns() -> None:
    assert prove(lambda df: df.select(df.columns[:2]), SCHEMA).holds


def test_a_proof_is_for_one_schema() -> None:
    function = PROVEN["a branch on the schema"]
    assert prove(function, SCHEMA).holds
    assert "unique" in prove(function, pl.Schema({"i": pl.Int64, "j": pl.Int64})).reason


def test_the_same_function_gives_the_same_plan_whatever_the_source() -> None:
    plans = {row_wise.trace(PROVEN["operators"], SCHEMA) for _ in range(5)}
    assert len(plans) == 1
    assert " at 0x" not in plans.pop()


def test_constants_that_differ_give_plans_that_differ() -> None:
    one, two = (row_wise.trace(lambda df, n=n: df.filter(c("j") > n), SCHEMA) for n in (1, 2))
    assert one != two


def test_the_function_is_called_without_any_data() -> None:
    seen: list[object] = []

    def spies(df: pl.LazyFrame) -> pl.LazyFrame:
        seen.append(type(df))
        return df

    assert prove(spies, SCHEMA).holds
    assert seen == [pl.LazyFrame, pl.LazyFrame]


def test_plans_of_an_unknown_form_are_not_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_wise, "_PLAN_FORM", 10**6)
    proof = prove(PROVEN["filter"], SCHEMA)
    assert not proof.holds
    assert pl.__version__ in proof.reason


def test_a_profiler_at_work_goes_on_undisturbed() -> None:
    events: list[str] = []

    def profiler(frame: object, event: str, argument: object) -> None:
        events.append(event)

    sys.setprofile(profiler)
    try:
        assert prove(PROVEN["filter"], SCHEMA).holds
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)
    assert events


def test_a_callable_object_and_a_partial_are_proven_like_functions() -> None:
    class Above:
        limit = 2

        def __call__(self, df: pl.LazyFrame) -> pl.LazyFrame:
            return df.filter(c("j") > self.limit)

    class Today:
        def __call__(self, df: pl.LazyFrame) -> pl.LazyFrame:
            return df.filter(c("d") < pd.Timestamp.today().normalize())

    assert prove(Above(), SCHEMA).holds
    assert prove(partial(helper), SCHEMA).holds
    assert "clock" in prove(Today(), SCHEMA).reason
    assert "clock" in prove(partial(Today()), SCHEMA).reason
