"""Measure 27: a profile of a million rows of ten columns, against `describe` of polars."""

from __future__ import annotations

import random

import polars as pl

from benchmarks.harness import SECONDS, Bench, Measure, Row, Target, check, median_of, ratios
from benchmarks.timing import seconds
from mlforge.profiles.measure import profile_frame

ROWS = 1_000_000


def _table(rows: int) -> pl.DataFrame:
    """Amounts, counts, texts, booleans and times as a feature's table has them."""
    chance = random.Random(7)
    amounts = {f"amount_{n}": [chance.lognormvariate(3, 2) for _ in range(rows)] for n in range(4)}
    counts = {
        f"count_{n}": [chance.randrange(10 ** (n + 2)) for _ in range(rows)] for n in range(3)
    }
    return pl.DataFrame(
        {
            **amounts,
            **counts,
            "country": [f"country {chance.randrange(50)}" for _ in range(rows)],
            "is_new": [chance.random() < 0.3 for _ in range(rows)],
            "at": pl.Series([chance.randrange(10**15) for _ in range(rows)]).cast(
                pl.Datetime("us", "UTC")
            ),
        }
    )


def _profiles(bench: Bench) -> list[Row]:
    table = _table(min(ROWS, bench.size.events))
    profiled, described = [], []
    for _ in range(bench.repeat):
        profiled.append(seconds(lambda: profile_frame(table)))
        described.append(seconds(table.describe))
    for name, profile in profile_frame(table).items():
        check(
            profile.rows == table.height and profile.least == _least(table[name]),
            f"the profile of {name}",
        )
    return [
        Row(
            "27",
            f"profile of {table.height:,} rows of {table.width} columns",
            median_of(profiled, SECONDS),
            f"polars describe: {median_of(described, SECONDS)}",
            ratios(profiled, described),
            Target(8),
        )
    ]


def _least(values: pl.Series) -> object:
    return values.to_physical().min() if values.dtype.is_temporal() else values.min()


MEASURES = (Measure("27", "profile of a table, against describe of polars", "<= 8x", _profiles),)
