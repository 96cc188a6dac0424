"""Notices of buckets' changes that came in over HTTP, on their way to the watcher: lost ones are made up for by listings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any

from redis import Redis
from redis.client import Pipeline

from worker.state.figures import Addition, add_each
from worker.supervision import FAULTS, pause_after, tell_fault

KEPT = 10_000
"""Addresses that wait at most: each only has a source listed sooner."""
_KEPT_S = 600
_WAIT_S = 2
"""How long a request waits for an address, and how long the thread may take to end."""


class Notices:
    """The addresses of objects that notices have named, the first first."""

    def __init__(self, redis: Redis, scope: str) -> None:
        self._redis = redis
        self._key = f"mlforge-work:{scope}:notices"

    def put(self, addresses: Sequence[str]) -> None:
        """Add addresses; the oldest of too many go, and all of them after some minutes without a watcher."""

        def put(pipeline: Pipeline) -> None:
            pipeline.rpush(self._key, *addresses)
            pipeline.ltrim(self._key, -KEPT, -1)
            pipeline.expire(self._key, _KEPT_S)

        add_each(self._redis, Addition(self._key, put))

    def run(self, told: Callable[[Collection[str]], None], stop: threading.Event) -> None:
        """Hand addresses on as they come until `stop` is set; where the server cannot be asked, again and again."""
        faults = 0
        while not stop.is_set():
            try:
                named: Any = self._redis.blpop([self._key], _WAIT_S)
                if named is not None:
                    told([named[1].decode(errors="replace")])
                faults = 0
            except FAULTS as error:
                faults += 1
                tell_fault("listen to notices of buckets", error)
                stop.wait(pause_after(faults))
