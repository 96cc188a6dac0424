"""Measures 22 and 22b: all aggregations at once, against the same written by hand, and against a drop with three."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl

from benchmarks import checksums
from benchmarks.builds import ByHand, against_by_hand
from benchmarks.drops import Feed, check_same_stores, drops_by_turns
from benchmarks.harness import MILLISECONDS, Bench, Measure, Row, Target, check, median_of, ratios
from benchmarks.project import ALL, WINDOWS, Project, columns

EVERY = (
    *ALL,
    *("var", "first", "last", "first_time", "last_time", "first_3", "last_10"),
    *("count_distinct", "p90", "p99", "mode", "top_3"),
)
_OF_LISTS = {
    "sum": "list_sum({v})",
    "mean": "list_avg({v})",
    "count": "len({v})",
    "min": "list_min({v})",
    "max": "list_max({v})",
    "std": "list_stddev_samp({v})",
    "median": "list_median({v})",
    "var": "list_var_samp({v})",
    "first": "{v}[1]",
    "last": "{v}[-1]",
    "first_time": "{t}[1]",
    "last_time": "{t}[-1]",
    "first_3": "{v}[:3]",
    "last_10": "list_reverse({v}[-10:])",
    "count_distinct": "list_unique({v})",
    "p90": "list_aggregate({v}, 'quantile_cont', 0.9)",
    "p99": "list_aggregate({v}, 'quantile_cont', 0.99)",
    "mode": "{r}[1].v",
    "top_3": "list_transform({r}[:3], lambda r: r.v)",
}
_RANKED = (
    "list_sort(list_transform(map_entries(list_aggregate(v_{w}, 'histogram')), "
    "lambda e: {{'c': -e.value::BIGINT, 'v': e.key}}))"
)


def duckdb_by_hand(source: Path, target: Path) -> None:
    """One statement: each window's values and instants as lists, and everything of these."""
    lists = ", ".join(
        f"list(amount) OVER w{w} AS v_{w}, list(event_time) OVER w{w} AS t_{w}" for w in WINDOWS
    )
    ranked = ", ".join(f"{_RANKED.format(w=w)} AS r_{w}" for w in WINDOWS)
    values = ", ".join(
        f'{_OF_LISTS[name].format(v=f"v_{w}", t=f"t_{w}", r=f"r_{w}")} AS "{column}"'
        for column, name, w in columns(EVERY)
    )
    windows = ", ".join(
        f"w{w} AS (PARTITION BY user_id ORDER BY event_time "
        f"RANGE BETWEEN INTERVAL {w[:-1]} DAY PRECEDING AND CURRENT ROW)"
        for w in WINDOWS
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"""
            COPY (
              SELECT user_id, event_time, {values}
              FROM (SELECT *, {ranked} FROM (
                SELECT user_id, event_time, {lists}
                FROM read_parquet('{source}/*.parquet') WINDOW {windows}))
              ORDER BY event_time, user_id
            ) TO '{target}' (FORMAT parquet, COMPRESSION zstd)
            """
        )


def polars_by_hand(source: Path, target: Path) -> None:
    """One rolling pass a window over sorted events; frequencies by sorting and run lengths."""
    events = pl.scan_parquet(source / "*.parquet").sort("user_id", "event_time").collect()
    amount, time = pl.col("amount"), pl.col("event_time")
    runs = amount.sort().rle()
    ranked = runs.sort_by(runs.struct.field("len"), descending=True, maintain_order=True)
    frequent = ranked.struct.field("value")
    expressions: dict[str, Callable[[], pl.Expr]] = {
        "sum": amount.sum,
        "mean": amount.mean,
        "count": lambda: amount.count().cast(pl.Int64),
        "min": amount.min,
        "max": amount.max,
        "std": amount.std,
        "median": amount.median,
        "var": amount.var,
        "first": amount.first,
        "last": amount.last,
        "first_time": time.first,
        "last_time": time.last,
        "first_3": lambda: amount.head(3),
        "last_10": lambda: amount.tail(10).reverse(),
        "count_distinct": lambda: amount.n_unique().cast(pl.Int64),
        "p90": lambda: amount.quantile(0.9, "linear"),
        "p99": lambda: amount.quantile(0.99, "linear"),
        "mode": frequent.first,
        "top_3": lambda: frequent.head(3),
    }
    keys = ["user_id", "event_time"]
    table = events.select(keys)
    for window in WINDOWS:
        rolled = events.rolling(
            pl.col("event_time").alias("event_time"),
            period=window,
            closed="both",
            group_by="user_id",
        ).agg(
            expressions[name]().alias(column) for column, name, w in columns(EVERY) if w == window
        )
        table = table.join(rolled, on=keys, how="left", maintain_order="left")
    table.select(*keys, *(name for name, _, _ in columns(EVERY))).sort(
        "event_time", "user_id"
    ).write_parquet(target, compression="zstd")


_BY_HAND: dict[str, ByHand] = {"polars": polars_by_hand, "duckdb": duckdb_by_hand}


def _builds(bench: Bench) -> list[Row]:
    project = Project.over(bench, bench.history(), EVERY)
    what = f"{len(EVERY)} aggregations: full build"
    return against_by_hand(bench, "22", what, project, _BY_HAND, Target(2.0))


def _drops(bench: Bench) -> list[Row]:
    files = bench.history()
    few, many = Feed.over(Project.over(bench, files)), Feed.over(Project.over(bench, files, EVERY))
    of_few, of_many = drops_by_turns(bench, [few, many])
    check(many.modes == {"incremental"}, f"drops were refreshed {many.modes}")
    whole = many.project.stores()
    whole.build()
    check_same_stores(bench, many.stores, whole, "drops and a full build")
    check(bool(checksums.online_rows(bench.client, few.stores.prefix)), "rows are online")
    return [
        Row(
            "22b",
            f"drop of {bench.size.drop:,} events with {len(EVERY)} aggregations: refresh + push",
            median_of(of_many, MILLISECONDS),
            f"with three: {median_of(of_few, MILLISECONDS)}",
            ratios(of_many, of_few),
            Target(3.0),
        )
    ]


MEASURES = (
    Measure("22", "all aggregations at once, against the same written by hand", "<= 2x", _builds),
    Measure("22b", "a drop with all aggregations, against one with three", "<= 3x", _drops),
)
