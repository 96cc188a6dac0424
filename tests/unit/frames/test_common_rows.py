"""Rows that two frames have in common at their places are left out of both."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import polars as pl
import pytest

from mlforge.frames.common_rows import without_common_rows

SCHEMA = {
    "user": pl.Int64(),
    "x": pl.Float64(),
    "tags": pl.List(pl.String()),
    "embedding": pl.Array(pl.Float32(), 2),
    "place": pl.Struct({"lat": pl.Float64()}),
}
Row = tuple[Any, ...]


@pytest.mark.parametrize("seed", range(4))
def test_rows_left_out_cancel_out(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(40):
        went = [a_row(rng) for _ in range(rng.randint(0, 8))]
        came = edited(went, rng)
        whole = events(went), events(came)
        left = without_common_rows(*whole)
        assert difference(*left) == difference(*whole)
        if went == came:
            assert [frame.height for frame in left] == [0, 0]


def test_amended_rows_are_all_that_is_left() -> None:
    rng = random.Random(7)
    went = [(number, *a_row(rng)[1:]) for number in range(1000)]
    came = [*went[:400], (400, 9.0, None, None, None), *went[401:]]
    came[900] = (900, -0.0, None, None, None)
    went[900] = (900, 0.0, None, None, None)
    left = [frame.height for frame in without_common_rows(events(went), events(came))]
    assert left == [2, 2]


def a_row(rng: random.Random) -> Row:
    return (
        rng.randint(0, 2),
        rng.choice([None, 0.0, -0.0, 1.5]),
        rng.choice([None, ["a"], ["a", None], []]),
        rng.choice([None, (1.0, 2.0)]),
        rng.choice([None, {"lat": None}, {"lat": 1.0}]),
    )


def edited(rows: list[Row], rng: random.Random) -> list[Row]:
    """The rows after a few insertions, removals and amendments."""
    result = list(rows)
    for _ in range(rng.randint(0, 3)):
        deed = rng.choice(["insert", "remove", "amend"])
        if deed == "insert":
            result.insert(rng.randint(0, len(result)), a_row(rng))
        elif result:
            place = rng.randrange(len(result))
            result[place : place + 1] = [a_row(rng)] if deed == "amend" else []
    return result


def events(rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def difference(went: pl.DataFrame, came: pl.DataFrame) -> tuple[Counter[str], Counter[str]]:
    """The rows that only one of two multisets has."""
    lists = pl.col("embedding").cast(pl.List(pl.Float32))  # an Array's values are lists or tuples
    before, after = (Counter(map(repr, f.with_columns(lists).rows())) for f in (went, came))
    return before - after, after - before
