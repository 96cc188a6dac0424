"""Measures 15, 15b and 15c: the HTTP server, against a bare application, redis-benchmark and Feast, and while drops are pushed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl

from benchmarks import data
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
from benchmarks.http_load import Load, load, redis_benchmark
from benchmarks.pushing import FEATURE, READY, SOURCE
from benchmarks.reads import fill_plain
from mlforge.definitions.loader import load as load_definitions
from mlforge.serve.server import listening
from worker.child_process import bound_to_parent
from worker.service.up import GIVES_WAY

_MICROSECONDS = Unit(1_000_000, " us CPU", 0)
_DEFINITIONS = """
import polars as pl
from mlforge import Definitions, Service, feature
from mlforge.metrics import Rolling
from mlforge.online import RedisStore
from mlforge.store import LocalStore

def columns(df):
    return df.select(pl.all())

@feature(keys=["user_id"], source="{source}/", timestamp="event_time", metrics=[Rolling(["7d", "30d"], {{"amount": ["sum", "mean", "count"]}})])
def {live}(df):
    return df.select("user_id", "event_time", "amount")

features = [feature(name=name, keys=["user_id"], source="rows.parquet")(columns) for name in {names!r}]
defs = Definitions(
    LocalStore("store"),
    [*features, {live}],
    RedisStore.from_url({url!r}, prefix="http"),
    services=[Service("three", features=features), Service("live", features=[*features[:2], {live}])],
)
"""
_NAMES = ("first", "second", "third")
_SHAPES = ((1, 1), (1, 32), (100, 8))
"""Entities of a request, and connections."""
_PER_SECOND = 20
"""Drops that are pushed while measure 15c reads."""
_OF_A_DROP = 100
_SMALL_HISTORY = 20_000


@dataclass(frozen=True)
class _Server:
    """A process that serves at a port of this machine."""

    process: subprocess.Popen[bytes]
    port: int
    path: str

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU that the process has taken so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def post(self, body: bytes) -> bytes:
        """The answer to one request."""
        url = f"http://127.0.0.1:{self.port}{self.path}"
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            content: bytes = answer.read()
            return content


@dataclass(frozen=True)
class _Site:
    """A project whose features are built and online, and the folder that it lies in."""

    bench: Bench
    root: Path
    rows: pl.DataFrame

    @classmethod
    def built(cls, bench: Bench, drops: int = 0) -> _Site:
        """The project; drops: how many lie ready for its source."""
        root = bench.new_folder("http")
        rows = data.profiles(min(bench.size.online, 10_000))
        data.put(rows, root / "rows.parquet")
        text = _DEFINITIONS.format(names=_NAMES, url=bench.url, live=FEATURE, source=SOURCE)
        (root / "definitions.py").write_text(text)
        (root / SOURCE).mkdir()
        (root / READY).mkdir()
        events = bench.size.events
        # Few events and users beside many drops: what is measured is the server, and the drops have to keep their pace.
        history = min(events // 2, _SMALL_HISTORY if drops else 1_000_000)
        users = pl.col("user_id") % rows.height
        data.put(
            data.events(bench.size, 0, history).with_columns(users),
            root / SOURCE / "history.parquet",
        )
        for number in range(min(drops, (events - history) // _OF_A_DROP)):
            start = history + number * _OF_A_DROP
            frame = data.events(bench.size, start, start + _OF_A_DROP).with_columns(users)
            data.put(frame, root / READY / f"drop-{number:06d}.parquet")
        definitions = load_definitions(None, here=root)
        definitions.build(online=True)
        definitions.close()
        fill_plain(bench, rows, _NAMES)
        return cls(bench, root, rows)

    @property
    def seconds(self) -> float:
        """How long a load lasts."""
        return 2.0 if self.bench.size.name != "tiny" else 0.2

    def users(self, size: int) -> list[list[int]]:
        """The entities of a load's requests."""
        starts = range(0, 200 * size, size)
        return [[(start + k) * 7_919 % self.rows.height for k in range(size)] for start in starts]

    def bodies(self, size: int) -> list[bytes]:
        """A load's requests, as our server and the bare application take them."""
        return [_body({"entities": [{"user_id": u} for u in users]}) for users in self.users(size)]

    def ours(self, service: str = "three") -> _Running:
        """Our server."""
        command = [sys.executable, "-m", "mlforge", "serve", "--fd"]
        return _Running(self, command, f"/v1/services/{service}")

    def floor(self) -> _Running:
        """The bare application."""
        return _Running(self, [sys.executable, "-m", "benchmarks.http_floor"], "/")

    def feast(self, python: str) -> _Running:
        """Feast's feature server, over the same rows."""
        timed = self.rows.with_columns(event_time=pl.lit(datetime(2026, 1, 1, tzinfo=UTC)))
        data.put(timed, self.root / "timed.parquet")
        address = urlsplit(self.bench.url)
        arguments = {
            "table": str(self.root / "timed.parquet"),
            "registry": str(self.root / "registry.db"),
            "connection": f"{address.hostname}:{address.port},password={address.password}",
            "names": _NAMES,
            "columns": [name for name in self.rows.columns if name != "user_id"],
        }
        script = str(Path(__file__).with_name("feast_server.py"))
        return _Running(self, [python, script, json.dumps(arguments)], "/get-online-features")

    def load(self, server: _Server, bodies: Sequence[bytes], connections: int) -> Load:
        """A load on a server of this project."""
        return load(server.port, server.path, bodies, connections, self.seconds, self.root)


@dataclass(frozen=True)
class _Running:
    """A server to be started: what runs it, and the path that it answers at.

    The number of its socket is the command's last argument.
    """

    site: _Site
    command: Sequence[str]
    path: str

    @contextmanager
    def started(self) -> Iterator[_Server]:
        """The process, until the block ends."""
        with listening("127.0.0.1", 0) as free:
            port, number = free.getsockname()[1], free.fileno()
            environment = dict(os.environ) | {
                "REDIS_URL": self.site.bench.url,
                "MLFORGE_DEFINITIONS": str(self.site.root / "definitions.py"),
                "PYTHONPATH": str(Path(__file__).parents[1]),
            }
            process = subprocess.Popen(
                [*self.command, str(number)],
                env=environment,
                pass_fds=[number],
                stdout=subprocess.DEVNULL,
            )
        try:
            yield _Server(process, port, self.path)
        finally:
            process.terminate()
            process.wait()


def _body(document: object) -> bytes:
    return json.dumps(document).encode()


def _against_the_floor(bench: Bench) -> list[Row]:
    """Measure 15."""
    site = _Site.built(bench)
    with site.ours().started() as ours, site.floor().started() as floor:
        return [
            _floor_row(site, ours, floor, size, connections) for size, connections in _SHAPES[1:]
        ]


def _floor_row(site: _Site, ours: _Server, floor: _Server, size: int, connections: int) -> Row:
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
    site: _Site, server: _Server, bodies: Sequence[bytes], connections: int
) -> tuple[Load, float]:
    """A load, and the CPU seconds of the server's process for each of its requests."""
    before = server.cpu_s
    done = site.load(server, bodies, connections)
    return done, max(server.cpu_s - before, 0.01) / done.count


def _against_peers(bench: Bench) -> list[Row]:
    """Measure 15b: the rows of each shape, beside redis-benchmark, and Feast where its Python is named."""
    site = _Site.built(bench)
    with ExitStack() as stack:
        ours = stack.enter_context(site.ours().started())
        ours.post(site.bodies(1)[0])  # it has begun
        feast = None
        if bench.feast is not None:
            feast = stack.enter_context(site.feast(bench.feast).started())
        return [row for shape in _SHAPES for row in _peer_rows(site, ours, feast, *shape)]


def _peer_rows(
    site: _Site, ours: _Server, feast: _Server | None, size: int, connections: int
) -> Iterator[Row]:
    users, bodies = site.users(size), site.bodies(size)
    for_feast = [_feast_body(site, each) for each in users]
    if feast is not None:
        for body, other in zip(bodies[:10], for_feast, strict=False):
            _check_same_values(json.loads(ours.post(body)), json.loads(feast.post(other)))
    keys = [f"plain:{name}:{user}" for name in _NAMES for user in users[0]]
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


def _feast_body(site: _Site, users: Sequence[int]) -> bytes:
    columns = [name for name in site.rows.columns if name != "user_id"]
    features = [f"{name}:{column}" for name in _NAMES for column in columns]
    request = {"features": features, "entities": {"user_id": users}, "full_feature_names": True}
    return _body(request)


def _check_same_values(ours: dict[str, dict[str, list[dict[str, float]]]], theirs: Mapping[str, object]) -> None:  # fmt: skip
    names, results = theirs["metadata"]["feature_names"], theirs["results"]  # type: ignore[index]
    of_feast = {name: result["values"] for name, result in zip(names, results, strict=True)}
    for feature, rows in ours["features"].items():
        for column in rows[0]:
            values = [row[column] for row in rows]
            check(values == of_feast[f"{feature}__{column}"], f"Feast answers {column} alike")


def _while_drops_are_pushed(bench: Bench) -> list[Row]:
    """Measure 15c."""
    site = _Site.built(bench, drops=2_000)
    rounds: dict[int, list[tuple[Load, Load]]] = {1: [], 32: []}
    rates: list[float] = []
    with site.ours("live").started() as server:
        bodies = site.bodies(1)
        server.post(bodies[0])
        for _ in range(bench.repeat):
            at_rest = {count: site.load(server, bodies, count) for count in rounds}
            with _pushing(site) as pushing:
                busy = {count: site.load(server, bodies, count) for count in rounds}
            rates.append(pushing.rate)
            for count, pairs in rounds.items():
                pairs.append((at_rest[count], busy[count]))
    return [
        Row(
            "15c",
            f"HTTP, 1 x 3, {count} connection{'s' * (count > 1)}, while drops are pushed: p99",
            f"{pairs[-1][1]}; {min(rates):.1f} drops/s",
            f"at rest: {pairs[-1][0]}",
            [busy.p99 / rest.p99 for rest, busy in pairs],
            Target(2.0)
            if min(rates) > 0.9 * _PER_SECOND
            else None,  # else the machine was too slow
        )
        for count, pairs in rounds.items()
    ]


class _Pushing:
    """The process that pushes, and in the end how many drops a second that were."""

    def __init__(self, site: _Site) -> None:
        pushing = [sys.executable, "-m", "benchmarks.pushing", str(site.root), str(_PER_SECOND)]
        command = bound_to_parent(pushing, GIVES_WAY)
        environment = dict(os.environ) | {"PYTHONPATH": str(Path(__file__).parents[1])}
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.rate = 0.0
        assert self._process.stdout is not None
        check(bool(self._process.stdout.readline()), "a first drop is pushed")

    def end(self) -> None:
        """Let it end after the drop in hand."""
        output, _ = self._process.communicate()
        check(self._process.returncode == 0, "drops are pushed")
        count, seconds = map(float, output.split())
        self.rate = count / seconds


@contextmanager
def _pushing(site: _Site) -> Iterator[_Pushing]:
    """A process that pushes drops until the block ends."""
    pushing = _Pushing(site)
    try:
        yield pushing
    finally:
        pushing.end()


MEASURES = (
    Measure("15", "requests over HTTP, against a bare application", "<= 1.5x", _against_the_floor),
    Measure(
        "15b",
        "requests over HTTP, beside redis-benchmark's MGET and Feast's server (--feast)",
        "p99 <= 3 ms, <= 70 and <= 500 us CPU",
        _against_peers,
    ),
    Measure(
        "15c",
        "requests over HTTP while 20 drops a second are pushed",
        "p99 <= 2x",
        _while_drops_are_pushed,
    ),
)
