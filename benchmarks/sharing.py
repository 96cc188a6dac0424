"""Measure 14: a drop into a source that many features read, through running workers."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
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

_WORKERS = 2
_WARM_UP = 1
_REST_S = 1.0
_DAYS = data.WINDOW_DAYS + 4
"""The end of the history that windows can reach: building many features of it is not what is measured."""

_FILE = """
import polars as pl

from mlforge import Definitions, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore

NAMES = [f"{prefix}_{{number}}" for number in range({features})]
OF = dict(keys=["user_id"], source="events/", timestamp="event_time")


def spend(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "event_time", "amount")

"""
_ALIKE = """
METRICS = [Rolling(["7d", "30d"], {"amount": ["sum", "mean", "count"]})]
FEATURES = [feature(name=name, metrics=METRICS, **OF)(spend) for name in NAMES]
"""
_DIFFERENT = """
WINDOWS = (["7d"], ["30d"], ["1d", "7d"], ["7d", "30d"], ["1d", "7d", "30d"])
AGGREGATIONS = (["sum"], ["sum", "mean", "count"], ["min", "max"], ["std", "count"], ["mean", "last"])


def flagged(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "event_time", "amount", is_large=pl.col("amount") > 50)


def made(number: int, name: str):
    number = number * 50 // len(NAMES)  # of fewer than fifty, some of each sort
    windows, aggregations = WINDOWS[number % 5], AGGREGATIONS[number // 5 % 5]
    if number >= 25:
        where = "is_large" if number % 3 else None
        return feature(name=name, metrics=[Rolling(windows, {"amount": aggregations}, where=where)], **OF)(flagged)
    doubled = {"doubled": f"amount__{aggregations[0]}__{windows[0]} * 2"} if number % 2 else None
    return feature(name=name, metrics=[Rolling(windows, {"amount": aggregations})], derive=doubled, **OF)(spend)


FEATURES = [made(number, name) for number, name in enumerate(NAMES)]
"""
_END = """
defs = Definitions(LocalStore("feature_store"), FEATURES)
"""


@dataclass(frozen=True)
class _Kind:
    """How the features of a project differ: the prefix of their names, and the text that defines them."""

    prefix: str
    text: str

    def names(self, count: int) -> list[str]:
        return [f"{self.prefix}_{count}_{number}" for number in range(count)]

    def definitions(self, count: int) -> str:
        head = _FILE.format(prefix=f"{self.prefix}_{count}", features=count)
        return head + self.text + _END


_SAME, _OTHERS = _Kind("of", _ALIKE), _Kind("other", _DIFFERENT)


@dataclass
class _Times:
    """Seconds from a file's rename until the new entity's row of the first, and of the last, feature is there."""

    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)


def _run(bench: Bench) -> list[Row]:
    times = {count: _drops(bench, _SAME, count) for count in bench.size.together}
    _check_rows(bench)
    [one, *several] = bench.size.together
    most = several[-1]
    different = _drops(bench, _OTHERS, most)
    _check_values(bench, most)
    alone = times[one].last
    return [
        *(
            _against_one(f"{n} features", n, times[n], alone, Target(0.25) if n == most else None)
            for n in several
        ),
        _last_of(f"{most} features", times[most]),
        _against_one(f"{most} different features", most, different, alone, Target(0.25)),
        _last_of(f"{most} different features", different),
    ]


def _against_one(
    label: str, count: int, times: _Times, alone: Sequence[float], target: Target | None
) -> Row:
    whole = [count * seconds for seconds in alone]
    return Row(
        "14",
        f"a drop into a source with {label}: the last readable",
        median_of(times.last, MILLISECONDS),
        f"{count} times that of one feature: {median_of(whole, MILLISECONDS)}",
        ratios(times.last, whole),
        target,
    )


def _last_of(label: str, times: _Times) -> Row:
    return Row(
        "14",
        f"{label}: the last readable",
        median_of(times.last, SECONDS),
        f"the first: {median_of(times.first, SECONDS)}",
        times.last,
        Target(2.0, SECONDS),
    )


def _drops(bench: Bench, kind: _Kind, count: int) -> _Times:
    """The same drops into a source with so many features."""
    root, names = bench.new_folder("together"), kind.names(count)
    (root / "events").mkdir()
    daily = bench.history()
    for file in daily[-(_DAYS * len(daily) // bench.size.days) :]:
        os.link(file, root / "events" / file.name)
    (root / "definitions.py").write_text(kind.definitions(count))
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


def _check_rows(bench: Bench) -> None:
    """Every feature has the rows that one feature alone has."""
    users, rows = _rows_of_one(bench)
    for count in bench.size.together[1:]:
        for name in _SAME.names(count):
            others = bench.client.mget([key_of(name, user) for user in users])
            check(others == rows, f"{name} has other rows than the one feature alone")


def _check_values(bench: Bench, count: int) -> None:
    """Every different feature has rows, with the values of columns that one feature alone has, too."""
    users, rows = _rows_of_one(bench)
    alone = list(map(json.loads, rows))
    shared = 0
    for name in _OTHERS.names(count):
        others = bench.client.mget([key_of(name, user) for user in users])
        check(all(others), f"{name} has no rows of the last drop")
        for number, other in enumerate(map(json.loads, others)):
            same = (alone[number].keys() & other.keys()) - {"user_id"}
            shared += len(same)
            alike = all(_is_close(alone[number][key], other[key]) for key in same)
            check(alike, f"{name} has other values than the one feature alone")
    check(shared > 0, "no column was compared")


def _rows_of_one(bench: Bench) -> tuple[list[int], list[str]]:
    """The entities of the last drop, and the rows of the feature that is alone."""
    last = _WARM_UP + bench.repeat * bench.size.drops_a_round - 1
    users = marked(bench, last)["user_id"].to_list()
    [alone] = _SAME.names(1)
    rows = bench.client.mget([key_of(alone, user) for user in users])
    check(all(rows), "the rows of the last drop are there")
    return users, rows


def _is_close(one: float | None, other: float | None) -> bool:
    return one == other if one is None or other is None else math.isclose(one, other, rel_tol=1e-9)


MEASURES = (
    Measure(
        "14",
        "a drop into a source with many features, against one feature",
        "<= 0.25 of as many times one",
        _run,
    ),
)
