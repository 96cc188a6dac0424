"""Slices of a spine by time, counted file by file as tasks do, and in one pass as one process does."""

from __future__ import annotations

import random

import polars as pl
import pytest

from mlforge.core.values import HOUR_US
from mlforge.frames import polars_schema
from mlforge.training_sets.slices import Slices, TimeHistogram


def drawn(seed: int) -> list[pl.Series]:
    """Instants of a few files, in no order: many in one hour, some null, a few years apart."""
    chance = random.Random(seed)
    choices = (
        lambda: chance.randrange(40) * HOUR_US + chance.randrange(HOUR_US),
        lambda: 7 * HOUR_US + chance.randrange(HOUR_US),
        lambda: -chance.randrange(10**14),
        lambda: None,
    )
    return [
        pl.Series(
            [chance.choice(choices)() for _ in range(chance.randrange(1, 60))], dtype=pl.Int64
        )
        .cast(polars_schema.UTC_INSTANT)
        .alias("at")
        for _ in range(chance.randrange(1, 6))
    ]


def histogram(files: list[pl.Series], most: int) -> TimeHistogram:
    counted = TimeHistogram(most)
    for instants in files:
        counted.add(instants)
    return counted


@pytest.mark.parametrize("seed", range(22))
def test_rows_counted_file_by_file_are_numbered_as_in_one_pass(seed: int) -> None:
    files, most, rows = drawn(seed), (9 if seed % 2 else 10_000), 1 + seed % 11
    slices = histogram(files, most).slices(rows)
    expected = [slices.numbers(instants).to_list() for instants in files]

    apart, merged = [histogram([instants], most) for instants in files], TimeHistogram(most)
    for each in random.Random(seed).sample(apart, len(apart)):
        merged.merge(each)
    again = Slices.from_json(merged.slices(rows).to_json())
    numbers, seen = [], dict[int | None, int]()
    for instants, each in zip(files, apart, strict=True):
        numbers.append(again.from_row(seen.items()).numbers(instants).to_list())
        for start, count in each.rows_at(again.crowded, again.width).items():
            seen[start] = seen.get(start, 0) + count

    assert numbers == expected
    assert again.count == max(map(max, numbers)) + 1
    for first in range(0, again.count, 3):
        times, nulls = again.bounds(first, first + 3)
        for instants, of_file in zip(files, numbers, strict=True):
            for instant, number in zip(instants.to_physical(), of_file, strict=True):
                if first <= number < first + 3:
                    within = times is not None and instant is not None
                    assert times.start <= instant <= times.end if within and times else nulls
