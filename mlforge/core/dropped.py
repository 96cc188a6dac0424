"""Rows of the sources that a version has left out, and values that it has as null, in words."""

from __future__ import annotations

from collections.abc import Mapping

from mlforge.core.forgotten import REASON as FORGOTTEN
from mlforge.core.text import plural

_ROWS = {
    "null_key": "without a key",
    "null_time": "without a time",
    "validators": "that break a rule",
    FORGOTTEN: "of forgotten entities",
}


def rows_dropped(dropped: Mapping[str, int]) -> int:
    """The number of rows that are left out, of what a manifest or a partial counts by reason."""
    return sum(dropped.get(reason, 0) for reason in _ROWS)


def rows_in_words(dropped: Mapping[str, int]) -> str:
    """The rows that are left out, as in `12 without a key, 8 without a time`; empty where there are none."""
    counts = ((dropped.get(reason, 0), words) for reason, words in _ROWS.items())
    return ", ".join(f"{count:,} {words}" for count, words in counts if count)


def nulls_in_words(dropped: Mapping[str, int]) -> str:
    """The values that count as null, as in `3 values, NaN or infinite`; empty where there are none."""
    count = dropped.get("non_finite", 0)
    return f"{plural(count, 'value')}, NaN or infinite" if count else ""
