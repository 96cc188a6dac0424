"""Buckets of numbers, cut from the bits of floats, so that they are the same for all tables ever.

A bucket holds the floats that share sign, exponent and the first five bits of the mantissa: it is 2 to 3 percent of
its values wide. Buckets are numbered in the order of their values; 0 is the first of the floats from zero on.
Times have buckets of a week, counted from 1970.
"""

from __future__ import annotations

import struct

from mlforge.core.values import DAY_US

KEPT_BITS = 17  # sign, 11 of the exponent, 5 of the mantissa
SHIFT = 64 - KEPT_BITS
WEEK_US = 7 * DAY_US


def lower_edge(bucket: int) -> float:
    """The least value of a bucket from 0 on; of one below, the value that its own lie above."""
    return _float(bucket << SHIFT) if bucket >= 0 else -_float(-bucket << SHIFT)


def upper_edge(bucket: int) -> float:
    """The value that those of a bucket from 0 on lie below; of one below 0, its greatest value."""
    return lower_edge(bucket + 1)


def _float(bits: int) -> float:
    value: float = struct.unpack("<d", struct.pack("<Q", bits))[0]
    return value
