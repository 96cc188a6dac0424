"""A sketch of how many distinct values there are, which merges by taking the greater of each register (HyperLogLog).

The estimate is the improved one of Ertl, "New cardinality estimation algorithms for HyperLogLog sketches", 2017: it
has no range in which it is biased. Of 4,096 registers the error is some 1.6 percent (one standard deviation).
"""

from __future__ import annotations

import math
from collections import Counter

PRECISION = 12
COUNT = 1 << PRECISION
REST_BITS = 64 - PRECISION
EMPTY = bytes(COUNT)


def merged(a: bytes, b: bytes) -> bytes:
    """The registers of the values of both."""
    if b in (a, EMPTY):
        return a
    return b if a == EMPTY else bytes(map(max, a, b))


def estimate(registers: bytes) -> float:
    """How many distinct values the registers have seen."""
    of_rank = Counter(registers)
    most = REST_BITS + 1
    z = COUNT * _tau(1 - of_rank[most] / COUNT)
    for rank in range(most - 1, 0, -1):
        z = 0.5 * (z + of_rank[rank])
    z += COUNT * _sigma(of_rank[0] / COUNT)
    return COUNT * COUNT / (2 * math.log(2) * z)


def _sigma(x: float) -> float:
    if x == 1.0:
        return math.inf
    y, z, before = 1.0, x, -1.0
    while z != before:
        x, before = x * x, z
        z += x * y
        y += y
    return z


def _tau(x: float) -> float:
    if x in (0.0, 1.0):
        return 0.0
    y, z, before = 1.0, 1 - x, -1.0
    while z != before:
        x, before = math.sqrt(x), z
        y *= 0.5
        z -= (1 - x) ** 2 * y
    return z / 3
