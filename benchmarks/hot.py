"""Measure 18: one value of an entity that has all events, against a filter and aggregates by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import polars as pl

from benchmarks import checksums, data
from benchmarks.harness import (
    MILLISECONDS,
    Bench,
    Measure,
    Row,
    Target,
    by_turns,
    check_same,
    median_of,
    ratios,
)
from benchmarks.project import NAME, Project, columns
from mlforge import get_training_data

_EXPRESSIONS = {"count": lambda values: values.count().cast(pl.Int64)}


def by_hand(source: Path, spine: pl.DataFrame) -> pl.DataFrame:
    """The rows of each window of one entity at one instant, filtered and aggregated."""
    [user], [at] = spine["user_id"], spine["event_time"]
    events = pl.scan_parquet(source / "*.parquet").filter(
        pl.col("user_id") == user, pl.col("event_time") <= at
    )
    values = []
    for name, aggregation, window in columns():
        inside = pl.col("amount").filter(
            pl.col("event_time") >= pl.lit(at).dt.offset_by(f"-{window}")
        )
        expression = _EXPRESSIONS.get(aggregation, lambda v, a=aggregation: getattr(v, a)())
        values.append(expression(inside).alias(f"{NAME}__{name}"))
    return pl.concat([spine, events.select(values).collect()], how="horizontal")


def _run(given: Bench) -> list[Row]:
    bench = given.of_size(replace(given.size, events=given.size.events // 2, entities=1))
    project = Project.over(bench, bench.history())
    stores = project.stores()
    stores.definitions.refresh(NAME)
    spine = data.spine(bench.size, 1)
    rows = []
    for engine in ("polars", "duckdb"):
        ours = partial(get_training_data, spine, [NAME], stores.definitions.store, engine=engine)
        theirs = partial(by_hand, project.source, spine)
        check_same(checksums.of_frame(ours()), checksums.of_frame(theirs()), f"a value on {engine}")
        mine, hand = by_turns(bench.repeat, ours, theirs)
        rows.append(
            Row(
                "18",
                f"one value of an entity with {bench.size.events:,} events on {engine}",
                median_of(mine, MILLISECONDS),
                f"filter and aggregates by hand: {median_of(hand, MILLISECONDS)}",
                ratios(mine, hand),
                Target(5.0),
            )
        )
    return rows


MEASURES = (
    Measure(
        "18", "one value of an entity with many events, against a filter by hand", "<= 5x", _run
    ),
)
