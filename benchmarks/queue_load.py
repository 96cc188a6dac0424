"""`python -m benchmarks.queue_load`: what a watcher and the work queue of an embedded server do at so many drops a second into many sources.

No measure of the table: a simulation for the page "Scale". A process requests and counts what each turn of a watcher has seen, as
`mlforge watch` does; with `--files` the turns are those of a watcher that sees files which another process drops, else they are made
up. Threads take the jobs, and hold each feature's lease for as long as a refresh takes, without refreshing.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

from benchmarks.queue_turns import Load, Sent, made_up, process, watched
from worker.logs import configure
from worker.queue import JobQueue, enqueue
from worker.queue.intake import queue_named
from worker.queue.rq_queue import queue_of
from worker.service.embedded_redis import EmbeddedServer


def main() -> None:
    """Print the drops, the marks and the refreshes of a load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=int, default=1_000)
    parser.add_argument("--features", type=int, default=1, help="features that read a source")
    parser.add_argument("--rate", type=float, default=10_000.0, help="drops a second")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=10, help="refreshes at once")
    parser.add_argument(
        "--refresh", type=float, default=0.09, help="seconds of a refresh and its push"
    )
    parser.add_argument("--files", action="store_true", help="have a watcher see real files")
    asked = parser.parse_args()
    configure("workers", "WARNING")
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder) / "redis") as server:
        load = Load(
            *(Path(folder), server.url, asked.sources, asked.features),
            *(asked.rate, asked.seconds, asked.workers, asked.refresh),
        )
        print(_run(load, asked.files))


def _run(load: Load, are_files: bool) -> str:
    with _refreshing(load) as served, process() as pool:
        spent = _server_cpu(load.url)
        sent = pool.submit(watched if are_files else made_up, load).result()
        spent = _server_cpu(load.url) - spent
    names = [name for source in range(load.sources) for name in load.names(source)]
    behind = [ticket.feature for ticket in load.project().work_queue.read(names) if ticket.behind]
    return f"{_told(sent, spent)}\n{served}, {len(behind)} features left behind"


def _told(sent: Sent, server_s: float) -> str:
    drops, marks, seconds = sent.drops, sent.marks, sent.seconds
    return (
        f"{drops:,} drops in {seconds:.1f} s: {drops / seconds:,.0f}/s as {marks / seconds:,.0f} marks/s in {sent.turns:,} turns, "
        f"the longest of {sent.longest_s * 1e3:.0f} ms; the watcher took {sent.cpu_s / seconds:.0%} of a core: {sent.cpu_s / drops * 1e6:.0f} us a "
        f"drop, {sent.cpu_s / marks * 1e6:.0f} us a mark; the server {server_s / seconds:.0%}: {server_s / marks * 1e6:.0f} us a mark"
    )


def _server_cpu(url: str) -> float:
    cpu: Any = Redis.from_url(url).info("cpu")
    return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])


@dataclass
class _Refreshes:
    """The refreshes that marks became, and those of them that knew which files had changed."""

    many: int = 0
    named: int = 0

    def __str__(self) -> str:
        return f"{self.many:,} refreshes, {self.named:,} of which knew their files by name"


@contextmanager
def _refreshing(load: Load) -> Iterator[_Refreshes]:
    """Have jobs taken within the block, and then until none is left."""
    refreshes, ended = _Refreshes(), threading.Event()
    with ThreadPoolExecutor(load.workers) as pool:
        workers = [pool.submit(_refresh, load, refreshes, ended) for _ in range(load.workers)]
        try:
            yield refreshes
        finally:
            ended.set()
    for worker in workers:
        worker.result()


def _refresh(load: Load, refreshes: _Refreshes, ended: threading.Event) -> None:
    """Take jobs as a worker does, until there are none once it has ended."""
    project = load.project()
    queue, jobs = project.work_queue, JobQueue(project.redis, project.scope)
    key = queue_named(queue_of(project.scope), project.redis).key
    while True:
        is_last = ended.is_set()
        taken: Any = project.redis.blpop([key], timeout=1)
        if taken is None:
            if is_last:
                return
            continue
        job = taken[1].decode()
        jobs.remove(job)
        lease = queue.start(job.rpartition("-")[0], job)
        if lease is not None:
            time.sleep(load.refresh_s)
            looked = "all" if lease.paths is None else "named"
            enqueue(project, lease.feature, queue.done(lease, looked))
            refreshes.many += 1
            refreshes.named += lease.paths is not None


if __name__ == "__main__":
    main()
