"""The time that the steps of a work take, one after the other."""

from __future__ import annotations

import time
from collections.abc import Mapping


class Steps:
    """Seconds by step: each step lasts from the end of the one before, the first from the making of this."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds so far by step, in the order in which the steps first ended."""
        return dict(self._seconds)

    def end(self, step: str) -> None:
        """Count the time since the last end for this step, in addition to what it took before."""
        now = time.perf_counter()
        self._seconds[step] = self._seconds.get(step, 0.0) + now - self._since
        self._since = now
