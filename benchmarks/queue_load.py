"""`python -m benchmarks.queue_load`: marks per second that the work queue of an embedded server takes, and how many refreshes they become.

No measure of the table: a simulation for the page "Scale". Clients mark features for files that they close; one worker holds each
feature's lease for as long as a refresh takes, as in `worker.queue.refresh_job`, without refreshing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

from worker.service.embedded_redis import EmbeddedServer
from worker.state.work_queue import WorkQueue

_SCOPE = "load"


@dataclass(frozen=True)
class Load:
    """So many clients mark so many features for so many seconds, together at `rate` marks a second, or as fast as they can at 0.

    together: how many features a file concerns, which are marked by one call.
    """

    clients: int
    features: int
    seconds: float
    rate: float
    refresh_s: float
    together: int


def main() -> None:
    """Print the marks and the refreshes of a load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--features", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=10_000.0)
    parser.add_argument(
        "--refresh", type=float, default=0.09, help="seconds of a refresh and its push"
    )
    parser.add_argument("--together", type=int, default=1, help="features that a file concerns")
    asked = parser.parse_args()
    load = Load(
        asked.clients, asked.features, asked.seconds, asked.rate, asked.refresh, asked.together
    )
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder)) as server:
        print(_run(load, server.url))


def _run(load: Load, url: str) -> str:
    context = multiprocessing.get_context("spawn")
    with context.Pool(load.clients + 1) as pool:
        refreshes = pool.apply_async(_worker, (load, url))
        spent = _server_cpu(url)
        marks = pool.starmap(_client, [(load, url, number) for number in range(load.clients)])
        served, spent = refreshes.get(), _server_cpu(url) - spent
    queue = WorkQueue(Redis.from_url(url), _SCOPE)
    behind = [ticket.feature for ticket in queue.read(_names(load)) if ticket.behind]
    total, longest = sum(each.marks for each in marks), max(each.seconds for each in marks)
    client = sum(each.cpu_s for each in marks) / total
    return (
        f"{total:,} marks in {longest:.1f} s: {total / longest:,.0f}/s; {served:,} refreshes of {load.features} features, "
        f"one for {total / max(1, served):,.0f} marks; {len(behind)} features left behind; CPU a mark: "
        f"{client * 1e6:.0f} us of a client, {spent / total * 1e6:.0f} us of the server with the worker's questions"
    )


@dataclass(frozen=True)
class Marked:
    """How many marks were accepted, and the time and the CPU time that this took."""

    marks: int
    seconds: float
    cpu_s: float


def _server_cpu(url: str) -> float:
    cpu: Any = Redis.from_url(url).info("cpu")
    return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])


def _client(load: Load, url: str, number: int) -> Marked:
    queue, names = WorkQueue(Redis.from_url(url), _SCOPE), _names(load)
    begun, cpu, marks = time.perf_counter(), time.process_time(), 0
    while (elapsed := time.perf_counter() - begun) < load.seconds:
        due = elapsed * load.rate / load.clients
        if load.rate and marks >= due:
            time.sleep(0.001)
            continue
        concerned = [names[(marks + number + n) % len(names)] for n in range(load.together)]
        file = f"drop-{number}-{marks:07d}.parquet"
        queue.request_each(
            concerned, f"{file} came", time.time_ns() // 1_000, paths=frozenset([file])
        )
        marks += load.together
    return Marked(marks, time.perf_counter() - begun, time.process_time() - cpu)


def _worker(load: Load, url: str) -> int:
    """How many refreshes the marks became: until none is open, and none has come for a second."""
    queue, names = WorkQueue(Redis.from_url(url), _SCOPE), _names(load)
    refreshes, idle_since = 0, time.perf_counter()
    while time.perf_counter() - idle_since < load.seconds + 1:
        open_ = [ticket for ticket in queue.read(names) if ticket.behind and not ticket.leased]
        leases = [queue.start(ticket.feature, ticket.queued or "job") for ticket in open_]
        held = [lease for lease in leases if lease is not None]
        if not held:
            time.sleep(0.01)
            continue
        time.sleep(load.refresh_s)
        for lease in held:
            queue.done(lease)
        refreshes += len(held)
        idle_since = time.perf_counter()
    return refreshes


def _names(load: Load) -> list[str]:
    return [f"feature_{number}" for number in range(load.features)]


if __name__ == "__main__":
    main()
