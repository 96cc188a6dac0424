"""Measure 13: aligned windows over dense events, which are put together from tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import polars as pl

from benchmarks.builds import ByHand, against_by_hand
from benchmarks.data import Size
from benchmarks.drops import Feed, check_same_stores, drops_by_turns
from benchmarks.harness import MILLISECONDS, Bench, Measure, Row, Target, check, median_of, ratios
from benchmarks.project import NAME, Project
from mlforge import Feature, feature
from mlforge.metrics import Rolling

_AGGREGATIONS = ("sum", "mean", "count", "min", "max", "std")
_SETS = ("count_distinct", "mode", "top_3", "median", "p90", "last_3")
_WINDOWS = {"7d": 7, "30d": 30}
_ROW_GROUP = 131_072
_SHARE = 10
# Of days that hold: how many values, their sum, the sum of their squares, the least, the greatest.
_MERGED = {
    "sum": "sum(s) OVER {w}",
    "mean": "sum(s) OVER {w} / sum(n) OVER {w}",
    "count": "sum(n) OVER {w}",
    "min": "min(low) OVER {w}",
    "max": "max(high) OVER {w}",
    "std": "CASE WHEN sum(n) OVER {w} > 1 THEN sqrt(greatest(0, sum(q) OVER {w}"
    " - (sum(s) OVER {w}) ** 2 / sum(n) OVER {w}) / (sum(n) OVER {w} - 1)) END",
}


def dense(size: Size) -> Size:
    """The same number of events, of a hundredth of the entities."""
    return replace(size, entities=max(10, size.entities // 100))


def duckdb_by_hand(source: Path, target: Path) -> None:
    """Days first, then windows over days, as one writes it who knows that it pays."""
    values = ", ".join(
        f"{_MERGED[aggregation].format(w=f'w{w}')} AS amount__{aggregation}__{w}"
        for aggregation in _AGGREGATIONS
        for w in _WINDOWS
    )
    windows = ", ".join(
        f"w{w} AS (PARTITION BY user_id ORDER BY event_time "
        f"RANGE BETWEEN INTERVAL {days - 1} DAY PRECEDING AND CURRENT ROW)"
        for w, days in _WINDOWS.items()
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"""
            COPY (
              WITH days AS (
                SELECT
                  user_id, date_trunc('day', event_time) + INTERVAL 1 DAY AS event_time,
                  count(amount) AS n, sum(amount) AS s, sum(amount * amount) AS q,
                  min(amount) AS low, max(amount) AS high
                FROM read_parquet('{source}/*.parquet') GROUP BY ALL
              )
              SELECT user_id, event_time, {values} FROM days WINDOW {windows}
              ORDER BY event_time, user_id
            ) TO '{target}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {_ROW_GROUP})
            """
        )


def polars_by_hand(source: Path, target: Path) -> None:
    """The same on polars."""
    amount, keys = pl.col("amount"), ["user_id", "event_time"]
    days = (
        pl.scan_parquet(source / "*.parquet")
        .group_by("user_id", pl.col("event_time").dt.truncate("1d").dt.offset_by("1d"))
        .agg(
            amount.count().alias("n"),
            amount.sum().alias("s"),
            amount.pow(2).sum().alias("q"),
            amount.min().alias("low"),
            amount.max().alias("high"),
        )
        .collect(engine="streaming")
        .sort(keys)
    )
    n, s, q = (pl.col(name).sum() for name in ("n", "s", "q"))
    deviations = (q - s.pow(2) / n).clip(lower_bound=0)
    merged = {
        "sum": s,
        "mean": s / n,
        "count": n.cast(pl.Int64),
        "min": pl.col("low").min(),
        "max": pl.col("high").max(),
        "std": pl.when(n > 1).then((deviations / (n - 1)).sqrt()),
    }
    table = days.select(keys)
    for w in _WINDOWS:
        found = days.rolling("event_time", period=w, closed="right", group_by="user_id").agg(
            expression.alias(f"amount__{name}__{w}") for name, expression in merged.items()
        )
        table = table.join(found, on=keys, how="left", maintain_order="left")
    names = [f"amount__{aggregation}__{w}" for aggregation in _AGGREGATIONS for w in _WINDOWS]
    table.select(*keys, *names).sort("event_time", "user_id").write_parquet(
        target, compression="zstd", row_group_size=_ROW_GROUP
    )


_BY_HAND: dict[str, ByHand] = {"polars": polars_by_hand, "duckdb": duckdb_by_hand}


def _run(given: Bench) -> list[Row]:
    bench = given.of_size(dense(given.size))
    project = Project.over(bench, bench.history(), _AGGREGATIONS, "1d")
    builds = against_by_hand(bench, "13", "dense, aligned: full build", project, _BY_HAND, None)
    return [*builds, _drops(bench)]


def _drops(bench: Bench) -> Row:
    """The same drops onto all events and onto every tenth of them: as many tiles, or nearly so."""
    size, files = bench.size, bench.history()
    sparse = bench.new_folder("sparse")
    for file in files:
        pl.read_parquet(file).gather_every(_SHARE).write_parquet(sparse / file.name)
    feeds = [
        Feed.over(Project.over(bench, own, _AGGREGATIONS, "1d"))
        for own in (files, sorted(sparse.iterdir()))
    ]
    times = drops_by_turns(bench, feeds)
    for feed in feeds:
        whole = feed.project.stores()
        whole.build()
        check_same_stores(bench, feed.stores, whole, "drops and a full build")
        check(feed.modes == {"incremental"}, f"drops were refreshed {feed.modes}")
    return Row(
        "13",
        f"dense, aligned: drop onto {size.events:,} events of {size.entities:,} entities",
        median_of(times[0], MILLISECONDS),
        f"onto every {_SHARE}th of them: {median_of(times[1], MILLISECONDS)}",
        ratios(*times),
        Target(1.2),
    )


def _of_levels(aggregations: Sequence[str]) -> Feature:
    """Windows over amounts of which there are four: values that repeat within a day."""
    return feature(
        name=NAME,
        keys=["user_id"],
        source="events/",
        timestamp="event_time",
        interval="1d",
        metrics=[Rolling(list(_WINDOWS), {"amount": list(aggregations)})],
    )(lambda df: df.select("user_id", "event_time", amount=pl.col("amount") // 250))


def _of_sets(given: Bench) -> list[Row]:
    """The same drops onto a feature of sets and onto one of merged numbers."""
    bench = given.of_size(dense(given.size))
    files = bench.history()
    feeds = [
        Feed.over(replace(Project.over(bench, files), feature=_of_levels(aggregations)))
        for aggregations in (_SETS, _AGGREGATIONS)
    ]
    times = drops_by_turns(bench, feeds)
    for feed in feeds:
        whole = feed.project.stores()
        whole.build()
        check_same_stores(bench, feed.stores, whole, "drops and a full build")
        check(feed.modes == {"incremental"}, f"drops were refreshed {feed.modes}")
    return [
        Row(
            "13b",
            f"dense, aligned, few values: drop with {', '.join(_SETS)}",
            median_of(times[0], MILLISECONDS),
            f"with {', '.join(_AGGREGATIONS)}: {median_of(times[1], MILLISECONDS)}",
            ratios(*times),
            Target(3.0),
        )
    ]


MEASURES = (
    Measure(
        "13",
        "dense events, aligned windows: full builds against scripts; a drop onto all or a tenth of them",
        "<= 1.2x",
        _run,
    ),
    Measure(
        "13b",
        "a drop with distinct values, ranks and lists of dense events, against one with merged numbers",
        "<= 3x",
        _of_sets,
    ),
)
