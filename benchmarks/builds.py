"""Measure 5: a full build, against what one would write by hand for this one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import duckdb
import polars as pl

from benchmarks import checksums
from benchmarks.harness import (
    SECONDS,
    Bench,
    Measure,
    Row,
    Target,
    by_turns,
    check_same,
    median_of,
    ratios,
)
from benchmarks.project import ALL, NAME, Project, columns

_ENGINES = ("polars", "duckdb")
_ROW_GROUP = 131_072
ByHand = Callable[[Path, Path], None]
"""Writes the table of a source's files to a file."""
_SQL = {"mean": "avg", "std": "stddev_samp"}


def duckdb_by_hand(source: Path, target: Path) -> None:
    """One statement from files to file; no event is twice at one instant, so no row is."""
    values = ", ".join(
        f'{_SQL.get(aggregation, aggregation)}(amount) OVER w{window} AS "{name}"'
        for name, aggregation, window in columns(ALL)
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"""
            COPY (
              SELECT user_id, event_time, {values}
              FROM read_parquet('{source}/*.parquet')
              WINDOW
                w7d AS (PARTITION BY user_id ORDER BY event_time
                        RANGE BETWEEN INTERVAL 7 DAY PRECEDING AND CURRENT ROW),
                w30d AS (PARTITION BY user_id ORDER BY event_time
                         RANGE BETWEEN INTERVAL 30 DAY PRECEDING AND CURRENT ROW)
              ORDER BY event_time, user_id
            ) TO '{target}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {_ROW_GROUP})
            """
        )


def polars_by_hand(source: Path, target: Path) -> None:
    """One rolling pass a window over sorted events; the groups come back in another order."""
    events = pl.scan_parquet(source / "*.parquet").sort("user_id", "event_time").collect()
    amount = pl.col("amount")
    expressions: dict[str, Callable[[], pl.Expr]] = {
        "sum": amount.sum,
        "mean": amount.mean,
        "count": amount.count,
        "min": amount.min,
        "max": amount.max,
        "std": amount.std,
        "median": amount.median,
    }
    keys = ["user_id", "event_time"]
    table = events.select(keys)
    for window in ("7d", "30d"):
        windows = events.rolling(
            "event_time", period=window, closed="both", group_by="user_id"
        ).agg(
            expressions[aggregation]().alias(name)
            for name, aggregation, own in columns(ALL)
            if own == window
        )
        table = table.join(windows, on=keys, how="left", maintain_order="left")
    names = [name for name, _, _ in columns(ALL)]
    table.select(*keys, *names).sort("event_time", "user_id").write_parquet(
        target, compression="zstd", row_group_size=_ROW_GROUP
    )


BY_HAND: dict[str, ByHand] = {"polars": polars_by_hand, "duckdb": duckdb_by_hand}


def against_by_hand(
    bench: Bench,
    number: str,
    what: str,
    project: Project,
    by_hand: Mapping[str, ByHand],
    target: Target | None,
) -> list[Row]:
    """Full builds of a project on each engine, against scripts that write the same table."""
    out = bench.new_folder("by-hand")
    built = {engine: [project.stores(engine) for _ in range(bench.repeat)] for engine in _ENGINES}
    waiting = {engine: iter(stores) for engine, stores in built.items()}

    def build(engine: str) -> None:
        next(waiting[engine]).definitions.refresh(NAME, full=True)

    targets = {engine: out / f"{engine}.parquet" for engine in _ENGINES}
    times = by_turns(
        bench.repeat,
        *(partial(build, engine) for engine in _ENGINES),
        *(partial(by_hand[engine], project.source, targets[engine]) for engine in _ENGINES),
    )
    expected = checksums.of_table(built["polars"][-1].data)
    for engine in _ENGINES:
        check_same(checksums.of_table(built[engine][-1].data), expected, f"build on {engine}")
        check_same(checksums.of_table(targets[engine]), expected, f"{engine} by hand")
    ours, references = times[:2], times[2:]
    best = [min(pair) for pair in zip(*references, strict=True)]
    told = ", ".join(
        f"{engine} {median_of(own, SECONDS)}"
        for engine, own in zip(_ENGINES, references, strict=True)
    )
    return [
        Row(
            number,
            f"{what} on {engine}",
            median_of(own, SECONDS),
            f"the better by hand: {told}",
            ratios(own, best),
            target,
        )
        for engine, own in zip(_ENGINES, ours, strict=True)
    ]


def _run(bench: Bench) -> list[Row]:
    project = Project.over(bench, bench.history(), ALL)
    return against_by_hand(bench, "5", "full build", project, BY_HAND, Target(2.0))


MEASURES = (
    Measure("5", "full build on each engine, against the same written by hand", "<= 2x", _run),
)
