"""A project that is served over HTTP, and the servers that answer for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl

from benchmarks import data
from benchmarks.harness import Bench
from benchmarks.http_load import Load, load
from benchmarks.reads import fill_plain
from mlforge.definitions.loader import load as load_definitions
from mlforge.serve.server import listening

PREFIX = "http"
FEATURE, READY, SOURCE = "spend", "ready", "events"
"""The feature that drops are for, the folder in which they lie ready, and the one of its source."""
OF_A_DROP = 100
_SMALL_HISTORY = 20_000
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
    RedisStore.from_url({url!r}, prefix={prefix!r}),
    services=[Service("three", features=features), Service("live", features=[*features[:2], {live}])],
)
"""
NAMES = ("first", "second", "third")


@dataclass(frozen=True)
class Server:
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
class Site:
    """A project whose features are built and online, and the folder that it lies in."""

    bench: Bench
    root: Path
    rows: pl.DataFrame

    @classmethod
    def built(cls, bench: Bench, drops: int = 0) -> Site:
        """The project. drops: how many lie ready for its source, the last event of each of a user that was never seen before."""
        root = bench.new_folder("http")
        rows = data.profiles(min(bench.size.online, 10_000))
        data.put(rows, root / "rows.parquet")
        text = _DEFINITIONS.format(
            names=NAMES, url=bench.url, prefix=PREFIX, live=FEATURE, source=SOURCE
        )
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
        for number in range(min(drops, (events - history) // OF_A_DROP)):
            start = history + number * OF_A_DROP
            frame = data.events(bench.size, start, start + OF_A_DROP).with_columns(users)
            new = frame["user_id"].clone().scatter(OF_A_DROP - 1, rows.height + number)
            data.put(frame.with_columns(new), root / READY / f"drop-{number:06d}.parquet")
        definitions = load_definitions(None, here=root)
        definitions.build(online=True)
        definitions.close()
        fill_plain(bench, rows, NAMES)
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
        return [
            body_of({"entities": [{"user_id": u} for u in users]}) for users in self.users(size)
        ]

    def ours(self, service: str = "three") -> Running:
        """Our server."""
        command = [sys.executable, "-m", "mlforge", "serve", "--fd"]
        return Running(self, command, f"/v1/services/{service}")

    def floor(self) -> Running:
        """The bare application."""
        return Running(self, [sys.executable, "-m", "benchmarks.http_floor"], "/")

    def feast(self, python: str) -> Running:
        """Feast's feature server, over the same rows."""
        timed = self.rows.with_columns(event_time=pl.lit(datetime(2026, 1, 1, tzinfo=UTC)))
        data.put(timed, self.root / "timed.parquet")
        address = urlsplit(self.bench.url)
        arguments = {
            "table": str(self.root / "timed.parquet"),
            "registry": str(self.root / "registry.db"),
            "connection": f"{address.hostname}:{address.port},password={address.password}",
            "names": NAMES,
            "columns": [name for name in self.rows.columns if name != "user_id"],
        }
        script = str(Path(__file__).with_name("feast_server.py"))
        return Running(self, [python, script, json.dumps(arguments)], "/get-online-features")

    def load(self, server: Server, bodies: Sequence[bytes], connections: int) -> Load:
        """A load on a server of this project."""
        return load(server.port, server.path, bodies, connections, self.seconds, self.root)


@dataclass(frozen=True)
class Running:
    """A server to be started: what runs it, and the path that it answers at.

    The number of its socket is the command's last argument.
    """

    site: Site
    command: Sequence[str]
    path: str

    @contextmanager
    def started(self) -> Iterator[Server]:
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
            yield Server(process, port, self.path)
        finally:
            process.terminate()
            process.wait()


def body_of(document: object) -> bytes:
    return json.dumps(document).encode()
