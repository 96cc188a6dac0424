"""Measures 15 and 15b: the HTTP server, against a bare application, redis-benchmark and Feast."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks.harness import (
    MILLISECONDS,
    Bench,
    Measure,
    Row,
    Target,
    Unit,
    check,
    median_of,
    ratios,
)
from benchmarks.http_load import Load, redis_benchmark
from benchmarks.serving_site import NAMES, Server, Site, body_of

_MICROSECONDS = Unit(1_000_000, " us CPU", 0)
_SHAPES = ((1, 1), (1, 32), (100, 8))
"""Entities of a request, and connections."""


def _against_the_floor(bench: Bench) -> list[Row]:
    """Measure 15."""
    site = Site.built(bench)
    with site.ours().started() as ours, site.floor().started() as floor:
        return [
            _floor_row(site, ours, floor, size, connections) for size, connections in _SHAPES[1:]
        ]


def _floor_row(site: Site, ours: Server, floor: Server, size: int, connections: int) -> Row:
    bodies = site.bodies(size)
    for body in bodies[:10]:
        same = json.loads(ours.post(body))["features"] == json.loads(floor.post(body))["features"]
        check(same, f"{size} x 3 answers as the stored rows are")
    mine: list[float] = []
    theirs: list[float] = []
    rates: list[float] = []
    for _ in range(site.bench.repeat):
        for server, costs in ((ours, mine), (floor, theirs)):
            done, cost = _costed(site, server, bodies, connections)
            costs.append(cost)
            if server is ours:
                rates.append(done.rate)
    return Row(
        "15",
        f"HTTP, {size} x 3, {connections} connections",
        f"{median_of(mine, _MICROSECONDS)}, {sorted(rates)[len(rates) // 2]:,.0f}/s",
        f"bare ASGI, stored bytes: {median_of(theirs, _MICROSECONDS)}",
        ratios(mine, theirs),
        Target(1.5),
    )


def _costed(
    site: Site, server: Server, bodies: Sequence[bytes], connections: int
) -> tuple[Load, float]:
    """A load, and the CPU seconds of the server's process for each of its requests."""
    before = server.cpu_s
    done = site.load(server, bodies, connections)
    return done, max(server.cpu_s - before, 0.01) / done.count


def _against_peers(bench: Bench) -> list[Row]:
    """Measure 15b: the rows of each shape, beside redis-benchmark, and Feast where its Python is named."""
    site = Site.built(bench)
    with ExitStack() as stack:
        ours = stack.enter_context(site.ours().started())
        ours.post(site.bodies(1)[0])  # it has begun
        feast = None
        if bench.feast is not None:
            feast = stack.enter_context(site.feast(bench.feast).started())
        return [row for shape in _SHAPES for row in _peer_rows(site, ours, feast, *shape)]


def _peer_rows(
    site: Site, ours: Server, feast: Server | None, size: int, connections: int
) -> Iterator[Row]:
    users, bodies = site.users(size), site.bodies(size)
    for_feast = [_feast_body(site, each) for each in users]
    if feast is not None:
        for body, other in zip(bodies[:10], for_feast, strict=False):
            _check_same_values(json.loads(ours.post(body)), json.loads(feast.post(other)))
    keys = [f"plain:{name}:{user}" for name in NAMES for user in users[0]]
    mine: list[tuple[Load, float]] = []
    redis: list[Load | None] = []
    theirs: list[tuple[Load, float]] = []
    for _ in range(site.bench.repeat):
        mine.append(_costed(site, ours, bodies, connections))
        count = 20_000 if site.bench.size.name != "tiny" else 200
        redis.append(redis_benchmark(site.bench.url, keys, connections, count))
        if feast is not None:
            theirs.append(_costed(site, feast, for_feast, connections))
    what = f"HTTP, {size} x 3, {connections} connection{'s' * (connections > 1)}"
    beside = "no redis-benchmark here" if redis[-1] is None else f"redis-benchmark: {redis[-1]}"
    costs = [cost for _, cost in mine]
    told = f"{mine[-1][0]}, {median_of(costs, _MICROSECONDS)}"
    if connections == 1:
        slowest = [done.p99 for done, _ in mine]
        yield Row(
            "15b",
            f"{what}: p99",
            told,
            beside,
            slowest,
            Target(3 / 1000, MILLISECONDS),
            MILLISECONDS,
        )
    else:
        most = Target(70e-6 if size == 1 else 500e-6, _MICROSECONDS)
        yield Row("15b", f"{what}: CPU a request", told, beside, costs, most, _MICROSECONDS)
    if theirs:
        more = [own.rate / other.rate for (own, _), (other, _) in zip(mine, theirs, strict=True)]
        of_feast = median_of([cost for _, cost in theirs], _MICROSECONDS)
        yield Row(
            "15b", f"{what}: requests/s", told, f"Feast's server: {theirs[-1][0]}, {of_feast}", more
        )


def _feast_body(site: Site, users: Sequence[int]) -> bytes:
    columns = [name for name in site.rows.columns if name != "user_id"]
    features = [f"{name}:{column}" for name in NAMES for column in columns]
    request = {"features": features, "entities": {"user_id": users}, "full_feature_names": True}
    return body_of(request)


def _check_same_values(ours: dict[str, dict[str, list[dict[str, float]]]], theirs: Mapping[str, Any]) -> None:  # fmt: skip
    names, results = theirs["metadata"]["feature_names"], theirs["results"]
    of_feast = {name: result["values"] for name, result in zip(names, results, strict=True)}
    for feature, rows in ours["features"].items():
        for column in rows[0]:
            values = [row[column] for row in rows]
            check(values == of_feast[f"{feature}__{column}"], f"Feast answers {column} alike")


MEASURES = (
    Measure("15", "requests over HTTP, against a bare application", "<= 1.5x", _against_the_floor),
    Measure(
        "15b",
        "requests over HTTP, beside redis-benchmark's MGET and Feast's server (--feast)",
        "p99 <= 3 ms, <= 70 and <= 500 us CPU",
        _against_peers,
    ),
)
