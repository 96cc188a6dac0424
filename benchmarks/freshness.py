"""Measures 3 and 3b: from the rename of a file to its rows' being readable, through running workers."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from redis import Redis

from benchmarks import data
from benchmarks.floor import FEATURES, Floor
from benchmarks.harness import MILLISECONDS, Bench, Measure, Row, Target, check, percentile
from benchmarks.pushes import bare_socket
from benchmarks.timing import seconds
from mlforge.frames.encoding import key_hash
from mlforge.online.redis import resp
from worker.child_process import bound_to_parent
from worker.project import DEFINITIONS, Project, Settings

_BLOCKS = 5
_WARM_UP = 1
_PATIENCE_S = 60.0
_POLL_S = 0.003
"""How often the server is asked; more often, asking would be a good part of what is measured."""
_STOP_S = 15.0
_REST_S = 1.0

_FILE = """
import polars as pl

from mlforge import Definitions, feature
from mlforge.metrics import Rolling
from mlforge.store import LocalStore

OF = dict(keys=["user_id"], source="events/", timestamp="event_time")


@feature(**OF, metrics=[Rolling(["7d", "30d"], {"amount": ["sum", "mean", "count"]})])
def spend(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "event_time", "amount")


@feature(**OF, metrics=[Rolling(["7d"], {"amount": ["min", "max"]})])
def extremes(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "event_time", "amount")


@feature(**OF, metrics=[Rolling(["1d"], {"amount": ["sum", "count"]})])
def recent(df: pl.DataFrame) -> pl.DataFrame:
    return df.select("user_id", "event_time", "amount")


defs = Definitions(LocalStore("feature_store"), [{names}])
"""


@dataclass(frozen=True)
class _Limits:
    """What is to be reached against the floor."""

    p50: float
    p99: float


def _run(number: str, names: Sequence[str], limits: _Limits, bench: Bench) -> list[Row]:
    """The rows of a measure of these features."""
    root, bare = bench.new_folder("fresh"), bench.new_folder("floor")
    for folder in (root, bare):
        (folder / "events").mkdir()
        for file in bench.history():
            os.link(file, folder / "events" / file.name)
    (bare / "out").mkdir()
    (root / "definitions.py").write_text(_FILE.replace("{names}", ", ".join(names)))
    project = Project.open(Settings(bench.url, str(root / "definitions.py"), root))
    for name in names:
        project.definitions.refresh(name)
        project.definitions.push(name)
    ours: list[float] = []
    floors: list[float] = []
    with bare_socket(bench.url) as connection, running(root, bench.url, len(names)):
        # As many workers as features, which the page on operating recommends.
        floor = Floor.over(bare / "events", bare / "out", connection, names)
        for drop in range(_WARM_UP + bench.size.fresh_drops):
            frame = marked(bench, drop)
            file = f"drop-{drop:06d}.parquet"
            hidden = hidden_at(frame, root / "events" / f".{file}.tmp")
            marks = [key_of(name, bench.size.entities + drop) for name in names]
            target = root / "events" / file
            ours.append(seconds(partial(_dropped, connection, hidden, target, marks)))
            until(lambda: not any(t.behind for t in project.work_queue.read(list(names))))
            # Workers fork and warm up ahead of the next drop: not at the floor's cost.
            time.sleep(_REST_S)
            hidden = hidden_at(frame, bare / "events" / f".{file}.tmp")
            floors.append(seconds(partial(floor.take, hidden, bare / "events" / file)))
    _check_values(bench, frame, names)
    project.definitions.close()
    project.redis.close()
    many = "1 feature" if len(names) == 1 else f"{len(names)} features"
    return _rows(number, many, (ours[_WARM_UP:], floors[_WARM_UP:]), limits)


def marked(bench: Bench, number: int) -> pl.DataFrame:
    """The drop of that number, its last event of an entity that was never seen before."""
    frame = data.drop(bench.size, number)
    new = frame["user_id"].clone().scatter(frame.height - 1, bench.size.entities + number)
    return frame.with_columns(new)


def hidden_at(frame: pl.DataFrame, path: Path) -> Path:
    frame.write_parquet(path)
    return path


def key_of(feature: str, user: int) -> str:
    return f"mlforge:{feature}:{key_hash({'user_id': user})}"


def _dropped(connection: socket.socket, hidden: Path, path: Path, marks: list[str]) -> None:
    """Rename a file into the source, and return when the new entity's rows are all readable.

    The server is asked by prebuilt bytes: what asking takes is no part of what is measured.
    """
    question, all_there = resp.command("EXISTS", *marks), b":%d\r\n" % len(marks)

    def are_readable() -> bool:
        connection.sendall(question)
        return connection.recv(64) == all_there

    hidden.rename(path)
    until(are_readable)


def until(condition: Callable[[], bool], within_s: float = _PATIENCE_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        check(
            time.monotonic() < deadline,
            f"what was dropped was not readable within {within_s:.0f} s",
        )
        time.sleep(_POLL_S)


@contextmanager
def running(root: Path, url: str, workers: int) -> Iterator[None]:
    """A watcher and workers, once the server has written its file anew; what they say goes into a file."""
    with Redis.from_url(url) as client:
        _write_anew(client)
    environment = os.environ | {"REDIS_URL": url, DEFINITIONS: str(root / "definitions.py")}
    commands = [["watch"], *[["worker"]] * workers]
    with (root / "output.log").open("wb") as log:
        processes = [
            subprocess.Popen(
                bound_to_parent([sys.executable, "-m", "mlforge", *command]),
                cwd=root,
                env=environment,
                stdout=log,
                stderr=log,
            )
            for command in commands
        ]
        try:
            yield
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                try:
                    process.wait(_STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _write_anew(client: Redis) -> None:
    """Have the server write its file anew: the rows of a build, which are more than those of a thousand drops, would have it do so amid some.

    That takes a core for as many seconds as there are millions of rows, and the server a copy of each page that it changes meanwhile.
    """
    until(lambda: not _is_writing_anew(client))
    client.bgrewriteaof()
    until(lambda: not _is_writing_anew(client))


def _is_writing_anew(client: Redis) -> bool:
    state: Any = client.info("persistence")
    return bool(state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"])


def _check_values(bench: Bench, drop: pl.DataFrame, names: Sequence[str]) -> None:
    """The rows of the last drop's entities are those of the floor."""
    users = drop["user_id"].to_list()
    for feature in names:
        ours = bench.client.mget([key_of(feature, user) for user in users])
        theirs = bench.client.mget([f"floor:{feature}:{user}" for user in users])
        for user, mine, other in zip(users, ours, theirs, strict=True):
            check(bool(mine and other), f"{feature} of {user} is there on both sides")
            a, b = json.loads(mine), json.loads(other)
            same = a.keys() == b.keys() and all(
                a[name] == b[name] or math.isclose(a[name], b[name], rel_tol=1e-9) for name in a
            )
            check(same, f"{feature} of {user}: {a}, the floor has {b}")


def _rows(
    number: str, many: str, times: tuple[list[float], list[float]], limits: _Limits
) -> list[Row]:
    ours, floors = times
    block = max(1, len(ours) // _BLOCKS)
    cuts = range(0, len(ours) - block + 1, block)
    spread = [
        percentile(ours[at : at + block], 0.5) / percentile(floors[at : at + block], 0.5)
        for at in cuts
    ]
    shares = (("p50", 0.50, spread, limits.p50), ("p99", 0.99, [], limits.p99))
    return [
        Row(
            number,
            f"rename to readable, {many}: {name}",
            MILLISECONDS.of(percentile(ours, share)),
            f"the floor: {MILLISECONDS.of(percentile(floors, share))}",
            values or [percentile(ours, share) / percentile(floors, share)],
            Target(limit),
        )
        for name, share, values, limit in shares
    ]


MEASURES = (
    Measure(
        "3",
        "from a file's rename to its rows' being readable, against a bare script",
        "p50 <= 1x, p99 <= 1.6x",
        partial(_run, "3", tuple(FEATURES), _Limits(1.0, 1.6)),
    ),
    Measure(
        "3b",
        "the same for one feature, against a bare script of one",
        "p50 <= 1x, p99 <= 1.6x",
        partial(_run, "3b", ("spend",), _Limits(1.0, 1.6)),
    ),
)
