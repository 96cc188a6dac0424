"""Measure 15: the HTTP server, against a bare application that passes stored rows through."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import data
from benchmarks.harness import Bench, Measure, Row, Target, Unit, check, median_of, ratios
from benchmarks.reads import fill_plain
from mlforge.definitions.loader import load
from mlforge.serve.server import listening

_MICROSECONDS = Unit(1_000_000, " us CPU", 0)
_SECONDS = 2.0
_DEFINITIONS = """
import polars as pl
from mlforge import Definitions, Service, feature
from mlforge.online import RedisStore
from mlforge.store import LocalStore

def columns(df):
    return df.select(pl.all())

features = [feature(name=name, keys=["user_id"], source="rows.parquet")(columns) for name in {names!r}]
defs = Definitions(
    LocalStore("store"),
    features,
    RedisStore.from_url({url!r}, prefix="http"),
    services=[Service("three", features=features)],
)
"""
_NAMES = ("first", "second", "third")


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
        with urllib.request.urlopen(urllib.request.Request(url, body)) as answer:
            content: bytes = answer.read()
            return content


def _run(bench: Bench) -> list[Row]:
    entities = min(bench.size.online, 10_000)
    root = bench.new_folder("http")
    frame = data.profiles(entities)
    data.put(frame, root / "rows.parquet")
    text = _DEFINITIONS.format(names=_NAMES, url=bench.url)
    (root / "definitions.py").write_text(text)
    definitions = load(None, here=root)
    definitions.build(online=True)
    definitions.close()
    fill_plain(bench, frame, _NAMES)
    with ExitStack() as stack:
        ours, floor = (
            stack.enter_context(_running(bench, root, *place))
            for place in (
                ("mlforge.serve:app", "/v1/services/three"),
                ("benchmarks.http_floor:app", "/"),
            )
        )
        return [
            _row(bench, ours, floor, size, connections, limit, entities)
            for size, connections, limit in ((1, 32, 1.5), (100, 8, 1.5))
        ]


def _row(
    bench: Bench,
    ours: _Server,
    floor: _Server,
    size: int,
    connections: int,
    limit: float,
    entities: int,
) -> Row:
    bodies = [
        json.dumps(
            {"entities": [{"user_id": (start + k) * 7_919 % entities} for k in range(size)]}
        ).encode()
        for start in range(0, 200 * size, size)
    ]
    for body in bodies[:10]:
        same = json.loads(ours.post(body))["features"] == json.loads(floor.post(body))["features"]
        check(same, f"{size} x 3 answers as the stored rows are")
    seconds = _SECONDS if bench.size.name != "tiny" else 0.2
    mine: list[float] = []
    theirs: list[float] = []
    rates: list[float] = []
    for _ in range(bench.repeat):
        for server, costs in ((ours, mine), (floor, theirs)):
            before = server.cpu_s
            count = asyncio.run(_load(server, bodies, connections, seconds))
            costs.append(max(server.cpu_s - before, 0.01) / count)
            if server is ours:
                rates.append(count / seconds)
    return Row(
        "15",
        f"HTTP, {size} x 3, {connections} connections",
        f"{median_of(mine, _MICROSECONDS)}, {sorted(rates)[len(rates) // 2]:,.0f}/s",
        f"bare ASGI, stored bytes: {median_of(theirs, _MICROSECONDS)}",
        ratios(mine, theirs),
        Target(limit),
    )


async def _load(server: _Server, bodies: Sequence[bytes], connections: int, seconds: float) -> int:
    """How many requests were answered within the time, by as many connections at once."""
    until = time.perf_counter() + seconds
    heads = f"POST {server.path} HTTP/1.1\r\nhost: x\r\ncontent-length: "
    messages = [f"{heads}{len(body)}\r\n\r\n".encode() + body for body in bodies]

    async def caller(offset: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        count = 0
        while time.perf_counter() < until:
            writer.write(messages[(offset + count) % len(messages)])
            head = await reader.readuntil(b"\r\n\r\n")
            check(head.startswith(b"HTTP/1.1 200"), "each request is answered")
            length = next(
                line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
            )
            await reader.readexactly(int(length.partition(b":")[2]))
            count += 1
        writer.close()
        await writer.wait_closed()
        return count

    return sum(await asyncio.gather(*(caller(k * 7) for k in range(connections))))


@contextmanager
def _running(bench: Bench, root: Path, app: str, path: str) -> Iterator[_Server]:
    """A process of uvicorn with an application, until the block ends."""
    with listening("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", app, f"--fd={free.fileno()}"]
        environment = dict(os.environ) | {
            "REDIS_URL": bench.url,
            "MLFORGE_DEFINITIONS": str(root / "definitions.py"),
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        process = subprocess.Popen(
            [*command, "--log-level=warning", "--no-access-log"],
            env=environment,
            pass_fds=[free.fileno()],
        )
    try:
        yield _Server(process, port, path)
    finally:
        process.terminate()
        process.wait()


MEASURES = (Measure("15", "requests over HTTP, against a bare application", "<= 1.5x", _run),)
