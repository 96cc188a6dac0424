"""Measures 25 and 25b: what ten derived columns add to a full build, and to a drop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from benchmarks.drops import Feed, check_same_stores, drops_by_turns
from benchmarks.harness import (
    MILLISECONDS,
    SECONDS,
    Bench,
    Measure,
    Row,
    Target,
    check,
    median_of,
    ratios,
)
from benchmarks.project import BASIC, NAME, WINDOWS, Project
from benchmarks.timing import seconds
from mlforge import Feature, feature
from mlforge.metrics import Rolling

TEN: Mapping[str, str] = {
    "share": "amount__sum__7d / amount__sum__30d",
    "burst": "amount__count__7d / amount__count__30d",
    "drift": "amount__mean__7d - amount__mean__30d",
    "drift_share": "drift / amount__mean__30d",
    "size": "log1p(abs(amount__sum__30d))",
    "a_day": "round(amount__count__30d / 30, 2)",
    "capped": "clip(coalesce(drift_share, 0), -1, 1)",
    "busy": "amount__count__7d > 5 and burst > 0.5",
    "level": "2 if amount__mean__7d > 500 else 1",
    "age": "days(t - '2020-01-01')",
}
"""Ten derived columns, numbers and a boolean, some of which use others, and one of `t`."""


def _spend(derive: Mapping[str, str]) -> Feature:
    return feature(
        name=NAME,
        keys=["user_id"],
        source="events/",
        timestamp="event_time",
        metrics=[Rolling(list(WINDOWS), {"amount": list(BASIC)})],
        derive=derive,
    )(lambda df: df.select("user_id", "event_time", "amount"))


def _projects(bench: Bench) -> list[Project]:
    """The project with derived columns, and the same without any."""
    plain = Project.over(bench, bench.history())
    return [replace(plain, feature=_spend(TEN)), replace(plain, feature=_spend({}))]


def _builds(bench: Bench) -> list[Row]:
    times: list[list[float]] = [[], []]
    projects = _projects(bench)
    for turn in range(bench.repeat):
        all_stores = [project.stores() for project in projects]
        for stores, own in zip(all_stores, times, strict=True):
            own.append(seconds(stores.build))
        if turn == bench.repeat - 1:
            _check_derived(*(stores.data for stores in all_stores))
        for stores in all_stores:
            stores.remove()
    return [
        Row(
            "25",
            f"{len(TEN)} derived columns: full build of {bench.size.events:,} events + push",
            median_of(times[0], SECONDS),
            f"without: {median_of(times[1], SECONDS)}",
            ratios(*times),
            Target(1.25),
        )
    ]


def _check_derived(derived: Path, plain: Path) -> None:
    """Raise WrongResult unless one table is the other with columns that follow from it."""
    with_ten, without = (pl.scan_parquet(path) for path in (derived, plain))
    names = without.collect_schema().names()
    check(with_ten.select(names).collect().equals(without.collect()), "metrics differ")
    share = pl.col("amount__sum__7d") / pl.col("amount__sum__30d")
    expected = pl.when(share.is_finite()).then(share)
    wrong = with_ten.filter(pl.col("share").ne_missing(expected)).select(pl.len()).collect().item()
    check(wrong == 0, f"{wrong} derived values do not follow from their rows")


def _drops(bench: Bench) -> list[Row]:
    feeds = _feeds(bench)
    times = drops_by_turns(bench, feeds)
    for feed in feeds:
        check(feed.modes == {"incremental"}, f"drops were refreshed {feed.modes}")
    whole = feeds[0].project.stores()
    whole.build()
    check_same_stores(bench, feeds[0].stores, whole, "drops and a full build")
    return [
        Row(
            "25b",
            f"drop of {bench.size.drop:,} events with {len(TEN)} derived columns: refresh + push",
            median_of(times[0], MILLISECONDS),
            f"without: {median_of(times[1], MILLISECONDS)}",
            ratios(*times),
            Target(1.25),
        )
    ]


def _feeds(bench: Bench) -> Sequence[Feed]:
    """A feed each, with a source of its own: the same drops come into both."""
    files = bench.history()
    return [
        Feed.over(replace(Project.over(bench, files), feature=_spend(derive)))
        for derive in (TEN, {})
    ]


MEASURES = (
    Measure(
        "25", "a full build with ten derived columns, against one without", "<= 1.25x", _builds
    ),
    Measure("25b", "a drop with ten derived columns, against one without", "<= 1.25x", _drops),
)
