"""Measure 8: training data, against what one would write by hand in SQL."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb
import polars as pl

from benchmarks import checksums, data
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
from benchmarks.project import NAME, Project, Stores, columns, spend
from benchmarks.timing import seconds
from mlforge import Definitions, get_training_data

_SQL = {"mean": "avg"}


def by_windows(source: Path, spine: pl.DataFrame) -> pl.DataFrame:
    """Questions and events in one relation, a window function over it."""
    values = ", ".join(
        f'{_SQL.get(aggregation, aggregation)}(amount) OVER w{window} AS "{NAME}__{name}"'
        for name, aggregation, window in columns()
    )
    return _asked(
        f"""
        WITH mixed AS (
          SELECT user_id, event_time, NULL AS amount, row FROM spine
          UNION ALL
          SELECT user_id, event_time, amount, NULL FROM read_parquet('{source}/*.parquet')
          WHERE user_id IN (SELECT user_id FROM spine)
        ), valued AS (
          SELECT user_id, event_time, row, {values} FROM mixed
          WINDOW
            w7d AS (PARTITION BY user_id ORDER BY event_time
                    RANGE BETWEEN INTERVAL 7 DAY PRECEDING AND CURRENT ROW),
            w30d AS (PARTITION BY user_id ORDER BY event_time
                     RANGE BETWEEN INTERVAL 30 DAY PRECEDING AND CURRENT ROW)
        )
        SELECT * EXCLUDE (row) FROM valued WHERE row IS NOT NULL ORDER BY row
        """,
        spine,
    )


def by_join(source: Path, spine: pl.DataFrame) -> pl.DataFrame:
    """Each question joined with the events of its longest window, then aggregated."""
    values = ", ".join(
        f"{_SQL.get(aggregation, aggregation)}(e.amount) "
        f"FILTER (e.event_time >= s.event_time - INTERVAL {window[:-1]} DAY) "
        f'AS "{NAME}__{name}"'
        for name, aggregation, window in columns()
    )
    return _asked(
        f"""
        SELECT * EXCLUDE (row) FROM (
          SELECT s.user_id, s.event_time, s.row, {values}
          FROM spine s LEFT JOIN read_parquet('{source}/*.parquet') e
            ON e.user_id = s.user_id AND e.event_time <= s.event_time
            AND e.event_time >= s.event_time - INTERVAL 30 DAY
          GROUP BY ALL
        ) ORDER BY row
        """,
        spine,
    )


def _asked(statement: str, spine: pl.DataFrame) -> pl.DataFrame:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("spine", spine.with_row_index("row").to_arrow())
        return pl.DataFrame(pl.from_arrow(connection.sql(statement).to_arrow_table()))


_BY_HAND: dict[str, Callable[[Path, pl.DataFrame], pl.DataFrame]] = {
    "windows": by_windows,
    "join": by_join,
}


def _run(bench: Bench) -> list[Row]:
    project = Project.over(bench, bench.history())
    stores = project.stores()
    stores.definitions.refresh(NAME)
    rows: list[Row] = []
    medians: list[float] = []
    for count, limit in zip(bench.size.spines, (0.9, 0.9), strict=True):
        spine = data.spine(bench.size, count)
        ours = partial(
            get_training_data, spine, [NAME], stores.definitions.store, engine=bench.engine
        )
        expected = checksums.of_frame(ours())
        first: dict[str, float] = {}
        for name, ask in _BY_HAND.items():
            first[name] = seconds(partial(_check_by_hand, ask, project.source, spine, expected))
        best = min(first, key=first.__getitem__)
        mine, theirs = by_turns(bench.repeat, ours, partial(_BY_HAND[best], project.source, spine))
        medians.append(statistics.median(mine))
        rows.append(
            Row(
                "8",
                f"training data for {count:,} rows",
                median_of(mine, SECONDS),
                f"DuckDB by hand ({best}): {median_of(theirs, SECONDS)}",
                ratios(mine, theirs),
                Target(limit),
            )
        )
    few, many = bench.size.spines
    growth = many / few * math.log(many) / math.log(few)
    rows.append(
        Row(
            "8",
            f"{many // few} times the rows",
            SECONDS.of(medians[1]),
            f"{few:,} rows: {SECONDS.of(medians[0])}",
            [medians[1] / medians[0]],
            Target(growth),
        )
    )
    return [*rows, _several(bench, project, stores)]


def _several(bench: Bench, project: Project, stores: Stores) -> Row:
    """Three features of the same events in one call, against one of them alone."""
    others = [spend(("min", "max"), name="extremes"), spend(("std", "count"), name="spread")]
    store = stores.definitions.store
    Definitions(store, others, None, bench.engine, root=project.folder).build()
    spine = data.spine(bench.size, bench.size.spines[0])
    names = [NAME, *(other.name for other in others)]
    one, *alone = (
        partial(get_training_data, spine, [name], store, engine=bench.engine) for name in names
    )
    several = partial(get_training_data, spine, names, store, engine=bench.engine)
    each = [one(), *(ask().drop(spine.columns) for ask in alone)]
    expected = checksums.of_frame(pl.concat(each, how="horizontal"))
    check_same(checksums.of_frame(several()), expected, "training data of several features")
    of_several, of_one = by_turns(bench.repeat, several, one)
    return Row(
        "8",
        f"three features of one source for {spine.height:,} rows",
        median_of(of_several, SECONDS),
        f"one feature: {median_of(of_one, SECONDS)}",
        ratios(of_several, of_one),
        Target(2.0),
    )


def _check_by_hand(
    ask: Callable[[Path, pl.DataFrame], pl.DataFrame],
    source: Path,
    spine: pl.DataFrame,
    expected: dict[str, float],
) -> None:
    check_same(checksums.of_frame(ask(source, spine)), expected, "training data by hand")


MEASURES = (
    Measure(
        "8",
        "training data with exact windows, against SQL by hand",
        "<= 0.9x, growing no faster than n log n; three features of one source <= 2x of one",
        _run,
    ),
)
