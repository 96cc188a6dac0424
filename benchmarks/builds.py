"""Measure 5: a full build, against what one would write by hand for this one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import duckdb
import polars as pl

from benchmarks import checksums
from benchmarks.harness import MEGABYTES, Bench, Measure, Row, Target, check, check_same, ratios
from benchmarks.memory import LIMIT
from benchmarks.project import ALL, NAME, Place, Project, Stores, columns
from benchmarks.sides import Ran, apart, told
from mlforge.engines import engine_named

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
    """Full builds of a project on each engine, against scripts that write the same table; each in a process of its own."""
    out = bench.new_folder("by-hand")
    targets = {engine: out / f"{engine}.parquet" for engine in _ENGINES}
    last: dict[str, Stores] = {}
    ours: dict[str, list[Ran]] = {engine: [] for engine in _ENGINES}
    references: dict[str, list[Ran]] = {engine: [] for engine in _ENGINES}
    for _ in range(bench.repeat):
        for engine in _ENGINES:
            last[engine] = project.stores(engine)
            ours[engine].append(apart(build_of, project.place(last[engine], engine)))
            check(not ours[engine][-1].has_ended, f"build on {engine} was {told(ours[engine])}")
        for engine in _ENGINES:
            references[engine].append(
                apart(partial, by_hand[engine], project.source, targets[engine])
            )
    expected = checksums.of_table(last["polars"].data)
    for engine in _ENGINES:
        check_same(checksums.of_table(last[engine].data), expected, f"build on {engine}")
        if not references[engine][-1].has_ended:
            check_same(checksums.of_table(targets[engine]), expected, f"{engine} by hand")
    pairs = zip(*references.values(), strict=True)
    best = [min(run.seconds for run in pair) for pair in pairs]
    reference = ", ".join(f"{engine} {told(runs)}" for engine, runs in references.items())
    return [
        row
        for engine, runs in ours.items()
        for row in (
            Row(
                number,
                f"{what} on {engine}",
                told(runs),
                f"the better by hand: {reference}",
                ratios([run.seconds for run in runs], best),
                target,
            ),
            Row(
                number,
                f"{what} on {engine}: peak memory",
                "",
                "above the imports",
                [run.peak for run in runs],
                Target(LIMIT, MEGABYTES),
            ),
        )
    ]


def build_of(place: Place) -> Callable[[], object]:
    """A full build into the stores of a place."""
    engine_named(place.engine)
    definitions = place.stores().definitions
    return partial(definitions.refresh, NAME, full=True)


def _run(bench: Bench) -> list[Row]:
    project = Project.over(bench, bench.history(), ALL)
    return against_by_hand(bench, "5", "full build", project, BY_HAND, Target(2.0))


MEASURES = (
    Measure("5", "full build on each engine, against the same written by hand", "<= 2x", _run),
)
