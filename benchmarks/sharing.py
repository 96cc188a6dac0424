"""Measure 14: a drop into a source that many features read, through running workers."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from functools import partial

from benchmarks import data
from benchmarks.freshness import hidden_at, key_of, marked, running, until
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
from worker.project import Project, Settings

_COUNTS = (1, 10, 50)
_WORKERS = 2
_WARM_UP = 1
_REST_S = 1.0
_DAYS = data.WINDOW_DAYS + 4
"""The end of the history that windows can reach: building fifty features of it is not what is measured."""

_FILE = """
import polars as pl

from mlforge import Definitions, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore


def spend(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "event_time", "amount")


METRICS = [Rolling(["7d", "30d"], {{"amount": ["sum", "mean", "count"]}})]
NAMES = [f"{prefix}_{{number}}" for number in range({features})]
OF = dict(keys=["user_id"], source="events/", timestamp="event_time", metrics=METRICS)
defs = Definitions(LocalStore("feature_store"), [feature(name=name, **OF)(spend) for name in NAMES])
"""


@dataclass
class _Times:
    """Seconds from a file's rename until the new entity's row of the first, and of the last, feature is there."""

    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)


def _run(bench: Bench) -> list[Row]:
    times = {count: _drops(bench, count) for count in _COUNTS}
    _check_rows(bench)
    [one, *several] = _COUNTS
    rows = []
    for count in several:
        whole = [count * seconds for seconds in times[one].last]
        rows.append(
            Row(
                "14",
                f"a drop into a source with {count} features: the last readable",
                median_of(times[count].last, MILLISECONDS),
                f"{count} times that of one feature: {median_of(whole, MILLISECONDS)}",
                ratios(times[count].last, whole),
                Target(0.25) if count == several[-1] else None,
            )
        )
    most = times[several[-1]]
    rows.append(
        Row(
            "14",
            f"{several[-1]} features: the last readable",
            median_of(most.last, SECONDS),
            f"the first: {median_of(most.first, SECONDS)}",
            most.last,
            Target(2.0, SECONDS),
        )
    )
    return rows


def _drops(bench: Bench, count: int) -> _Times:
    """The same drops into a source with so many features."""
    root, names = bench.new_folder("together"), _names(count)
    (root / "events").mkdir()
    daily = bench.history()
    for file in daily[-(_DAYS * len(daily) // bench.size.days) :]:
        os.link(file, root / "events" / file.name)
    (root / "definitions.py").write_text(_FILE.format(prefix=f"of_{count}", features=count))
    project = Project.open(Settings(bench.url, str(root / "definitions.py"), root))
    project.definitions.build(online=True)
    times = _Times()
    with running(root, bench.url, _WORKERS):
        for number in range(_WARM_UP + bench.repeat * bench.size.drops_a_round):
            name = f"drop-{number:06d}.parquet"
            hidden = hidden_at(marked(bench, number), root / "events" / f".{name}.tmp")
            keys = [key_of(each, bench.size.entities + number) for each in names]
            begun = time.perf_counter()
            hidden.rename(root / "events" / name)
            until(partial(bench.client.exists, *keys))
            first = time.perf_counter() - begun
            until(lambda keys=keys: bench.client.exists(*keys) == len(keys))
            if number >= _WARM_UP:
                times.first.append(first)
                times.last.append(time.perf_counter() - begun)
            until(lambda: not any(t.behind for t in project.work_queue.read(names)))
            time.sleep(_REST_S)
    project.definitions.close()
    project.redis.close()
    return times


def _names(count: int) -> list[str]:
    return [f"of_{count}_{number}" for number in range(count)]


def _check_rows(bench: Bench) -> None:
    """Every feature has the rows that one feature alone has."""
    last = _WARM_UP + bench.repeat * bench.size.drops_a_round - 1
    users = marked(bench, last)["user_id"].to_list()
    [alone] = _names(1)
    rows = bench.client.mget([key_of(alone, user) for user in users])
    check(all(rows), "the rows of the last drop are there")
    for count in _COUNTS[1:]:
        for name in _names(count):
            others = bench.client.mget([key_of(name, user) for user in users])
            check(others == rows, f"{name} has other rows than {alone}")


MEASURES = (
    Measure(
        "14",
        "a drop into a source with many features, against one feature",
        "<= 0.25 of as many times one",
        _run,
    ),
)
