"""Load on an HTTP server: so many connections, each asking again once it is answered, and how long each answer took."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.harness import check, percentile

_SCRIPT = """
local bodies, next_body = {%s}, 0
wrk.headers["content-type"] = "application/json"
request = function()
  next_body = next_body %% #bodies + 1
  return wrk.format("POST", nil, nil, bodies[next_body])
end
done = function(summary, latency)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.status + summary.errors.timeout
  io.write(string.format("\\n%%d %%d %%d %%d %%d\\n", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), failed))
end
"""


@dataclass(frozen=True)
class Load:
    """What a load came to: requests answered in a second, and seconds within which half and 99 of 100 were."""

    count: int
    seconds: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.count / self.seconds

    def __str__(self) -> str:
        return f"{self.rate:,.0f}/s, p50 {self.p50 * 1000:.2f} ms, p99 {self.p99 * 1000:.2f} ms"


def load(
    port: int, path: str, bodies: Sequence[bytes], connections: int, seconds: float, folder: Path
) -> Load:
    """Post these bodies by turns for a time; WrongResult where one is not answered with 200.

    By wrk where that is installed, which takes little of the machine; else by this process. folder: for wrk's script.
    """
    if shutil.which("wrk") is not None and seconds >= 1:
        return _by_wrk(port, path, bodies, connections, seconds, folder)
    return asyncio.run(_by_asyncio(port, path, bodies, connections, seconds))


def _by_wrk(
    port: int, path: str, bodies: Sequence[bytes], connections: int, seconds: float, folder: Path
) -> Load:
    script = folder / f"load-{os.getpid()}.lua"
    texts = ",".join(json.dumps(body.decode()) for body in bodies)
    script.write_text(_SCRIPT % texts)
    url = f"http://127.0.0.1:{port}{path}"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{round(seconds)}s", "-s", str(script), url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    count, took, p50, p99, failed = map(int, output.splitlines()[-1].split())
    check(not failed and count > 0, f"each request is answered, {failed} of {count} were not")
    return Load(count, took / 1e6, p50 / 1e6, p99 / 1e6)


async def _by_asyncio(
    port: int, path: str, bodies: Sequence[bytes], connections: int, seconds: float
) -> Load:
    begun = time.perf_counter()
    heads = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: "
    messages = [f"{heads}{len(body)}\r\n\r\n".encode() + body for body in bodies]
    times: list[float] = []

    async def caller(offset: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        count = 0
        while (asked := time.perf_counter()) < begun + seconds:
            writer.write(messages[(offset + count) % len(messages)])
            head = await reader.readuntil(b"\r\n\r\n")
            check(head.startswith(b"HTTP/1.1 200"), "each request is answered")
            length = next(
                line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
            )
            await reader.readexactly(int(length.partition(b":")[2]))
            times.append(time.perf_counter() - asked)
            count += 1
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(caller(k * 7) for k in range(connections)))
    took = time.perf_counter() - begun
    return Load(len(times), took, percentile(times, 0.5), percentile(times, 0.99))


def redis_benchmark(url: str, keys: Sequence[str], connections: int, count: int) -> Load | None:
    """How redis-benchmark fares with one MGET of these keys; None where neither it nor Valkey's is installed."""
    program = next(filter(None, map(shutil.which, ("redis-benchmark", "valkey-benchmark"))), None)
    if program is None:
        return None
    at = urlsplit(url)
    server = ["-h", str(at.hostname), "-p", str(at.port), "-a", str(at.password)]
    load = ["-c", str(connections), "-n", str(count), "--csv"]
    command = [program, *server, *load, "MGET", *keys]
    begun = time.perf_counter()
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    took = time.perf_counter() - begun
    names, values = (line.split(",") for line in output.strip().splitlines()[-2:])
    figures = dict(zip((n.strip('"') for n in names), (v.strip('"') for v in values), strict=False))
    rate = float(figures["rps"])
    p50, p99 = (float(figures[f"p{share}_latency_ms"]) / 1000 for share in (50, 99))
    return Load(count, count / rate if rate else took, p50, p99)
