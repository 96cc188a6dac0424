"""Measure 15c: the HTTP server of a running `mlforge up`, while drops are pushed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.freshness import until
from benchmarks.harness import Bench, Measure, Row, Target, check
from benchmarks.http_load import Load
from benchmarks.serving_site import FEATURE, PREFIX, READY, SOURCE, Server, Site
from mlforge.frames.encoding import key_hash

_PER_SECOND = 20
"""Drops that come while the server is asked."""
_SERVING = re.compile(r"server: serving .* at http://127\.0\.0\.1:(\d+);")


def _while_drops_are_pushed(bench: Bench) -> list[Row]:
    site = Site.built(bench, drops=2_000)
    rounds: dict[int, list[tuple[Load, Load]]] = {1: [], 32: []}
    rates: list[float] = []
    bodies = site.bodies(1)
    with _up(site) as server:
        drops = _Drops(site)
        drops.take(1)
        server.post(bodies[0])
        for _ in range(bench.repeat):
            at_rest = {count: site.load(server, bodies, count) for count in rounds}
            with drops.coming():
                busy = {count: site.load(server, bodies, count) for count in rounds}
            rates.append(drops.rate)
            for count, pairs in rounds.items():
                pairs.append((at_rest[count], busy[count]))
    # Fewer say nothing about the target: the machine was too slow.
    target = Target(2.0) if min(rates) > 0.9 * _PER_SECOND else None
    return [
        Row(
            "15c",
            f"HTTP, 1 x 3, {count} connection{'s' * (count > 1)}, while drops are pushed: p99",
            f"{pairs[-1][1]}; {min(rates):.1f} drops/s",
            f"at rest: {pairs[-1][0]}",
            [busy.p99 / rest.p99 for rest, busy in pairs],
            target,
        )
        for count, pairs in rounds.items()
    ]


@contextmanager
def _up(site: Site) -> Iterator[Server]:
    """The server of an `mlforge up`, with the benchmark's Redis, until the block ends; what it says goes into a file."""
    command = [sys.executable, "-m", "mlforge", "up", "--port=0", "--audit-every=0"]
    environment = os.environ | {
        "REDIS_URL": site.bench.url,
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    said = site.root / "output.log"
    with said.open("wb") as log:
        up = subprocess.Popen(command, cwd=site.root, env=environment, stdout=log, stderr=log)
        try:
            until(lambda: _SERVING.search(said.read_text()) is not None)
            serving = _SERVING.search(said.read_text())
            assert serving
            yield Server(up, int(serving[1]), site.ours("live").path)
        finally:
            up.terminate()
            up.wait()


class _Drops:
    """The drops that lie ready for a site; `rate`: how many a second of the last ones came, were refreshed and pushed."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._ready = deque(sorted((site.root / READY).iterdir()))
        self._count = 0
        self.rate = 0.0

    def take(self, count: int) -> None:
        """Put so many into the source, and return when the last one is online."""
        for _ in range(count):
            self._put()
        self._wait()

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Have drops come at their pace until the block ends, and return when the last one is online."""
        over, before, began = threading.Event(), self._count, time.monotonic()

        def come() -> None:
            while not over.wait(began + (self._count - before) / _PER_SECOND - time.monotonic()):
                self._put()

        thread = threading.Thread(target=come)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        self._wait()
        self.rate = (self._count - before) / (time.monotonic() - began)

    def _put(self) -> None:
        check(bool(self._ready), "enough drops lie ready")
        file = self._ready.popleft()
        file.rename(self._site.root / SOURCE / file.name)
        self._count += 1

    def _wait(self) -> None:
        marked = {"user_id": self._site.rows.height + self._count - 1}
        key = f"{PREFIX}:{FEATURE}:{key_hash(marked)}"
        until(lambda: bool(self._site.bench.client.exists(key)))


MEASURES = (
    Measure(
        "15c",
        "requests over HTTP while 20 drops a second are pushed",
        "p99 <= 2x",
        _while_drops_are_pushed,
    ),
)
