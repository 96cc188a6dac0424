"""Measures 24, 24b: a drop onto a feature whose windows are over all time, beside the same drop with 30 days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from benchmarks.drops import Feed, check_same_stores, drops_by_turns
from benchmarks.harness import MILLISECONDS, Bench, Measure, Row, Target, check, median_of, ratios
from benchmarks.project import BASIC, NAME, Project
from mlforge import Feature, feature
from mlforge.metrics import Rolling

VALUES = ("count_distinct", "mode", "top_3", "p90", "last_3")


def _over(window: str, aggregations: Sequence[str]) -> Feature:
    return feature(
        name=NAME,
        keys=["user_id"],
        source="events/",
        timestamp="event_time",
        metrics=[Rolling(window, {"amount": list(aggregations)})],
    )(lambda df: df.select("user_id", "event_time", "amount"))


def _run(number: str, aggregations: Sequence[str], bench: Bench) -> list[Row]:
    files = bench.history()
    feeds = [
        Feed.over(replace(Project.over(bench, files), feature=_over(window, aggregations)))
        for window in ("all", "30d")
    ]
    times = drops_by_turns(bench, feeds)
    for feed in feeds:
        whole = feed.project.stores()
        whole.build()
        check_same_stores(bench, feed.stores, whole, "drops and a full build")
        check(feed.modes == {"incremental"}, f"drops were refreshed {feed.modes}")
    return [
        Row(
            number,
            f"all time: drop onto {bench.size.events:,} events ({', '.join(aggregations)})",
            median_of(times[0], MILLISECONDS),
            f"with 30 days: {median_of(times[1], MILLISECONDS)}",
            ratios(*times),
            Target(2.0),
        )
    ]


MEASURES = (
    Measure(
        "24",
        "a drop with windows over all time, against one with 30 days",
        "<= 2x",
        partial(_run, "24", BASIC),
    ),
    Measure(
        "24b",
        "the same with values, ranks and lists over all time",
        "<= 2x",
        partial(_run, "24b", VALUES),
    ),
)
