"""Distinct and most frequent values of windows, against counters over each window."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import polars as pl
import pytest

from mlforge.engines.kernels import occurrences
from mlforge.engines.kernels.occurrences import Codes, Occurrences
from mlforge.engines.kernels.pairwise import Segments


def windows(rows: int, draw: random.Random) -> Segments:
    """Windows none of which is empty, whose starts and ends do not go back; some are the same."""
    starts = sorted(draw.randrange(rows) for _ in range(60))
    ends, least = [], 0
    for start in starts:
        least = max(least, draw.randint(start + 1, min(rows, start + 12)))
        ends.append(least)
    return Segments(pl.Series(starts), pl.Series(ends) - pl.Series(starts))


def ranked(values: list[Any]) -> list[Any]:
    counts = Counter(values)
    return sorted(counts, key=lambda value: (-counts[value], value))


@pytest.mark.parametrize("at_once", [1, 25, 4_000_000])
@pytest.mark.parametrize("pool", ["a", "abc", "abcdefghijklmnopqrstuvwxyz"])
@pytest.mark.parametrize("most", [1, 2, 1000])
def test_windows_have_the_values_that_a_counter_counts(
    pool: str, most: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(occurrences, "PAIRS_AT_ONCE", at_once)
    draw = random.Random(f"{pool} {most}")
    values = [draw.choice(pool) for _ in range(80)]
    codes, distinct = Codes.of(pl.Series(values))
    of = windows(len(values), draw)
    inside = [
        values[start : start + length] for start, length in zip(of.starts, of.lengths, strict=True)
    ]
    within = Occurrences(codes, of)
    assert within.distinct().to_list() == [len(set(window)) for window in inside]
    many, chosen = within.most_frequent(most)
    expected = [ranked(window)[:most] for window in inside]
    assert many.to_list() == [len(set(window)) for window in inside]
    assert distinct.gather(chosen).to_list() == [value for window in expected for value in window]


def test_windows_that_have_no_row_in_common_are_ranked_each_by_its_own() -> None:
    codes, distinct = Codes.of(pl.Series([*"abbcabcca"]))
    many, chosen = Occurrences(
        codes, Segments(pl.Series([0, 3, 5]), pl.Series([3, 1, 4]))
    ).most_frequent(2)
    assert many.to_list() == [2, 1, 3]
    assert distinct.gather(chosen).to_list() == ["b", "a", "c", "c", "a"]


def test_pairs_are_ranked_also_where_64_bits_do_not_hold_their_order() -> None:
    codes = Codes(pl.Series([0, 1 << 60, 1 << 60]), pl.Series([1, 0, 2]))
    many, chosen = Occurrences(
        codes, Segments(pl.Series([0] * 3), pl.Series([3] * 3))
    ).most_frequent(2)
    assert many.unique().to_list() == [2]
    assert chosen.head(2).to_list() == [1 << 60, 0]
    assert chosen.tail(2).to_list() == [1 << 60, 0]
