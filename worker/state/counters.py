"""Counters of what has happened so far: kept in Redis, so that forked jobs count too."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from redis import Redis

from worker.state.figures import Addition, add_each
from worker.state.pending import PendingRequest

BUCKETS_S = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of the freshness histogram; the last bucket has none."""

# KEYS: the counters of features. A drop is counted for each; the places of those that are no counters are returned.
_ADD_DROPS = """
local refused = {}
for place, key in ipairs(KEYS) do
  if type(redis.pcall('HINCRBY', key, 'drops', 1)) == 'table' then refused[#refused + 1] = place end
end
return refused
"""

# ARGV: the names of counters, each with what it rises by; fractions alone have a point.
_RISE = """
for n = 1, #ARGV, 2 do
  local rise = string.find(ARGV[n + 1], '.', 1, true) and 'HINCRBYFLOAT' or 'HINCRBY'
  redis.call(rise, KEYS[1], ARGV[n], ARGV[n + 1])
end
"""


class Counts:
    """Counters of one project by feature, named as the metrics are."""

    def __init__(self, redis: Redis, scope: str) -> None:
        self._redis = redis
        self._prefix = f"mlforge-work:{scope}:counts"
        self._add_drops = redis.register_script(_ADD_DROPS)

    def add(self, feature: str, amounts: Mapping[str, int]) -> None:
        """Raise counters."""
        add_each(self._redis, self.rise(feature, amounts))

    def rise(
        self,
        feature: str,
        amounts: Mapping[str, int],
        fresh_s: float | None = None,
        steps_ms: Mapping[str, float] = MappingProxyType({}),
    ) -> Addition:
        """The rise of counters, to be added; `fresh_s` is one drop's time from close to readable, `steps_ms` what its steps took."""
        key = self._key(feature)
        rises = {name: str(amount) for name, amount in amounts.items() if amount}
        if fresh_s is not None:
            rises[f"bucket_{bisect_left(BUCKETS_S, fresh_s)}"] = "1"
            rises["freshness_sum"] = f"{fresh_s:.6f}"
        rises |= {f"step_{step}": f"{ms / 1000:.6f}" for step, ms in steps_ms.items()}
        if steps_ms:
            rises["steps"] = "1"
        told = [text for rise in rises.items() for text in rise]
        return Addition(key, lambda pipeline: pipeline.eval(_RISE, 1, key, *told))

    def add_drops(self, requests: Mapping[str, PendingRequest]) -> None:
        """Count a drop of each feature whose request is about files, in one trip."""
        features = [f for f, request in requests.items() if request.closed_at is not None]
        if features:
            refused: Any = self._add_drops([self._key(feature) for feature in features])
            for place in refused:
                self.add(features[place - 1], {"drops": 1})

    def read(self, feature: str) -> dict[str, float]:
        """The feature's counters by name; counters that never rose are absent."""
        raw: Any = self._redis.hgetall(self._key(feature))
        counts: dict[str, float] = {}
        for name, value in raw.items():
            with suppress(ValueError):  # somebody else's writing
                counts[name.decode()] = float(value)
        return counts

    def forget(self, feature: str) -> None:
        """Remove the counters of a feature that is gone."""
        self._redis.delete(self._key(feature))

    def _key(self, feature: str) -> str:
        return f"{self._prefix}:{feature}"


def buckets(counts: Mapping[str, float]) -> list[tuple[str, float]]:
    """The histogram as Prometheus wants it: upper bounds, and how many drops were at most so slow."""
    bounds = [*map(str, BUCKETS_S), "+Inf"]
    total, cumulative = 0.0, []
    for place, bound in enumerate(bounds):
        total += counts.get(f"bucket_{place}", 0.0)
        cumulative.append((bound, total))
    return cumulative
