"""Counts and times of requests, and their text for Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets of times, in seconds."""


@dataclass
class _Times:
    """Times of requests: how many within each bound, the last of any length; and their sum in seconds."""

    within: list[int] = field(default_factory=lambda: [0] * (len(_BOUNDS) + 1))
    seconds: float = 0.0


@dataclass
class Counters:
    """Requests so far, by route and status, and how long they took by route.

    A route is one of a few: a path's pattern, or a service that there is, never a caller's own text.
    """

    in_flight: int = 0
    _counts: dict[tuple[str, int], int] = field(default_factory=dict)
    _times: dict[str, _Times] = field(default_factory=dict)

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count a request that has been answered."""
        key = (route, status)
        self._counts[key] = self._counts.get(key, 0) + 1
        times = self._times.get(route)
        if times is None:
            times = self._times[route] = _Times()
        times.within[bisect_left(_BOUNDS, seconds)] += 1
        times.seconds += seconds

    def text(self) -> str:
        """All figures in Prometheus' text format."""
        return "\n".join([*self._lines(), ""])

    def _lines(self) -> Iterator[str]:
        yield "# HELP mlforge_http_in_flight Requests that are being answered."
        yield "# TYPE mlforge_http_in_flight gauge"
        yield f"mlforge_http_in_flight {self.in_flight}"
        yield "# HELP mlforge_http_requests_total Requests that were answered."
        yield "# TYPE mlforge_http_requests_total counter"
        for (route, status), count in sorted(self._counts.items()):
            yield f'mlforge_http_requests_total{{route="{route}",status="{status}"}} {count}'
        yield "# HELP mlforge_http_request_seconds Time from a request's head to its answer."
        yield "# TYPE mlforge_http_request_seconds histogram"
        for route, times in sorted(self._times.items()):
            yield from _histogram(route, times)


def _histogram(route: str, times: _Times) -> Iterator[str]:
    name, total = "mlforge_http_request_seconds", 0
    for bound, count in zip((*map(str, _BOUNDS), "+Inf"), times.within, strict=True):
        total += count
        yield f'{name}_bucket{{route="{route}",le="{bound}"}} {total}'
    yield f'{name}_sum{{route="{route}"}} {times.seconds:.6f}'
    yield f'{name}_count{{route="{route}"}} {total}'
