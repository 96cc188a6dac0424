"""Measure 24: a drop onto a feature whose windows are over all time, beside the same drop with 30 days."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.drops import Feed, check_same_stores, drops_by_turns
from benchmarks.harness import MILLISECONDS, Bench, Measure, Row, Target, check, median_of, ratios
from benchmarks.project import BASIC, NAME, Project
from mlforge import Feature, feature
from mlforge.metrics import Rolling


def _over(window: str) -> Feature:
    return feature(
        name=NAME,
        keys=["user_id"],
        source="events/",
        timestamp="event_time",
        metrics=[Rolling(window, {"amount": list(BASIC)})],
    )(lambda df: df.select("user_id", "event_time", "amount"))


def _run(bench: Bench) -> list[Row]:
    files = bench.history()
    feeds = [
        Feed.over(replace(Project.over(bench, files), feature=_over(window)))
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
            "24",
            f"all time: drop onto {bench.size.events:,} events",
            median_of(times[0], MILLISECONDS),
            f"with 30 days: {median_of(times[1], MILLISECONDS)}",
            ratios(*times),
            Target(2.0),
        )
    ]


MEASURES = (
    Measure("24", "a drop with windows over all time, against one with 30 days", "<= 2x", _run),
)
